"""Names of other files in a model's files: plain names of safetensors in the same folder, or the model is refused.

transformers follows whatever an index or a configuration names: with `torch.load`, into other folders, to other models.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.model.folder import read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig

INDEX: Final = "model.safetensors.index.json"


def check_weight_names(name: str, location: str, revision: str | None, config: PretrainedConfig) -> None:
    """Refuse a model whose index or configuration names weights other than safetensors in the same folder.

    Args:
        name: of the model, for messages.
        location: its folder, or hub id.
        revision: branch, tag or commit on the hub.
        config: as transformers read it.

    Raises:
        InputError: which name.
    """
    if model_file(location, "adapter_config.json", revision) is not None:
        raise InputError(
            f"--model {name}: an adapter for another model (adapter_config.json); merge it into that model and save "
            "the whole (merge_and_unload, save_pretrained), or remove that file"
        )
    explicit = getattr(config, "transformers_weights", None)
    if explicit not in (None, INDEX):
        _check_name(name, "config.json", explicit)
    index = read_if_there(name, location, INDEX, revision)
    names = index.get("weight_map", {})
    if not isinstance(names, dict):
        raise InputError(f"--model {name}: {INDEX} is damaged (its weight_map is not an object); copy it again")
    for file in cast("dict[str, object]", names).values():
        _check_name(name, INDEX, file)


def read_if_there(name: str, location: str, file: str, revision: str | None) -> dict[str, Any]:
    """A JSON file of a model; empty where it has none.

    Raises:
        InputError: it is damaged.
    """
    path = model_file(location, file, revision)
    return {} if path is None else read_object(name, path)


def model_file(location: str, file: str, revision: str | None) -> Path | None:
    """A file of a model, downloaded if need be; None where it has none."""
    folder = Path(location)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    from transformers.utils.hub import cached_file  # seconds-slow

    found = cached_file(
        location,
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _check_name(name: str, where: str, file: object) -> None:
    if isinstance(file, str) and file.endswith(".safetensors") and Path(file).name == file and "\\" not in file:
        return
    raise InputError(
        f"--model {name}: {where} names {str(file)[:80]!r} as weights; only *.safetensors "
        "in the model's own folder are read"
    )
