"""Numbers depend on the options alone: float64 throughout if requested, and no global setting of the caller.

Models step down to float32 inside (softmax of eager attention, RMS norms, rotary angles), for half-precision weights'
sake. In a float64 run that would round every layer's output to float32, and two exact ways of computing the same
numbers would differ by 1e-7. And torch and numpy read settings that any other code of the process may have changed:
an autocast alone moves columns by 2. A definition rather than a computation, so the engine and the reference share it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

_DEVICES: Final = ("cpu", "cuda", "mps", "xpu")
_BACKENDS: Final = {
    "cudnn.enabled": True,
    "cudnn.benchmark": False,
    "cudnn.deterministic": False,
    "cuda.matmul.allow_fp16_reduced_precision_reduction": True,
    "cuda.matmul.allow_bf16_reduced_precision_reduction": True,
    "cuda.matmul.allow_fp16_accumulation": False,
    "mkldnn.enabled": True,
    "mkldnn.deterministic": False,
    # From the outside in: where one says "none", the one before it decides.
    "fp32_precision": "none",
    "mkldnn.fp32_precision": "none",
    "mkldnn.matmul.fp32_precision": "none",
    "mkldnn.conv.fp32_precision": "none",
    "mkldnn.rnn.fp32_precision": "none",
    "cudnn.fp32_precision": "none",
    "cuda.matmul.fp32_precision": "none",
    "cudnn.conv.fp32_precision": "tf32",
    "cudnn.rnn.fp32_precision": "tf32",
}
"""Of `torch.backends`, as torch starts with them; not every version has all."""
_SDPA: Final = ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")


class _Setting(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], Any]
    plain: Any


@contextmanager
def own_settings() -> Generator[None, None, None]:
    """Within the block, torch and numpy compute as in a fresh process; afterwards the caller's settings are restored.

    What is left alone has no effect on a number: grad and inference modes, anomaly detection, the global generators
    (none is used), polars' configuration. The number of threads stays the caller's.
    """
    with ExitStack() as stack:
        for get, set_, plain in _settings():
            if (before := get()) != plain:
                stack.callback(set_, before)
                set_(plain)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


@cache
def _settings() -> tuple[_Setting, ...]:
    return tuple(_listed())


def _listed() -> Iterator[_Setting]:
    yield _Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
    yield _Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0)
    yield _Setting(_flushes_denormals, torch.set_flush_denormal, False)
    for device in _DEVICES:
        yield _Setting(partial(torch.is_autocast_enabled, device), partial(torch.set_autocast_enabled, device), False)
    for kernel in _SDPA:
        cuda = torch.backends.cuda
        yield _Setting(getattr(cuda, f"{kernel}_enabled"), getattr(cuda, f"enable_{kernel}"), True)
    for name, plain in _BACKENDS.items():
        path, _, last = name.rpartition(".")
        owner = attrgetter(path)(torch.backends) if path else torch.backends
        if hasattr(owner, last):
            yield _Setting(partial(getattr, owner, last), partial(setattr, owner, last), plain)
    if not hasattr(torch.backends, "fp32_precision"):  # torch 2.8
        yield _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")


def _flushes_denormals() -> bool:
    """Whether this thread takes the smallest numbers for 0; torch has no question for it."""
    return bool(torch.full((1,), 1e-38, dtype=torch.float32, device="cpu").mul_(1e-3) == 0)


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


@contextmanager
def computing_in(dtype: torch.dtype) -> Generator[None, None, None]:
    """Within the block, a model of this dtype computes in it, whatever the caller has set.

    Float64 models never round to float32; others do as they please.
    """
    with ExitStack() as stack:
        stack.enter_context(own_settings())
        if dtype is torch.float64:
            stack.enter_context(_StayInFloat64())
        yield
