"""How many rows of a Parquet file may be unpacked at a time: a small file can stand for more than any memory holds.

A text that repeats is stored once, in a dictionary, and pages are compressed. So many rows are unpacked as stay within
bounds if each were the longest text that its column can hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MOST_BYTES: Final = 64 * 1024**2
"""Of one column's texts that are unpacked at a time."""
LARGE_COLUMN: Final = 256 * 1024**2
"""Of one column in one row group: below it nothing without a dictionary can be too much."""
FEW_ROWS: Final = 16
"""Rows at a time beyond `LARGE_COLUMN`."""
_I32: Final = 5
"""Code of the type in Thrift's compact protocol."""


def rows_at_once(path: Path, metadata: pq.FileMetaData, most: int) -> int:
    """Rows to be read together, from the file's metadata and the headers of its dictionary pages.

    Args:
        path: the file.
        metadata: its footer.
        most: rows where nothing speaks against it.
    """
    rows = most
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                if column.physical_type not in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
                    continue
                if column.total_uncompressed_size > LARGE_COLUMN:
                    rows = min(rows, FEW_ROWS)
                if column.dictionary_page_offset is not None:
                    size = _unpacked_size(file, column.dictionary_page_offset)
                    rows = min(rows, max(1, MOST_BYTES // max(1, size)))
    return rows


def _unpacked_size(file: BinaryIO, offset: int) -> int:
    """What a page says it unpacks to: the second field of its header; 0 for what is no header, which is found later."""
    if offset < 0:
        return 0
    file.seek(offset)
    head = file.read(24)
    place, value = 0, 0
    for field in (1, 2):  # type of page, then its unpacked size, both 32-bit numbers
        if place >= len(head) or head[place] != (1 << 4 | _I32):
            return 0
        place, value, shift = place + 1, 0, 0
        while place < len(head):
            value |= (head[place] & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if not head[place - 1] & 0x80:
                break
        del field
    return max(0, (value >> 1) ^ -(value & 1))
