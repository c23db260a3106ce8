"""Single tensors of safetensors files as float32, read in blocks of rows: without torch, whatever float they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_FLOATS: Final[dict[str, Any]] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LONGEST_HEADER: Final = 100_000_000
"""As in safetensors itself."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    path: Path
    start: int
    """Of its first byte."""
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return np.dtype(_FLOATS[self.dtype]).itemsize * int(np.prod(self.shape))

    def rows(self, chosen: Any = slice(None)) -> np.ndarray:
        """(row, column), or (column,) of a vector: the rows chosen, as float32."""
        kind = np.dtype(_FLOATS[self.dtype])
        stored = np.memmap(self.path, kind, "r", self.start, self.shape)[chosen]
        if self.dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """The tensor by so many rows at a time, each with the place of its first row."""
        for first in range(0, self.shape[0], rows):
            yield first, self.rows(slice(first, first + rows))


def stored_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """The float tensors of some files, by name; their numbers are not read.

    Raises:
        ValueError: no safetensors file, or one whose tensors do not fit into it.
        OSError: a file cannot be read.
    """
    return {name: tensor for path in files for name, tensor in _in_file(path)}


def _in_file(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    for name, about in header.items():
        if name != "__metadata__" and about["dtype"] in _FLOATS:
            tensor = StoredTensor(path, 8 + length + about["data_offsets"][0], about["dtype"], tuple(about["shape"]))
            if tensor.start < 8 + length or tensor.start + tensor.bytes > size:
                raise ValueError(f"{path}: {name} does not fit into the file")
            yield name, tensor
