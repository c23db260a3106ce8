"""Do model, SAEs and options belong together? What their names, metadata and configurations say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bluffscope.config import ModelOptions
from bluffscope.errors import InputError
from bluffscope.health.check import Check, Severity, found
from bluffscope.health.loaded_model import Traits
from bluffscope.model import HookPoint
from bluffscope.model.gguf import SUFFIX
from bluffscope.model.hooks import HOOK_Z

Saes = Mapping[int, Mapping[str, Any]]
"""Identity of each layer's SAE, as the manifest holds it."""

_LOADED_AS: Final[dict[str, tuple[str, ...]]] = {
    # SAELens saves a BatchTopK with the threshold that it learnt, as JumpReLU
    "batchtopk": ("batchtopk", "jumprelu", "topk"),
    "matryoshka_batchtopk": ("matryoshka_batchtopk", "batchtopk", "jumprelu", "topk"),
}
_ROUNDING = re.compile(r"([-._](i1|imat))?[-._](i?q\d\w*|tq\d\w*|mxfp4\w*|bf16|fp?16|fp?32)$", re.IGNORECASE)
"""How names of GGUF files end: `SmolLM2-135M-Instruct.Q4_1.gguf`."""
_CACHE_FOLDER = re.compile(r"models--[^/]+--([^/]+)/snapshots/")


def check_setup(
    options: ModelOptions, model: Mapping[str, Any], saes: Saes, traits: Traits | None, poor: Sequence[int]
) -> Iterator[Check]:
    """Everything that can be said before a text is read.

    Args:
        options: model, SAEs, device and dtype, resolved.
        model: the model's identity, as the manifest holds it.
        saes: the identity of every layer's SAE.
        traits: the model's own; None where no process holds it any more.
        poor: the layers whose SAE was found not to fit: then a name that cannot be compared matters.
    """
    for layer, sae in saes.items():
        yield _check_layer(layer, sae)
        yield _check_name(options, layer, sae, doubted=layer in poor)
        yield _check_architecture(layer, sae)
        yield from _check_processing(options, model, layer, sae, traits)
    if traits is not None:
        yield _check_vocabulary(traits)
    yield _check_device(options)


def _check_layer(layer: int, sae: Mapping[str, Any]) -> Check:
    """The SAE's own hook point against the layer that the user named."""
    name = str(sae.get("hook_name"))
    try:
        point = HookPoint.parse(name)
    except InputError:
        return found("layer: unknown hook point", True, name, layer=layer)
    before_next = point.point == "hook_resid_pre" and point.block == layer + 1
    return found("layer", point.block != layer and not before_next, name, layer=layer, block=point.block)


def _check_name(options: ModelOptions, layer: int, sae: Mapping[str, Any], *, doubted: bool) -> Check:
    """The model that an SAE says it was trained on. A folder's name proves nothing: it is held against a poor fit."""
    trained, given = sae.get("trained_on", {}).get("model_name"), str(options.model)
    ours, theirs = (re.sub(r"[^a-z0-9]", "", _model_name(name).lower()) for name in (given, str(trained)))
    severity: Severity = "warning"
    if trained and ours == theirs:
        severity = "ok"
    # gpt2 is gpt2-small; an -it model is given its base model's SAEs
    elif not trained or (not doubted and (ours in theirs or theirs in ours or Path(given).is_dir())):
        severity = "note"
    seen = str(trained) if trained else "the SAE names no model"
    return found("trained on this model", severity, seen, layer=layer, name=_model_name(given))


def _model_name(name: str) -> str:
    """The model's own name: without organisation, of a folder its last part or what the cache keeps there.

    Of a GGUF file its name, without the kind of rounding that ends it; of one that is just called model, its folder's.
    """
    cached = _CACHE_FOLDER.search(f"{name}/")
    if cached:
        return cached[1]
    folder, _, last = name.rstrip("/").rpartition("/")
    if not last.lower().endswith(SUFFIX):
        return last
    own = _ROUNDING.sub("", last[: -len(SUFFIX)])
    return _model_name(folder) if folder and own.lower() in ("model", "ggml-model") else own


def _check_architecture(layer: int, sae: Mapping[str, Any]) -> Check:
    loaded, trained = str(sae.get("architecture")), sae.get("trained_on", {}).get("architecture")
    wrong = trained is not None and loaded not in _LOADED_AS.get(trained, (trained,))
    seen = f"loaded as {loaded}" if wrong else loaded
    return found("architecture", wrong, seen, layer=layer, trained=trained or "not stated")


def _check_processing(
    options: ModelOptions, model: Mapping[str, Any], layer: int, sae: Mapping[str, Any], traits: Traits | None
) -> Iterator[Check]:
    """What the SAE asks of the model's loading (what cannot be applied was refused when it was loaded)."""
    asked: Mapping[str, Any] = sae.get("trained_on", {}).get("processing") or {}
    if asked.get("center_writing_weights"):
        done = "applied: the mean is taken off what is read"
        if traits is None:
            done = "applied where the model has LayerNorm"
        elif str(sae.get("hook_name")).endswith(HOOK_Z):
            done = "nothing to do: it leaves the heads' outputs as they are"
        elif layer not in traits.centred:
            done = "nothing to do: this model's norms are not LayerNorms, so TransformerLens leaves it unchanged"
        yield found("centred writing weights", "ok", done, layer=layer)
    if revision := asked.get("revision"):
        loaded = (options.revision, model.get("revision"))
        seen = str(loaded[0] or loaded[1] or "not stated")
        yield found("model revision", revision not in loaded, seen, layer=layer, revision=revision)


def _check_vocabulary(traits: Traits) -> Check:
    """The tokenizer's ids against the model's embedding. A model may have spare rows; ids without a row are refused."""
    rows, tokens = traits.embedded, traits.tokens
    if tokens < rows // 2:
        seen = f"{tokens} ids: most rows are never used"
        return found("tokenizer = model: too few ids", "warning", seen, rows=rows)
    return found("tokenizer = model", "warning" if tokens > rows else "ok", f"{tokens} ids", rows=rows)


def _check_device(options: ModelOptions) -> Check:
    seen = f"{options.dtype} on {options.device}"
    if options.quantize != "none":
        seen += f", {options.quantize} weights"
    if options.device == "mps":
        return found("device and precision: MPS", "warning", seen)
    if options.dtype in ("float16", "bfloat16") or options.quantize != "none":
        return found("device and precision", "note", f"{seen}; --fidelity N shows what that changes")
    return found("device and precision", "ok", seen)
