"""Memory that is taken once and used again: named buffers, and a heap that is kept.

Large tensors are taken from the system and given back for each use otherwise, and the system clears every page
again: a few per cent of a float32 forward pass, and a tenth or more of a bfloat16 one.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# glibc's mallopt parameters (malloc.h) and the value that its own tuning ends at.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_DEFAULT_TRIM, _LARGEST_MMAP_THRESHOLD, _DEFAULT_MMAP_MAX = 1 << 27, 1 << 25, 1 << 16


@dataclass
class Buffers:
    """Named tensors that grow to the largest size asked for and are handed out again; for one thread."""

    kept: dict[tuple[str, torch.dtype, torch.device], torch.Tensor] = field(default_factory=dict)
    enabled: bool = True
    """False allocates every tensor again: for measuring what reuse gains."""

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised contiguous tensor; its content is lost when the same name is next taken."""
        import torch  # seconds-slow; callers hold tensors, so it is loaded already

        size = math.prod(shape)
        if not self.enabled:
            return torch.empty(shape, dtype=dtype, device=device)
        held = self.kept.get((name, dtype, device))
        if held is None or held.numel() < size:
            self.kept.pop((name, dtype, device), None)  # the old one goes before the new one comes
            held = torch.empty(size, dtype=dtype, device=device)
            self.kept[name, dtype, device] = held
        return held[:size].view(shape)

    def clear(self) -> None:
        """Let go of all of them (memory is short)."""
        self.kept.clear()


_users = 0
_lock = threading.Lock()


@contextmanager
def kept_heap() -> Generator[bool, None, None]:
    """Within the block, the process keeps and reuses memory that it frees (Linux with glibc; else nothing changes).

    Yields whether it does. On leaving, the allocator works as it does by default, and what is free goes back to the
    system. Blocks may be nested and may be entered by several threads.
    """
    global _users
    libc = _glibc()
    with _lock:
        if libc is not None and _users == 0:
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        _users += 1
    try:
        yield libc is not None
    finally:
        with _lock:
            _users -= 1
            if libc is not None and _users == 0:
                libc.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
                libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
                libc.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if its allocator has these settings."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
