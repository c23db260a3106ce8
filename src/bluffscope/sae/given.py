"""SAEs that the caller holds in memory, one a layer, read without touching them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluffscope.errors import InputError
from bluffscope.sae.coder import AnySae, Coder
from bluffscope.sae.find import IN_MEMORY, SaeSource, find_sae
from bluffscope.sae.load import as_coder, load_coders, sae_errors
from bluffscope.sae.plain import PlainSae, known_config

if TYPE_CHECKING:
    import torch


def coders_given(
    saes: Mapping[int, Any], layers: tuple[int, ...], *, device: str, dtype: torch.dtype
) -> dict[int, Coder]:
    """The caller's SAE of every layer, as `load_coders` would give it.

    Args:
        saes: by layer, an SAE of SAELens, or the folder or params.npz of one.
        layers: those wanted, in their order; empty takes all.
        device: torch device name.
        dtype: float32 or float64; an SAE of that precision on that device takes no further memory.

    Raises:
        InputError: no SAE for a layer, or one that cannot be read.
    """
    if lacking := [layer for layer in layers if layer not in saes]:
        raise InputError(f"--layers {lacking[0]}: sae has none for it; it has {', '.join(map(str, saes))}")
    return {layer: _coder(saes[layer], layer, device, dtype) for layer in layers or saes}


def _coder(sae: Any, layer: int, device: str, dtype: torch.dtype) -> Coder:
    where = f"--sae, layer {layer}"
    if isinstance(sae, str | Path):
        source = SaeSource(str(sae), {layer: find_sae(Path(sae).expanduser(), where)})
        return load_coders(source, device=device, dtype=dtype)[layer]
    kinds = {kind.__name__ for kind in type(sae).__mro__}
    if "TrainingSAE" in kinds:
        raise InputError(
            f"{where}: a {type(sae).__name__} is in training; give what its save_inference_model(DIR) wrote"
        )
    if not kinds & {"SAE", "PlainSae"}:
        raise InputError(f"{where}: expected an SAE of SAELens or its folder, got {type(sae).__name__}")
    with sae_errors(where, ""):
        held = _held(sae, device, dtype)
    if held is not None:
        return as_coder(held, layer, {"in_memory": True}, where)
    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        with sae_errors(where, ""):
            sae.save_model(Path(scratch))  # SAELens itself makes another one of an unusual kind
        coder = load_coders(SaeSource(IN_MEMORY, {layer: Path(scratch)}), device=device, dtype=dtype)[layer]
    identity = {name: value for name, value in coder.identity.items() if name != "folder"}
    return replace(coder, identity={"in_memory": True, **identity})


def _held(sae: AnySae, device: str, dtype: torch.dtype) -> PlainSae | None:
    """The same weights behind our own reader's arithmetic, which is SAELens's; None where it does not know the kind."""
    if isinstance(sae, PlainSae):
        cfg = sae.cfg
    elif (cfg := known_config(sae.cfg.to_dict())) is None:
        return None
    weights = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != cfg.shapes():
        return None
    return PlainSae(cfg, {name: tensor.to(device=device, dtype=dtype) for name, tensor in weights.items()})
