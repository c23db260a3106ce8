"""Do model, SAEs and options belong together? What their names, metadata and configurations say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bluffscope.config import ModelOptions
from bluffscope.errors import InputError
from bluffscope.health.check import Check, Severity
from bluffscope.health.loaded_model import Traits
from bluffscope.model import HookPoint

Saes = Mapping[int, Mapping[str, Any]]
"""Identity of each layer's SAE, as the manifest holds it."""

_LOADED_AS: Final[dict[str, tuple[str, ...]]] = {
    # SAELens saves a BatchTopK with the threshold that it learnt, as JumpReLU
    "batchtopk": ("batchtopk", "jumprelu", "topk"),
    "matryoshka_batchtopk": ("matryoshka_batchtopk", "batchtopk", "jumprelu", "topk"),
}
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
    row: dict[str, Any] = {
        "check": "layer",
        "layer": layer,
        "expected": f"an SAE that reads layer {layer}",
        "seen": name,
    }
    try:
        point = HookPoint.parse(name)
    except InputError:
        return Check(**row, severity="error", means="It reads no hook point of the residual stream")
    before_next = point.point == "hook_resid_pre" and point.block == layer + 1
    if point.block == layer or before_next:
        return Check(**row)
    return Check(
        **row,
        severity="error",
        means=f"Columns named l{layer}_ hold what is read at block {point.block}",
        do=f"Give this SAE as layer {point.block}, or the SAE of layer {layer}",
    )


def _check_name(options: ModelOptions, layer: int, sae: Mapping[str, Any], *, doubted: bool) -> Check:
    """The model that an SAE says it was trained on. A folder's name proves nothing: it is held against a poor fit."""
    trained = sae.get("trained_on", {}).get("model_name")
    given = str(options.model)
    row: dict[str, Any] = {"check": "trained on this model", "layer": layer, "expected": _model_name(given)}
    if not trained:
        return Check(**row, severity="note", seen="the SAE names no model")
    ours, theirs = (re.sub(r"[^a-z0-9]", "", _model_name(name).lower()) for name in (given, str(trained)))
    if ours == theirs:
        return Check(**row, seen=str(trained))
    alike = ours in theirs or theirs in ours  # gpt2 is gpt2-small; an -it model is given its base model's SAEs
    folder = Path(given).is_dir()
    severity: Severity = "warning" if doubted or not (alike or folder) else "note"
    return Check(
        **row,
        severity=severity,
        seen=str(trained),
        means="The SAE says it was trained on another model",
        do="Give the SAEs of this model",
    )


def _model_name(name: str) -> str:
    """The model's own name: without organisation, of a folder its last part or what the cache keeps there."""
    cached = _CACHE_FOLDER.search(f"{name}/")
    return cached[1] if cached else name.rstrip("/").rpartition("/")[2]


def _check_architecture(layer: int, sae: Mapping[str, Any]) -> Check:
    loaded, trained = str(sae.get("architecture")), sae.get("trained_on", {}).get("architecture")
    row: dict[str, Any] = {"check": "architecture", "layer": layer, "expected": trained or "not stated"}
    if trained is None or loaded in _LOADED_AS.get(trained, (trained,)):
        return Check(**row, seen=loaded)
    return Check(
        **row,
        severity="error",
        seen=f"loaded as {loaded}",
        means="Other features are active than those it was trained with",
        do="Correct architecture in cfg.json, or save the SAE again with SAELens",
    )


def _check_processing(
    options: ModelOptions, model: Mapping[str, Any], layer: int, sae: Mapping[str, Any], traits: Traits | None
) -> Iterator[Check]:
    """What the SAE asks of the model's loading (what cannot be applied was refused when it was loaded)."""
    asked: Mapping[str, Any] = sae.get("trained_on", {}).get("processing") or {}
    if asked.get("center_writing_weights"):
        done = "applied: the mean is taken off what is read"
        if traits is None:
            done = "applied where the model has LayerNorm"
        elif layer not in traits.centred:
            done = "nothing to do: this model's norms are not LayerNorms, so TransformerLens leaves it unchanged"
        yield Check(check="centred writing weights", layer=layer, expected="center_writing_weights", seen=done)
    if revision := asked.get("revision"):
        wrong = revision not in (options.revision, model.get("revision"))
        yield Check(
            check="model revision",
            layer=layer,
            severity="error" if wrong else "ok",
            expected=str(revision),
            seen=str(options.revision or model.get("revision") or "not stated"),
            means="The SAE was trained on another checkpoint of the model",
            do=f"Give --revision {revision}",
        )


def _check_vocabulary(traits: Traits) -> Check:
    """The tokenizer's ids against the model's embedding. A model may have spare rows; ids without a row are refused."""
    rows, tokens = traits.embedded, traits.tokens
    row: dict[str, Any] = {"check": "tokenizer = model", "expected": f"at most {rows} ids (rows of the embedding)"}
    if tokens > rows:
        return Check(
            **row,
            severity="warning",
            seen=f"{tokens} ids",
            means="Some special tokens have no embedding; they are never fed",
            do="Use the tokenizer that came with the model",
        )
    if tokens < rows // 2:
        return Check(
            **row,
            severity="warning",
            seen=f"{tokens} ids: most rows are never used",
            means="The tokenizer may belong to another model: every text would be read as other words",
            do="Use the tokenizer that came with the model",
        )
    return Check(**row, seen=f"{tokens} ids")


def _check_device(options: ModelOptions) -> Check:
    seen = f"{options.dtype} on {options.device}"
    if options.quantize != "none":
        seen += f", {options.quantize} weights"
    if options.device == "mps":
        return Check(
            check="device and precision",
            severity="warning",
            expected="a device without known faults",
            seen=seen,
            means="MPS has known numerical faults in some torch versions",
            do="Compare a few pairs with --device cpu",
        )
    reduced = options.dtype in ("float16", "bfloat16") or options.quantize != "none"
    return Check(
        check="device and precision",
        severity="note" if reduced else "ok",
        expected="float32 or better",
        seen=f"{seen}; --fidelity N shows what that changes" if reduced else seen,
    )
