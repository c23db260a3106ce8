"""Gemma Scope's params.npz: five arrays, read without running anything and without filling the memory."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    import torch

MOST_UNPACKED = 100
"""Times its own size that an archive may unpack to."""
ARRAYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


def archive_arrays(path: Path) -> dict[str, torch.Tensor]:
    """The five arrays of a params.npz, as they are stored; pickled objects are refused."""
    import torch

    if path.stat().st_size and not zipfile.is_zipfile(path):
        raise zipfile.BadZipFile(f"{path.name} is not an npz archive")
    _check_sizes(path)
    arrays: dict[str, torch.Tensor] = {}
    with np.load(path, allow_pickle=False) as archive:
        if more := sorted(set(archive.files) - set(ARRAYS)):
            raise ValueError(f"{path.name} has an array {more[0]}, which is not applied here; save it with SAELens")
        for name in ARRAYS:
            if name not in archive:
                raise ValueError(f"{path.name} has no array {name}; expected {', '.join(ARRAYS)}")
            try:
                array = archive[name]
            except ValueError as error:
                if "allow_pickle" in str(error):
                    raise ValueError(f"{name} is a pickle, which can run code when opened and is refused") from error
                raise zipfile.BadZipFile(str(error)) from error
            if array.dtype.kind != "f" or array.ndim != (2 if name.startswith("W") else 1):
                raise ValueError(f"{name} is {array.ndim}-dimensional {array.dtype}; expected floating point numbers")
            arrays[name] = torch.from_numpy(array)
    return arrays


def matrix_shape(path: Path) -> tuple[int, int]:
    """d_in and d_sae of a params.npz, from the header of its W_enc; the array is not read."""
    with zipfile.ZipFile(path) as archive:
        shape, _ = _array_header(archive, "W_enc")
    if len(shape) != 2:
        raise ValueError(f"W_enc has shape {shape}; expected d_in x d_sae")
    return shape


def _array_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in an npz, from its header: the array is not read."""
    with archive.open(f"{name}.npy") as file:
        reader = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = reader(file)
    return shape, dtype


def _check_sizes(path: Path) -> None:
    """Refuse an archive that unpacks to what no weights do, from its directory and headers, before any is read.

    Weights hardly compress: what claims a hundred times its file's size would only fill the memory.
    """
    packed = path.stat().st_size
    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in set(ARRAYS) & {member.removesuffix(".npy") for member in archive.namelist()}:
            size = archive.getinfo(f"{name}.npy").file_size
            if size > MOST_UNPACKED * packed + (1 << 20):
                raise zipfile.BadZipFile(f"{name} would unpack to {size / 1e9:.1f} GB from {packed / 1e6:.1f} MB")
            shape, dtype = _array_header(archive, name)
            if dtype.hasobject or dtype.kind != "f" or len(shape) != (2 if name.startswith("W") else 1):
                continue  # said of the array itself
            if min(shape) < 0 or math.prod(shape) * dtype.itemsize > size:
                raise zipfile.BadZipFile(f"{name} claims shape {shape}, more than the archive holds")
            shapes[name] = shape
    if "W_enc" in shapes:
        d_in, d_sae = shapes["W_enc"]
        fitting = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        for name, shape in shapes.items():
            if shape != fitting.get(name, (d_sae,)):
                raise ValueError(f"{name} has shape {shape}, which does not go with W_enc's {d_in} x {d_sae}")
