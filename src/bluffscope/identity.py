"""Fingerprints of weights: which numbers a result was computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SAMPLED = 1 << 16
"""Most elements of one tensor that enter its fingerprint."""


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """BLAKE2b over names, shapes, dtypes and evenly spaced elements of the tensors, 32 hex digits.

    Large tensors are sampled, so that a model of many gigabytes is fingerprinted in a moment; any
    retrained, quantised, reordered or truncated set of weights gives another digest.
    """
    import torch  # seconds-slow; callers hold torch tensors, so it is loaded already

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(_plain(tensors), key=lambda item: item[0]):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLED)].cpu().contiguous()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterable[tuple[str, torch.Tensor]]:
    """The tensors, with those of several parts (quantised weights: integers, scales, offsets) taken apart."""
    for name, tensor in tensors:
        if flatten := getattr(tensor, "__tensor_flatten__", None):
            parts, _ = flatten()
            yield from _plain((f"{name}.{part}", getattr(tensor, part)) for part in parts)
        else:
            yield name, tensor
