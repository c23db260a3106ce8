"""What a model's folder must hold, seen before any seconds-slow import."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.host.hub import cached_snapshot, gone
from bluffscope.host.quiet import check_docstrings
from bluffscope.model.gguf import SUFFIX, converted, is_gguf

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""One of them is enough."""
_READ: Final = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Suffixes of files that may be read of a model."""
CONVERSION: Final = "AutoModelForCausalLM.from_pretrained(FROM).save_pretrained(DIR) writes safetensors"
_DEPTHS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
MOST_LAYERS: Final = 10_000
"""More layers than any model has."""


def check_folder(name: str, *, weights: bool = True) -> str:
    """Refuse a folder without the files needed, before any seconds-slow import.

    Args:
        name: hub id, a folder in Hugging Face layout, or a GGUF file, which is converted.
        weights: whether it must have them.

    Returns:
        What transformers is to be given: the folder's path, or the hub id.

    Raises:
        InputError: there is no such folder, or a file is missing in it, damaged or a pickle.
    """
    check_docstrings()
    path = Path(name).expanduser()
    if not path.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise InputError(f"--model {name}: no such folder; give a folder in Hugging Face layout or a hub id")
        return name
    if is_gguf(name):
        return str(converted(name))
    if path.is_dir() and (said := gone(path, _READ)):
        raise InputError(f"--model {name}: {said}")
    if not path.is_dir():
        raise InputError(f"--model {name}: a file; give the folder that holds config.json")
    if not (path / "config.json").is_file():
        if files := sorted(path.glob(f"*{SUFFIX}")):
            raise InputError(f"--model {name}: no config.json in this folder, but a GGUF file: give --model {files[0]}")
        raise InputError(f"--model {name}: no config.json in this folder; give a folder in Hugging Face layout")
    _check_config(name, path / "config.json")
    if weights and not any(path.glob("*.safetensors")):
        pickles = [file for file in sorted(path.iterdir()) if file.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        if pickles:
            raise InputError(
                f"--model {name}: {pickles[0].name} is a pickle, which can run code when opened and is refused; "
                f"convert it where you trust it: {CONVERSION}"
            )
        raise InputError(f"--model {name}: no *.safetensors in this folder; copy the weights there")
    if not any((path / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(f"--model {name}: no tokenizer in this folder; copy the model's tokenizer.json there")
    return str(path)


def check_links(name: str, revision: str | None) -> None:
    """Refuse a model in the cache, while nothing is downloaded, of whose files only the links are left.

    Else transformers would take an optional file for never published, and a tokenizer for another.

    Args:
        name: hub id, folder or file.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: which file, and where.
    """
    from huggingface_hub import is_offline_mode  # a fifth of a second

    folder = cached_snapshot(name, revision) if is_offline_mode() else None
    if folder is not None and (said := gone(folder, _READ)):
        raise InputError(f"--model {name}: {said}")


def _check_config(name: str, file: Path) -> None:
    """Refuse a config.json that is none; one that claims a million layers would fill the memory when it is parsed."""
    content = read_object(name, file)
    _check_depths(name, content, _DEPTHS)
    for part in content.values():
        if isinstance(part, dict):  # of several modalities; some of their parts have no layers
            _check_depths(name, cast("dict[str, Any]", part), (*_DEPTHS, "depth"), least=0)


def _check_depths(name: str, content: Mapping[str, Any], keys: Iterable[str], *, least: int = 1) -> None:
    for key in keys:
        value = content.get(key)
        if value is not None and not (isinstance(value, int) and least <= value <= MOST_LAYERS):
            raise InputError(f"--model {name}: config.json says {key} is {str(value)[:40]}; copy it again")


def read_object(name: str, path: Path) -> dict[str, Any]:
    """A JSON file of a model.

    Args:
        name: of the model, for messages.
        path: the file.

    Raises:
        InputError: it cannot be read, or holds no JSON object.
    """
    where = f"--model {name}: {path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{where} is not valid JSON{line}; copy it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{where} is not a JSON object; copy it again")
    return cast("dict[str, Any]", content)
