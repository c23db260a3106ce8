"""What SAEs say of themselves without their weights being loaded: widths, hook point, published L0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bluffscope.errors import InputError
from bluffscope.host.quiet import libraries_quiet
from bluffscope.sae.find import SaeSource
from bluffscope.sae.formats import read_config
from bluffscope.sae.load import no_pickle, place_of, registered_l0, sae_errors
from bluffscope.sae.releases import saelens_at


class SaeConfig(NamedTuple):
    """One layer's SAE, as its configuration describes it."""

    d_in: int
    d_sae: int
    hook_name: str
    l0: float | None
    """Mean active features as published, or None."""


def read_sae_configs(source: SaeSource) -> dict[int, SaeConfig]:
    """The configuration of every layer's SAE, in the order of the source's layers.

    Args:
        source: what `find_saes` found. Of a release the configurations may have to be downloaded.

    Raises:
        InputError: a configuration that is missing, damaged or says nothing of widths; a hub that says no.
    """
    found: dict[int, SaeConfig] = {}
    for layer, place in source.places.items():
        where = f"--sae {source.name}, layer {layer}"
        with libraries_quiet(), sae_errors(where, source.repository, place_of(source, place)):
            if isinstance(place, str):
                with saelens_at(source.revision, download=False):
                    said = _of_release(source.release, place)
            else:
                said = read_config(place, layer, where)
            found[layer] = _config(said, layer)
    return found


def _config(said: Mapping[str, Any], layer: int) -> SaeConfig:
    metadata = said.get("metadata") or {}
    l0 = metadata.get("l0")
    hook_name = metadata.get("hook_name") or said.get("hook_name") or f"blocks.{layer}.hook_resid_post"
    return SaeConfig(int(said["d_in"]), int(said["d_sae"]), str(hook_name), None if l0 is None else float(l0))


def _of_release(release: str, sae_id: str) -> dict[str, Any]:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface  # seconds-slow

    with no_pickle(f"--sae {release}:{sae_id}"):
        said = load_sae_config_from_huggingface(release, sae_id, device="cpu")
    if not said.get("d_in") or not said.get("d_sae"):
        raise InputError(f"--sae {release}: the configuration of {sae_id} names no widths; give a folder instead")
    metadata = dict(said.get("metadata") or {})
    return {**said, "metadata": metadata | {"l0": metadata.get("l0") or registered_l0(release, sae_id)}}
