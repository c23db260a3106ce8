"""Tensors that say they are on CUDA and are not: code for a GPU runs on any machine, and what leaves it is seen.

As on a GPU, an operation refuses tensors of both kinds (but for scalars), and nothing becomes an array before it is
copied to the CPU. What is computed is the CPU's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

GPU = torch.device("lazy", 0)
_COPY = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_INDEX = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default)


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnGpu:
        """Around a tensor of the CPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=GPU, requires_grad=False
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Outside of `PretendedGpu` nothing is computed."""
        raise AssertionError(f"{func} outside of the pretended GPU")


class PretendedGpu(TorchDispatchMode):
    """While it is active there is a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.brought_back: list[int] = []
        """Elements of everything that was copied to the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on what is held."""
        kwargs = dict(kwargs or {})
        flat = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        there = any(isinstance(value, OnGpu) for value in flat)
        asked = kwargs.get("device")
        if func not in _COPY and there:
            strays = [value for value in flat if not isinstance(value, OnGpu) and value.ndim > 0]
            assert not strays or func in _INDEX, f"{func} of tensors on both devices"
        if asked is not None:
            there, kwargs["device"] = torch.device(asked).type == GPU.type, torch.device("cpu")
            if func is _COPY[0] and isinstance(args[0], OnGpu) and not there:
                self.brought_back.append(args[0].numel())
        if func is torch.ops.aten._local_scalar_dense.default and there:
            self.brought_back.append(1)
        result = func(*_held(args), **_held(kwargs))
        if func is _COPY[0] and result is _held(args[0]):
            result = result.clone()
        in_place = func._schema.is_mutable and isinstance(args[0], torch.Tensor)
        if in_place:
            return args[0]
        return (
            tree_map(lambda value: OnGpu(value) if isinstance(value, torch.Tensor) else value, result)
            if there
            else result
        )


def _held(values: Any) -> Any:
    return tree_map(lambda value: value.held if isinstance(value, OnGpu) else value, values)
