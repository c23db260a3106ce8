"""SAEs of the hub through SAELens: at a revision, and out of the cache where their files lie there.

SAELens 6.54 reads every repository at its branch main. The widths of Gemma Scope 2's SAEs it reads from the hub, by a
client of its own, even where the file is in the cache: without a network they could not be loaded at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from bluffscope.host.hub import cached_snapshot
from bluffscope.host.quiet import replaced

WEIGHTS = (".safetensors", ".npz")
"""How names of weight files end."""


@contextlib.contextmanager
def saelens_at(revision: str | None, *, download: bool) -> Generator[None, None, None]:
    """Within the block, SAELens reads repositories at this revision, and widths through huggingface_hub.

    Args:
        revision: branch, tag or commit; None is the branch main.
        download: whether a weights file whose widths are asked for is wanted as a whole.
    """
    from huggingface_hub import constants
    from sae_lens.loading import pretrained_sae_loaders as loaders  # seconds-slow: only where a release is named

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        return _shapes(repo_id, filename, revision, download=download)

    branch = revision or constants.DEFAULT_REVISION
    with replaced(constants, DEFAULT_REVISION=branch), replaced(loaders, get_safetensors_tensor_shapes=shapes):
        yield


def release_files(repository: str, path: str, revision: str | None) -> dict[str, Path]:
    """The weights that the cache holds of an SAE, by their path in the repository.

    Args:
        repository: ORGANISATION/NAME on the hub.
        path: the SAE's folder or file in it.
        revision: branch, tag or commit; None is the branch main.
    """
    snapshot = cached_snapshot(repository, revision)
    if snapshot is None:
        return {}
    place = snapshot / path
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    return {file.relative_to(snapshot).as_posix(): file for file in files if file.suffix in WEIGHTS and file.is_file()}


def _shapes(repo_id: str, filename: str, revision: str | None, *, download: bool) -> dict[str, list[int]]:
    """The shapes of a safetensors file's tensors, by name."""
    from huggingface_hub import HfApi, hf_hub_download, is_offline_mode
    from safetensors import safe_open

    snapshot = cached_snapshot(repo_id, revision)
    file = None if snapshot is None else snapshot / filename
    if file is None or not file.is_file():
        if not (download or is_offline_mode()):
            metadata = HfApi().parse_safetensors_file_metadata(repo_id, filename, revision=revision)
            return {name: list(info.shape) for name, info in metadata.tensors.items()}
        file = Path(hf_hub_download(repo_id, filename, revision=revision))
    with safe_open(file, framework="numpy") as opened:
        return {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
