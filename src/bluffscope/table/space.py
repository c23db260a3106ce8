"""Whether a run's files will fit on its disk, asked before hours of work go into them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bluffscope.errors import InputError
from bluffscope.table.schema import Column

NUMBER_BYTES: Final = 8
"""Of a metric in a compressed table: float64 is hardly compressible."""
WORD_BYTES: Final = 2
"""Of a short text in a compressed table."""
TEXT_BYTES: Final = 200
"""Of the three texts of a pair."""
FEATURE_BYTES: Final = 8
"""Of an active feature: its index and its activation; the rest of its row compresses to nearly nothing."""
USUAL_L0: Final = 100
"""Active features of a read where the SAE's published figure is not known."""
NUMBER_OF_A_RESIDUAL: Final = 4
"""Bytes of each of its numbers, which do not compress."""
COPIES: Final = 2
"""Shards go only when the tables that were made of them are checked."""


def bytes_a_pair(
    columns: Sequence[Column],
    saes: Mapping[int, Mapping[str, Any]],
    *,
    reads: float,
    width: int = 0,
    further: float = 0.0,
) -> int:
    """What a pair is expected to take in one table of each kind.

    Args:
        columns: of the result table.
        saes: the identity of each layer's SAE.
        reads: tokens read in a view: each can have features of its own.
        width: numbers of the residuals of one read at all layers, where they are kept.
        further: tokens read of a text at further positions, of which residuals are kept.
    """
    numbers = sum(column.kind in ("float", "int") for column in columns)
    size = TEXT_BYTES + NUMBER_BYTES * numbers + WORD_BYTES * (len(columns) - numbers)
    for sae in saes.values():
        size += 3 * reads * FEATURE_BYTES * float(sae.get("published_l0") or USUAL_L0)
    return int(size + 3 * (reads + further) * NUMBER_OF_A_RESIDUAL * width)


def check_space(folder: Path, pairs: int, a_pair: float, held: int = 0) -> None:
    """Refuses a run whose files will not fit.

    Args:
        folder: where they go, or will go.
        pairs: of the run.
        a_pair: bytes that a pair takes in the shards, and once more in the tables.
        held: bytes of shards that are there already.

    Raises:
        InputError: Less is free than will be needed.
    """
    free, needed = free_bytes(folder), int(COPIES * pairs * a_pair) - held
    if free is not None and free < needed:
        raise InputError(
            f"{folder}: {pairs:,} pairs need about {amount(needed)} of disk ({amount(a_pair)} per pair, in shards and "
            f"again in tables), and {amount(free)} are free: free space, or choose another disk with --out"
        )


def free_bytes(folder: Path) -> int | None:
    """Bytes that are free where a folder is, or will be; None on file systems of the kernel's own, which have no size.

    Args:
        folder: need not be there.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    disk = shutil.disk_usage(there)
    return disk.free if disk.total else None


def amount(count: float) -> str:
    """Bytes for people: "1.2 GB", of 10^9."""
    """Bytes for people: "1.2 GB", of 10^9."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"
