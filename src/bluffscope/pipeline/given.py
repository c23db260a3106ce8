"""What a run is given from memory in place of a name: checked against its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bluffscope.config import ModelOptions, RunConfig
from bluffscope.errors import InputError
from bluffscope.model.given import GivenModel
from bluffscope.sae.find import IN_MEMORY


@dataclass(frozen=True)
class Given:
    """A model and SAEs that the caller holds; None for what is loaded by name."""

    model: GivenModel | None = None
    saes: Mapping[int, Any] | None = None
    """By layer: SAEs of SAELens, or folders."""

    def __bool__(self) -> bool:
        return self.model is not None or self.saes is not None

    def agreed(self, options: ModelOptions) -> ModelOptions:
        """The options with the model's own device and precision.

        Raises:
            InputError: they ask for others, or for what happens only while a model is loaded.
        """
        if (model := self.model) is None:
            return options
        device, dtype = model.device.type, str(model.dtype).removeprefix("torch.")
        for name, asked, own, how in (
            ("device", options.device, device, f"model.to({options.device!r})"),
            ("dtype", options.dtype, dtype, f"model.to(torch.{options.dtype})"),
        ):
            if asked not in ("auto", own):
                raise InputError(f"--{name} {asked}: the model in memory is {own}; convert it first: {how}")
        for name, asked, default in (("quantize", options.quantize, "none"), ("revision", options.revision, None)):
            if asked != default:
                raise InputError(f"--{name} {asked}: the model is in memory already; load it so, and leave this out")
        return replace(options, device=device, dtype=dtype)

    def check(self, config: RunConfig) -> None:
        """Refuse options that would load the model a second time, elsewhere.

        Raises:
            InputError: such an option.
        """
        if not self:
            return
        cure = "save them (save_pretrained, save_model) and give their folders"
        if config.engine.engine != "local":
            raise InputError(f"--engine {config.engine.engine}: a model or SAEs in memory stay in this process; {cure}")
        if config.output.fidelity:
            raise InputError(f"--fidelity: float32 is loaded by name, and model or SAEs are in memory; {cure}")


def named_and_given(model: Any, sae: Any, tokenizer: Any) -> tuple[dict[str, Any], Given]:
    """The options `model` and `sae`, as texts, of what may be names or objects; and the objects.

    Args:
        model: a name or folder, a model that `GivenModel.of` takes, or None.
        sae: a release or folder, SAEs by layer, or None.
        tokenizer: of a model in memory.

    Raises:
        InputError: neither of them.
    """
    named: dict[str, Any] = {}
    held, saes = None, None
    if isinstance(model, str | Path | None):
        named["model"] = model
        if tokenizer is not None:
            raise InputError("tokenizer: a model that is loaded by name brings its own; leave it out")
    else:
        held = GivenModel.of(model, tokenizer)
        named["model"] = held.name
    if isinstance(sae, str | Path | None):
        named["sae"] = sae
    elif isinstance(sae, Mapping) and sae and all(isinstance(layer, int) for layer in sae):
        named["sae"], saes = IN_MEMORY, sae
    else:
        raise InputError(f"sae: expected SAEs by layer, as {{5: SAE, 12: SAE}}, or a name; got {type(sae).__name__}")
    return {name: value for name, value in named.items() if value is not None}, Given(held, saes)
