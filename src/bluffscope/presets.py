"""Named sets of model, SAEs and layers, and how options left open are filled in from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bluffscope.config import ModelOptions
from bluffscope.errors import InputError

DEMO_NAME: Final = "bluffscope-demo"
"""Name of the embedded model and its SAEs, wherever the package is installed."""


@dataclass(frozen=True)
class Preset:
    """A model with the SAEs that were trained on it."""

    model: str
    sae: str
    layers: tuple[int, ...]
    note: str


PRESETS: Final[dict[str, Preset]] = {
    "demo": Preset(
        DEMO_NAME, DEMO_NAME, (2, 5, 8), "the embedded model organism with a planted truth signal; needs no download"
    ),
    "gemma-2-2b": Preset(
        "google/gemma-2-2b",
        "gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16k/canonical",
        (5, 12, 20),
        "Gemma 2 2B with Gemma Scope's canonical 16k residual-stream SAEs; needs the licence and HF_TOKEN",
    ),
}


def resolve(options: ModelOptions) -> ModelOptions:
    """Fill in model, SAEs and layers from the preset, or from the preset that has the model named.

    Raises:
        InputError: an unknown preset, or a model without SAEs.
    """
    if options.preset is not None and options.preset not in PRESETS:
        raise InputError(f"--preset {options.preset}: unknown; choose from {', '.join(PRESETS)}")
    name = options.preset
    if name is None and options.model is not None:
        name = next((name for name, preset in PRESETS.items() if preset.model == options.model), None)
    elif name is None and options.sae is None:
        name = "demo"
    if name is None:
        if options.model is None:
            raise InputError("--sae without --model: name the model that the SAEs were trained on")
        if options.sae is None:
            raise InputError(f"--model {options.model}: give its SAEs with --sae (a SAELens release or a folder)")
        return _checked(options)
    preset = PRESETS[name]
    own_sae = options.sae is None or options.sae == preset.sae.partition(":")[0]
    return _checked(
        replace(
            options,
            model=options.model or preset.model,
            sae=preset.sae if own_sae else options.sae,
            layers=options.layers or (preset.layers if own_sae else ()),
        )
    )


def _checked(options: ModelOptions) -> ModelOptions:
    if duplicates := [layer for layer in options.layers if options.layers.count(layer) > 1]:
        raise InputError(f"--layers: {duplicates[0]} is given twice; name each layer once")
    if negative := [layer for layer in options.layers if layer < 0]:
        raise InputError(f"--layers {negative[0]}: layers are counted from 0")
    return options
