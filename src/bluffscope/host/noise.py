"""The noise of the stability analysis: a function of what it perturbs, never of when or where.

A definition rather than a computation, so the engine and the reference implementation share it.
"""

from __future__ import annotations

import hashlib

import numpy as np

from bluffscope.records import View


def unit_noise(seed: int, pair_id: str, view: View, layer: int, draw: int, *, tokens: int, d_model: int) -> np.ndarray:
    """Standard normal noise of one draw, shape (tokens, d_model), float64.

    It depends on (seed, pair id, view, layer, draw) only: never on batch, order, worker or resume.
    The generator is Philox, keyed with the BLAKE2b hash of those five. Where a view is read at
    several tokens, their rows are drawn in text order.
    """
    name = f"{seed}\x1f{pair_id}\x1f{view}\x1f{layer}\x1f{draw}".encode()
    digest = hashlib.blake2b(name, digest_size=16).digest()
    key = np.frombuffer(digest, dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).standard_normal((tokens, d_model))
