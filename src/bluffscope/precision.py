"""What "float64" means: float64 throughout the forward pass.

Models step down to float32 inside (softmax of eager attention, RMS norms, rotary angles), for half-precision weights'
sake. In a float64 run that would round every layer's output to float32, and two exact ways of computing the same
numbers would differ by 1e-7. A definition rather than a computation, so the engine and the reference share it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _StayInFloat64(TorchFunctionMode):
    """Turns every request for float32 into one for float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return func(*args, **kwargs)


def computing_in(dtype: torch.dtype) -> AbstractContextManager[object]:
    """Inside, a model of this dtype computes in it: float64 models never round to float32; others as they please."""
    return _StayInFloat64() if dtype is torch.float64 else contextlib.nullcontext()
