"""Pairs from a dataset of the Hugging Face hub: `hf://datasets/OWNER/NAME[@REVISION][/PATH]`, as pandas and polars say.

Only the files that the path names are downloaded, into the hub's own cache; where the hub does not answer, the cache
is all there is. Which records a file may hold is the readers' matter, as for any other file.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from bluffscope.errors import InputError
from bluffscope.host.hub import DATASETS, cached_snapshot, hub_or_cache, not_cached, refusal
from bluffscope.pairs.readers import READERS, format_of, shown

_ADDRESS: Final = re.compile(r"(?P<name>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?")
_FORM: Final = f"{DATASETS}OWNER/NAME[@REVISION][/PATH]"
_NAMED: Final = 5
"""Files that a message names, as what to choose from."""


@dataclass(frozen=True)
class HubFiles:
    """Files of a dataset, in the local cache."""

    files: list[Path]
    """At least one, by name."""
    name: str
    """Of the dataset, without its owner."""
    location: str
    """The address at the commit that was used, which always names the same files."""
    commit: str


def hub_files(address: str) -> HubFiles:
    """Download what an address names, as far as the local cache lacks it.

    Args:
        address: ``hf://datasets/OWNER/NAME[@REVISION][/PATH]``. PATH is a file, a folder whose files are meant, or a
            pattern such as ``data/validation-*.parquet``; without it, the files at the dataset's top are meant.

    Raises:
        InputError: No such dataset, revision or file; it is gated, or out of reach.
    """
    match = _ADDRESS.fullmatch(address.removeprefix(DATASETS).rstrip("/"))
    if match is None:
        raise InputError(f"{shown(address)}: expected {_FORM}")
    name, revision, path = match["name"], match["revision"], match["path"] or ""
    from huggingface_hub import constants, hf_hub_download  # a fifth of a second: only where it is wanted

    with hub_or_cache([address]):
        try:
            commit, there = _listed(name, revision, offline=constants.HF_HUB_OFFLINE)
            chosen = _chosen(address, path, there)
            # By revision, not commit: the cache then knows which commit it named when the hub is out of reach.
            files = [Path(hf_hub_download(name, file, repo_type="dataset", revision=revision)) for file in chosen]
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            said = refusal(error, f"datasets/{name}", f"{DATASETS}{name}@REVISION") or " ".join(str(error).split())
            raise InputError(f"{shown(address)}: {said[:300]}") from error
    if any(commit not in file.parts for file in files):
        raise InputError(f"{shown(address)}: it changed while it was downloaded; start again")
    pinned = f"{DATASETS}{name}@{commit}" + (f"/{path}" if path else "")
    return HubFiles(files, name.partition("/")[2], pinned, commit)


def _listed(name: str, revision: str | None, *, offline: bool) -> tuple[str, list[str]]:
    """The commit that a revision names, and the names of its files; from the cache if the hub is out of reach."""
    if offline:
        folder = cached_snapshot(name, revision, kind="dataset")
        if folder is None:
            raise InputError(f"{DATASETS}{name}: {not_cached(folders=False)}")
        return folder.name, [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(name, revision=revision)
    assert found.sha is not None  # the hub always says
    return found.sha, [file.rfilename for file in found.siblings or ()]


def _chosen(address: str, path: str, there: Sequence[str]) -> list[str]:
    """The files that a path names, by name."""
    usable = sorted(file for file in there if format_of(PurePosixPath(file)))
    if path in usable:
        return [path]
    if any(sign in path for sign in "*?["):
        found = fnmatch.filter(usable, path)
    else:
        parent = path or "."
        inside = [PurePosixPath(file) for file in usable if str(PurePosixPath(file).parent) == parent]
        found = [str(file) for file in inside if not file.name.startswith(".")]
    if not found:
        suffixes = ", ".join(READERS)
        if not usable:
            raise InputError(f"{shown(address)}: this dataset has no file of the kinds that are read ({suffixes})")
        named = ", ".join(usable[:_NAMED]) + (f" and {len(usable) - _NAMED} more" if len(usable) > _NAMED else "")
        what = f"no {suffixes} file at {path}" if path else f"its {suffixes} files are in folders"
        raise InputError(f"{shown(address)}: {what}; give one of {named}, or a pattern with *")
    return found
