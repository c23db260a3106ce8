"""The noise of the stability analysis: a function of what it perturbs, never of when or where.

A definition rather than a computation, so the engine and the reference implementation share it.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Final

import numpy as np

from bluffscope.records import View


def unit_noise(seed: int, pair_id: str, view: View, layer: int, draw: int, *, tokens: int, d_model: int) -> np.ndarray:
    """Standard normal noise of one draw, shape (tokens, d_model), float64.

    It depends on (seed, pair id, view, layer, draw) only: never on batch, order, worker or resume.
    A labelled text that is named after a side of a pair, ``7/fact`` or ``7/hall``, has that side's
    noise: measured as texts of their own, the sides of a pair have the metrics that they have there.
    The generator is Philox, keyed with the BLAKE2b hash of those five. Where a view is read at
    several tokens, their rows are drawn in text order.
    """
    of, _, side = pair_id.rpartition("/")
    if view == "text" and of and side in ("fact", "hall"):
        pair_id, view = of, side
    name = f"{seed}\x1f{pair_id}\x1f{view}\x1f{layer}\x1f{draw}".encode()
    digest = hashlib.blake2b(name, digest_size=16).digest()
    bits = _philox()
    # One that was just made with this key; making it takes as long as drawing a thousand numbers.
    fresh: Any = _FRESH | {"state": {"counter": _START, "key": np.frombuffer(digest, dtype=np.uint64)}}
    bits.state = fresh
    return np.random.Generator(bits).standard_normal((tokens, d_model))


_START: Final = np.zeros(4, np.uint64)
_FRESH: Final = {"bit_generator": "Philox", "buffer": _START, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}
_of_thread = threading.local()


def _philox() -> np.random.Philox:
    """This thread's bit generator."""
    if not hasattr(_of_thread, "bits"):
        _of_thread.bits = np.random.Philox()
    return _of_thread.bits
