"""The model and SAEs of a finished run, loaded again, and proof that they are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from bluffscope.config import RunConfig, run_config
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.host.weights_digest import weights_digest
from bluffscope.model import LanguageModel
from bluffscope.model.load import choose_device
from bluffscope.pipeline.build import load_parts
from bluffscope.pipeline.worker import Parts
from bluffscope.table.reader import Run

_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_SHOWN: Final = 3
_SAE_PARTS: Final = ("architecture", "hook_name", "d_in", "d_sae", "weights")


def config_of(run: Run) -> RunConfig:
    """The options of a run, as its folder has them.

    Raises:
        InputError: config.yaml is damaged.
    """
    return run_config(run.config, str(run.path / "config.yaml"))


@exclusive()
def load_whole(run: Run, layers: Iterable[int], device: str) -> tuple[Parts, RunConfig]:
    """A run's whole model with its LM head, and the SAEs of some of its layers.

    Args:
        run: a finished run.
        layers: those whose SAEs are needed.
        device: "auto" or a torch device; it need not be the run's.

    Raises:
        InputError: they cannot be loaded, or are no longer those of the run.
    """
    config = config_of(run)
    model = replace(config.model, device=choose_device(device).type, layers=tuple(layers))
    config = replace(config, model=model, measure=replace(config.measure, logprob="on"))
    parts = load_parts(config)
    refuse_others(run.manifest, parts, f"the run {run.path}", "they have changed since; run the analysis again")
    return parts, config


def refuse_others(identity: Mapping[str, Any], parts: Parts, whose: str, cure: str) -> None:
    """Refuse a model or SAEs that are not those of `identity`.

    Args:
        identity: `model` and `saes` (by layer, as text) as in a run's manifest.
        parts: what was loaded.
        whose: for the message.
        cure: what to do, likewise.

    Raises:
        InputError: saying what differs.
    """
    differences = list(_differences(identity, parts))
    if differences:
        more = "; and more" if len(differences) > _SHOWN else ""
        raise InputError(f"not the model and SAEs of {whose}: {'; '.join(differences[:_SHOWN])}{more}; {cure}")


def _differences(identity: Mapping[str, Any], parts: Parts) -> Iterable[str]:
    expected: Mapping[str, Any] = identity.get("model") or {}
    found = parts.model.identity
    for name in ("revision", "layers", "d_model"):
        if expected.get(name) is not None and found.get(name) is not None and expected[name] != found[name]:
            yield f"the model's {name} is {found[name]}, not {expected[name]}"
    digest = weights_as_loaded(parts.model, expected)
    if digest != expected.get("weights"):
        yield f"the model's weights (or their precision) have the hash {digest}, not {expected.get('weights')}"
    for layer, coder in parts.coders.items():
        known: Mapping[str, Any] = (identity.get("saes") or {}).get(str(layer)) or {}
        for name in _SAE_PARTS:
            if coder.identity.get(name) != known.get(name):
                what = "weights have the hash" if name == "weights" else f"{name} is"
                yield f"layer {layer}: the SAE's {what} {coder.identity.get(name)}, not {known.get(name)}"


def weights_as_loaded(model: LanguageModel, identity: Mapping[str, Any]) -> str:
    """The digest that the model has when it is loaded as `identity` was: as many blocks, with or without its head."""
    blocks = identity.get("layers_loaded")
    if identity.get("architecture") == model.identity["architecture"] or not isinstance(blocks, int):
        return str(model.identity["weights"])
    body: Any = model.network.base_model
    return weights_digest(
        (name, tensor)
        for name, tensor in body.state_dict().items()
        if (match := _LAYER.search(name)) is None or int(match[1]) < blocks
    )
