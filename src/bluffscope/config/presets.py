"""Named sets of model, SAEs and layers, and how options left open are filled in from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from bluffscope.config import NO_SAE, ModelOptions, RunConfig
from bluffscope.config.layers import LayerSlice
from bluffscope.errors import InputError

DEMO_NAME: Final = "bluffscope-demo"
"""Name of the embedded model and its SAEs, wherever the package is installed."""


@dataclass(frozen=True)
class Architecture:
    """A model's config.json, under the same names, as far as sizes follow from it: known without a download."""

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    parameters: int
    """Of the whole language model, its tied LM head counted once."""
    stored_bytes: int
    """Of a weight in the published files: 4 for float32, 2 for bfloat16."""
    tie_word_embeddings: bool
    max_position_embeddings: int = 0
    attn_logit_softcapping: float | None = None
    sliding_window: int | None = None
    layer_types: bool = False
    """Whether some layers have sliding windows and others have none."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model with the SAEs that were trained on it."""

    model: str
    sae: str
    """As --sae has it; "none" for a model without SAEs."""
    layers: tuple[int, ...]
    """At 20, 46 and 77 % of the model's depth (`DEPTHS`); empty for all, where there are no SAEs."""
    note: str
    architecture: Architecture
    d_sae: int
    l0: tuple[float, ...]
    """Published mean active features of each layer's SAE, as far as known; the memory model asks."""
    point: str = "hook_resid_post"
    """The hook point that the SAEs read."""
    licence: str | None = None
    """What has to be accepted on the model's page before it may be downloaded; None for open models."""
    aliases: tuple[str, ...] = ()
    """Other names of the model on the hub."""


DEPTHS: Final = (0.20, 0.46, 0.77)
"""Where in a model its preset's layers lie."""
_GEMMA_2: Final[dict[str, Any]] = {"attn_logit_softcapping": 50.0, "sliding_window": 4096, "layer_types": True}
_DEMO: Final[dict[str, Any]] = _GEMMA_2 | {"sliding_window": 128}
_GEMMA_3: Final[dict[str, Any]] = {"sliding_window": 1024, "layer_types": True}
_SHORT: Final[dict[str, Any]] = _GEMMA_3 | {"sliding_window": 512}
_SIZES: Final = {
    # type, layers, width, MLP width, heads, key and value heads, head width, vocabulary, parameters, stored bytes, tied
    "demo": Architecture("gemma2", 10, 128, 256, 4, 2, 32, 2560, 1_807_488, 2, True, **_DEMO),
    "smollm2-135m": Architecture("llama", 30, 576, 1536, 9, 3, 64, 49_152, 134_515_008, 2, True),
    "gemma-3-270m": Architecture("gemma3_text", 18, 640, 2048, 4, 1, 256, 262_144, 268_098_176, 2, True, **_SHORT),
    "gemma-2-2b": Architecture("gemma2", 26, 2304, 9216, 8, 4, 256, 256_000, 2_614_341_888, 4, True, **_GEMMA_2),
    "gemma-2-9b": Architecture("gemma2", 42, 3584, 14_336, 16, 8, 256, 256_000, 9_241_705_984, 4, True, **_GEMMA_2),
    "gemma-3-4b": Architecture("gemma3_text", 34, 2560, 10_240, 8, 4, 256, 262_208, 3_880_263_168, 2, True, **_GEMMA_3),
    "llama-3.1-8b": Architecture("llama", 32, 4096, 14_336, 32, 8, 128, 128_256, 8_030_261_248, 2, False),
    "gpt2-small": Architecture("gpt2", 12, 768, 3072, 12, 12, 64, 50_257, 124_439_808, 4, True, 1024),
}
_GEMMA_LICENCE: Final = "Gemma Terms of Use"

