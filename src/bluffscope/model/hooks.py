"""Hook points in TransformerLens names, and the Hugging Face modules that hold them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import torch
from torch import nn

from bluffscope.errors import InputError

Point = Literal["hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out", "attn.hook_z"]
_NAME = re.compile(r"blocks\.(\d+)\.(hook_resid_pre|hook_resid_post|hook_mlp_out|hook_attn_out|attn\.hook_z)")

RESIDUAL: Final = ("hook_resid_pre", "hook_resid_post")
"""Points that every block has; the others are what a sublayer adds or projects, found by `model.sublayers`."""
HOOK_Z: Final = "attn.hook_z"
"""What the attention heads give, one after the other, before the output projection: no part of the residual stream."""


@dataclass(frozen=True)
class HookPoint:
    """One place in the network: block and point."""

    block: int
    point: Point
    centred: bool = False
    """Whether the mean over d_model is taken off what is read: as if every weight that writes to the residual stream
    had been centred, which changes nothing else in a model with LayerNorm (TransformerLens's
    `center_writing_weights`)."""
    part: str = ""
    """Path in the block of the module that returns a sublayer's part, or of the attention's output projection; ""
    until `sublayers.placed` has found it."""
    scale: float = 1.0
    """What its output is multiplied by before it is added to the residual stream."""
    width: int = 0
    """Dimensions of what is read, where they are not those of the residual stream."""

    @classmethod
    def parse(cls, name: str, *, centred: bool = False) -> HookPoint:
        """Read a TransformerLens name.

        Args:
            name: such as "blocks.5.hook_resid_post".
            centred: the field of this name.

        Raises:
            InputError: a hook point that is not read (a transcoder's, an embedding's).
        """
        match = _NAME.fullmatch(name)
        if not match:
            raise InputError(
                f"SAE reads hook point {name!r}; this tool reads blocks.K.hook_resid_post, hook_resid_pre, "
                "hook_mlp_out, hook_attn_out and attn.hook_z: choose a residual-stream SAE"
            )
        return cls(int(match[1]), match[2]).centred_where(centred)  # pyright: ignore[reportArgumentType]

    def centred_where(self, centred: bool) -> HookPoint:
        """The point in a model whose writing weights were centred, or were not; the heads' outputs stay the same."""
        return replace(self, centred=centred and self.point != HOOK_Z)

    def attach(
        self, blocks: nn.ModuleList, receive: Callable[[torch.Tensor], None]
    ) -> torch.utils.hooks.RemovableHandle:
        """Have `receive` called with this point's (row, token, d_model) activations at each forward."""
        block = blocks[self.block]

        def hand(activations: torch.Tensor) -> None:
            if self.scale != 1:
                activations = activations * self.scale
            receive(activations - activations.mean(dim=-1, keepdim=True) if self.centred else activations)

        if self._is_input:
            return self._module(block).register_forward_pre_hook(
                lambda _module, args, kwargs: hand(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
        return self._module(block).register_forward_hook(lambda _module, _args, output: hand(_tensor(output)))

    def alter(
        self, blocks: nn.ModuleList, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.utils.hooks.RemovableHandle:
        """Have this point's (row, token, d_model) activations replaced by what `change` makes of them."""
        block = blocks[self.block]
        if self._is_input:

            def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
                if args:
                    return (change(args[0]), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

            return self._module(block).register_forward_pre_hook(before, with_kwargs=True)

        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            changed = change(_tensor(output) * self.scale) / self.scale if self.scale != 1 else change(_tensor(output))
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        return self._module(block).register_forward_hook(after)

    @property
    def _is_input(self) -> bool:
        """Whether it is what its module is given, not what it returns."""
        return self.point in ("hook_resid_pre", HOOK_Z)

    def _module(self, block: nn.Module) -> nn.Module:
        if self.point not in RESIDUAL and not self.part:
            raise ValueError(f"{self.point} of block {self.block}: expected a point from model.sublayers.placed")
        return block.get_submodule(self.part)


def ignores_mean(network: nn.Module) -> bool:
    """Whether every norm of the model is a LayerNorm, which takes the mean off whatever it is given.

    Where it is so, the mean of the residual stream carries nothing, and weights may be centred that write to it.
    """
    norms = [module for module in network.modules() if type(module).__name__.endswith("Norm")]
    return bool(norms) and all(isinstance(norm, nn.LayerNorm) for norm in norms)


def final_norm(body: nn.Module) -> nn.Module | None:
    """The norm behind the last block of a model without its LM head, under one of the names that families give it."""
    named = (getattr(body, name, None) for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"))
    return next((module for module in named if isinstance(module, nn.Module)), None)


def find_blocks(model: nn.Module, count: int) -> nn.ModuleList:
    """The list of the model's transformer blocks: the outermost ModuleList of that length.

    Raises:
        InputError: there is none.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise InputError(f"{type(model).__name__} has no list of {count} blocks; this model family is not supported")
    return min(lists, key=lambda item: item[0].count("."))[1]


def _tensor(output: Any) -> torch.Tensor:
    """A block's output: a tensor, or a tuple that starts with it (it differs between versions and families)."""
    return output if isinstance(output, torch.Tensor) else output[0]
