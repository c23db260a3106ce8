"""Finding SAEs by release or folder, without importing SAELens."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bluffscope.config.layers import LayerSlice, numbered
from bluffscope.errors import InputError
from bluffscope.host.hub import leaves
from bluffscope.sae.layouts import chosen, expected, itself, sae_in, search, some, what_is_wrong

logger = logging.getLogger(__name__)

IN_MEMORY = "<in memory>"
"""Stands for the name of SAEs that were objects, not files."""


@dataclass(frozen=True)
class SaeSource:
    """Where the SAE of every layer is found."""

    name: str
    """The release or folder as the user gave it."""
    places: Mapping[int, Path | str]
    """By layer, in the user's order: an SAE's folder, a Gemma Scope params.npz, or the id of one in the release."""
    release: str = ""
    repository: str = ""
    """Where a release's weights lie on the hub."""
    revision: str | None = None
    """Branch, tag or commit of the repository; None is the branch main."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Those that there are SAEs for."""
        return tuple(self.places)


def find_saes(spec: str, asked: Sequence[int | LayerSlice], blocks: int = 0) -> SaeSource:
    """Find one SAE for every layer.

    Args:
        spec: a folder in a layout of `bluffscope.sae.layouts`, or one layer's own; a SAELens release; or
            `RELEASE:ID` where ID holds `{layer}`; `RELEASE@REVISION` is another than the branch main.
        asked: the layers wanted; a slice takes those that a folder has; empty takes all that it has.
        blocks: layers of the model, which slices are of.

    Raises:
        InputError: nothing of that name, no SAE for a layer, or several that fit.
    """
    if spec == IN_MEMORY:
        raise InputError("--sae: the SAEs were objects in memory; give the folder or release that has the same")
    path = Path(spec).expanduser()
    if path.is_dir():
        return _find_in_folder(spec, path, asked, blocks)
    if spec.startswith((".", "/", "~")):
        raise InputError(f"--sae {spec}: no such folder; give a folder that holds layer_K/ or a SAELens release")
    if not asked:
        raise InputError(f"--sae {spec}: say which layers, as --layers 5 12 20")
    layers = numbered(asked, blocks, "the model")
    release, _, template = spec.partition(":")
    release, _, revision = release.partition("@")
    if not release:
        raise InputError(f"--sae {spec}: it names no release; give RELEASE:ID, or a folder")
    if any(leaves(part) for part in (template, revision)):
        raise InputError(f"--sae {spec}: ID and revision are names inside the release, without .. or a / in front")
    ids = {layer: _release_id(release, template, layer) for layer in layers}
    entry = registry().get(release)
    return SaeSource(spec, ids, release, release if entry is None else entry.repo_id, revision or None)


def find_sae(place: Path, where: str) -> Path:
    """One layer's SAE as `SaeSource.places` has it, from its folder or params.npz.

    Args:
        place: the folder, in any format of `bluffscope.sae.layouts`, or file.
        where: put in front of messages.

    Raises:
        InputError: there is none.
    """
    if place.name == "params.npz" and place.is_file():
        return place
    if not place.is_dir():
        raise InputError(f"{where}: {place}: no such folder; give an SAE's folder, or an SAE of SAELens")
    if (found := sae_in(place, where)) is None:
        raise InputError(f"{where}: {place.parent}: {what_is_wrong(place)}")
    return found


def pinned(spec: str, commit: str) -> str:
    """The release of a spec at this commit of its repository."""
    release, colon, template = spec.partition(":")
    return f"{release.partition('@')[0]}@{commit}{colon}{template}"


class Release(NamedTuple):
    """A line of SAELens's table of pretrained SAEs."""

    repo_id: str
    """ORGANISATION/NAME on the hub."""
    saes_map: Mapping[str, str]
    """Where each SAE lies in the repository, by id."""
    expected_l0: Mapping[str, float]
    """Mean L0 as published, by id; 0 or missing where the table says nothing."""
    config_overrides: Mapping[str, Any]
    """What SAELens sets in the configuration of its SAEs."""
    conversion: str
    """Name of the format that SAELens converts them from; empty for its own."""
    neuronpedia: Mapping[str, str]
    """MODEL/SAE on Neuronpedia, by id, where there are pages."""


