"""Fingerprints of weights: which numbers a result was computed from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SAMPLED = 1 << 16
"""Most elements of one tensor that enter its fingerprint."""

HASHED_BYTES = 1 << 30
"""Most bytes of one model's or SAE's files that are read for their hashes: a second or two."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(path: Path) -> str:
    """Of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file.

    A file in the Hugging Face cache bears its hash as the name of its blob, as the hub gave it at the download; it is
    not read again. Other files are read, up to `HASHED_BYTES` together; of the rest the hash is None, and what
    identifies them is `weights_digest`.

    Args:
        files: by the name they are to have in the manifest.
    """
    left = HASHED_BYTES
    found: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        size = path.stat().st_size
        blob = path.resolve()
        sha256 = blob.name if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) else None
        if sha256 is None and size <= left:
            left -= size
            sha256 = sha256_of(path)
        found[name] = {"bytes": size, "sha256": sha256}
    return found


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """BLAKE2b over names, shapes, dtypes and evenly spaced elements of the tensors, 32 hex digits.

    Large tensors are sampled, so that a model of many gigabytes is fingerprinted in a moment; any
    retrained, quantised, reordered or truncated set of weights has another digest.
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