PRESETS: Final[dict[str, Preset]] = {
    "demo": Preset(
        model=DEMO_NAME,
        sae=DEMO_NAME,
        layers=(2, 5, 8),
        note="the embedded model organism with a planted truth signal; needs no download",
        architecture=_SIZES["demo"],
        d_sae=2048,
        l0=(30, 30, 30),
    ),
    "gemma-2-2b": Preset(
        model="google/gemma-2-2b",
        sae="gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16k/canonical",
        layers=(5, 12, 20),
        note="Gemma 2 2B with Gemma Scope's canonical residual-stream SAEs",
        architecture=_SIZES["gemma-2-2b"],
        d_sae=16_384,
        l0=(68, 82, 71),
        licence=_GEMMA_LICENCE,
    ),
    "gemma-2-9b": Preset(
        model="google/gemma-2-9b",
        sae="gemma-scope-9b-pt-res-canonical:layer_{layer}/width_16k/canonical",
        layers=(8, 19, 32),
        note="Gemma 2 9B with Gemma Scope's canonical residual-stream SAEs",
        architecture=_SIZES["gemma-2-9b"],
        d_sae=16_384,
        l0=(99, 132, 111),
        licence=_GEMMA_LICENCE,
    ),
    "gemma-3-4b": Preset(
        model="google/gemma-3-4b-pt",
        sae="gemma-scope-2-4b-pt-res-all:layer_{layer}_width_16k_l0_big",
        layers=(7, 16, 26),
        note="the language model of Gemma 3 4B with Gemma Scope 2's residual-stream SAEs of L0 near 100",
        architecture=_SIZES["gemma-3-4b"],
        d_sae=16_384,
        l0=(97, 120, 120),
        licence=_GEMMA_LICENCE,
    ),
    "llama-3.1-8b": Preset(
        model="meta-llama/Llama-3.1-8B",
        sae="llama_scope_lxr_8x:l{layer}r_8x",
        layers=(6, 15, 25),
        note="Llama 3.1 8B with Llama Scope's residual-stream SAEs of eight times its width",
        architecture=_SIZES["llama-3.1-8b"],
        d_sae=32_768,
        l0=(50, 50, 50),
        licence="Llama 3.1 Community License",
        aliases=("meta-llama/Meta-Llama-3.1-8B",),
    ),
    "smollm2-135m": Preset(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        sae=NO_SAE,
        layers=(6, 14, 23),
        note="SmolLM2 135M, small enough for any machine; examples/smollm2-135m-saes has SAEs of these layers",
        architecture=_SIZES["smollm2-135m"],
        d_sae=0,
        l0=(),
    ),
    "gemma-3-270m": Preset(
        model="google/gemma-3-270m",
        sae=NO_SAE,
        layers=(4, 8, 14),
        note="Gemma 3 270M",
        architecture=_SIZES["gemma-3-270m"],
        d_sae=0,
        l0=(),
        licence=_GEMMA_LICENCE,
    ),
    "gpt2-small": Preset(
        model="openai-community/gpt2",
        sae="gpt2-small-res-jb:blocks.{layer}.hook_resid_pre",
        layers=(2, 6, 9),
        note="GPT-2 small with Joseph Bloom's SAEs; they read hook_resid_pre: layer K is what enters block K",
        architecture=_SIZES["gpt2-small"],
        d_sae=24_576,
        l0=(18, 51, 70),
        point="hook_resid_pre",
        aliases=("gpt2",),
    ),
}


def check_preset(name: str | None) -> None:
    """Refuse a name that no preset has.

    Raises:
        InputError: it is one; the message has all there are.
    """
    if name is not None and name not in PRESETS:
        raise InputError(f"--preset {name}: unknown; choose from {', '.join(PRESETS)}")


def resolve(options: ModelOptions) -> ModelOptions:
    """Fill in model, SAEs and layers from the preset, or from the preset that has the model named.

    Raises:
        InputError: an unknown preset, or a model without SAEs.
    """
    check_preset(options.preset)
    name = options.preset
    if name is None and options.model is not None:
        name = next(
            (name for name, preset in PRESETS.items() if options.model in (preset.model, *preset.aliases)), None
        )
    elif name is None and options.sae in (None, NO_SAE):
        name = "demo"
    if name is None:
        if options.model is None:
            raise InputError("--sae without --model: name the model that the SAEs were trained on")
        if options.sae is None:
            raise InputError(
                f"--model {options.model}: give its SAEs with --sae (a SAELens release or a folder), or measure "
                "without any: --sae none"
            )
        return _checked(options)
    preset = PRESETS[name]
    release, colon, template = preset.sae.partition(":")
    named = options.sae or release
    own_sae = ":" not in named and named.partition("@")[0] == release  # of whatever revision
    return _checked(
        replace(
            options,
            model=options.model or preset.model,
            sae=f"{named}{colon}{template}" if own_sae else options.sae,
            layers=options.layers or (preset.layers if own_sae else ()),
        )
    )


def resolved(config: RunConfig) -> RunConfig:
    """A run's options with its model filled in, as `resolve` does, and what is on or off by what the model has.

    Raises:
        InputError: as `resolve`.
    """
    model, measure = resolve(config.model), config.measure
    if measure.trajectory == "auto":
        measure = replace(measure, trajectory="off" if model.has_saes else "on")
    return replace(config, model=model, measure=measure)


def _checked(options: ModelOptions) -> ModelOptions:
    if duplicates := [layer for layer in options.layers if options.layers.count(layer) > 1]:
        raise InputError(f"--layers: {duplicates[0]} is given twice; name each layer once")
    if negative := [layer for layer in options.measured_layers if layer < 0]:
        raise InputError(f"--layers {negative[0]}: layers are counted from 0")
    return options if options.layers or options.has_saes else replace(options, layers=(LayerSlice("all"),))