@cache
def registry() -> dict[str, Release]:
    """SAELens's table of pretrained SAEs, by release: a YAML file in its package, which is not imported for it.

    Raises:
        InputError: SAELens is not installed.
    """
    import yaml  # with its C parser this table takes half a second

    package = find_spec("sae_lens")
    if package is None or not package.submodule_search_locations:
        raise InputError("sae-lens is not installed, and names of releases are looked up in it; give a folder of SAEs")
    file = Path(package.submodule_search_locations[0]) / "pretrained_saes.yaml"
    table = yaml.load(file.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        name: Release(
            said["repo_id"],
            {sae["id"]: str(sae["path"]) for sae in said["saes"]},
            {sae["id"]: sae.get("l0", 0.0) for sae in said["saes"]},
            said.get("config_overrides") or {},
            said.get("conversion_func") or "",
            {sae["id"]: sae["neuronpedia"] for sae in said["saes"] if sae.get("neuronpedia")},
        )
        for name, said in table.items()
    }


def _find_in_folder(spec: str, path: Path, asked: Sequence[int | LayerSlice], blocks: int) -> SaeSource:
    where = f"--sae {spec}"
    found, unusable = search(path)
    if not found and not unusable:
        try:
            alone = itself(path)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        found = {alone[0].layer: alone} if alone else {}
    layers = numbered(asked, blocks, f"the model that have an SAE in {spec}", {**found, **unusable})
    for layer in layers or sorted(unusable):
        if layer in unusable and (layers or not found):
            raise InputError(f"{where}: {unusable[layer]}")
    if not found:
        raise InputError(f"{where}: no SAE in this folder; {expected(path)}")
    if missing := [layer for layer in layers if layer not in found]:
        there = " ".join(map(str, sorted(found)))
        raise InputError(f"{where}: no SAE for layer {missing[0]}; the folder has layers {there}")
    if not layers:
        for reason in unusable.values():
            logger.warning("--sae %s: left out: %s", spec, reason)
    return SaeSource(spec, {layer: chosen(found[layer], where) for layer in layers or sorted(found)})


def _release_id(release: str, template: str, layer: int) -> str:
    """The id of a layer's SAE in a release."""
    wanted = template.replace("{layer}", str(layer))
    directory = registry()
    if release not in directory:
        if wanted and release.count("/") == 1 and all(release.split("/")):
            return wanted  # a hub repository
        raise InputError(
            f"--sae {release}: neither a folder nor a SAELens release; see `bluffscope presets` and SAELens's table of "
            "pretrained SAEs, or name a hub repository and its id as ORGANISATION/NAME:ID"
        )
    ids = list(directory[release].saes_map)
    if wanted:
        if wanted in ids:
            return wanted
        alike = difflib.get_close_matches(wanted, ids, n=3)
        raise InputError(f"--sae {release}: it has no SAE {wanted}; there are {', '.join(alike) or some(ids)}")
    pattern = re.compile(rf"(?:^|[^0-9])(?:layer_|blocks\.|l|L)?{layer}(?:[^0-9]|$)")
    fitting = [name for name in ids if pattern.search(name.split("/")[0])]
    canonical = [name for name in fitting if name == f"layer_{layer}/width_16k/canonical"]
    if len(canonical or fitting) == 1:
        return (canonical or fitting)[0]
    if not fitting:
        raise InputError(f"--sae {release}: no SAE for layer {layer}; its SAEs are {some(ids)}")
    raise InputError(
        f"--sae {release}: several SAEs for layer {layer}: {some(fitting)}; name one as {release}:ID, "
        "with {layer} in ID where the number goes"
    )
