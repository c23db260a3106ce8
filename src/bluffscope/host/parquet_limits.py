"""What a Parquet file takes in memory, seen before it is unpacked: a few bytes can stand for any amount.

Pages are compressed, a text that repeats is stored once, and a list of millions of equal numbers takes no space at all.
The footer may say anything, so the header of every page is read, as the reader itself will read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MOST_BYTES: Final = 64 * 1024**2
"""Of the rows that are unpacked at a time."""
MOST_HELD: Final = 128 * 1024**2
"""Of the pages and lists of a row group, which are unpacked whole, where the file is small."""
MOST_WHOLE: Final = 256 * 1024**2
"""Of a table that is read whole, where the file is small."""
TIMES: Final = 32
"""Times its size that a larger file may take."""
MOST_ROWS: Final = 250_000
"""Of a small file; a larger one may have a row for every 4 bytes."""
_OBJECT: Final = 64
"""Of a value as Python has it."""
_WIDTHS: Final = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "BYTE_ARRAY": 16}
_DICTIONARY_PAGE: Final = 2
_ABOUT: Final = {0: (5, 2), _DICTIONARY_PAGE: (7, 2), 3: (8, 4)}
"""Where the header of each kind of page tells its values (the field, then 1) and encoding (the field, then this)."""
_BY_DICTIONARY: Final = (2, 8)
_BY_PREFIX: Final = 7
"""Codes of encodings: a value stands in the dictionary, or shares its beginning with the one before."""
_SHORT: Final = 64 * 1024
"""Bytes of a dictionary below which its longest text may as well be that long."""
_MOST_HEADER: Final = 16 * 1024**2
_DAMAGED: Final = "the header of a page is damaged"


class LargeParquetError(ValueError):
    """A file unpacks to more than its size justifies."""


class _Chunk(NamedTuple):
    """What the values of one column in one row group take at most."""

    pages: int
    """Bytes of the dictionary and the largest page, which are unpacked whole."""
    lists: int
    """Bytes of all its values, as Python has them, where a single row may hold them all."""
    row: float
    """Bytes a row, as Python has them."""
    whole: int
    """Bytes of all values in a table, texts of the dictionary left out."""
    repeated: int
    """Bytes of the dictionary's texts, each as often as it stands in the table."""


class _Page(NamedTuple):
    kind: int
    values: int
    encoding: int
    unpacked: int
    packed: int
    start: int
    """Where its content begins in the file."""


def rows_at_once(path: Path, metadata: pq.FileMetaData, most: int) -> int:
    """Rows of a file that may be unpacked together.

    Args:
        path: the file.
        metadata: its footer.
        most: rows where nothing speaks against it.

    Raises:
        LargeParquetError: it unpacks to too much however few are taken, or has more rows than fit its size.
        ValueError: the header of a page is damaged.
    """
    size = path.stat().st_size
    allowed = max(MOST_HELD, TIMES * size)
    count = max(metadata.num_rows, sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
    if count > max(MOST_ROWS, size // 4):
        raise LargeParquetError(f"{count:,} rows in {size:,} bytes are too many; give the pairs as JSONL")
    rows = most
    for group in _row_groups(path, metadata):
        if (held := sum(chunk.pages + chunk.lists for chunk in group)) > allowed:
            raise _too_large(size, held)
        rows = min(rows, max(1, int(MOST_BYTES / max(1.0, sum(chunk.row for chunk in group)))))
    return rows


def check_whole(
    path: Path, metadata: pq.FileMetaData, *, repeated: bool = True, columns: Collection[str] | None = None
) -> None:
    """Refuse a table that would take too much memory if it was read whole.

    Args:
        path: the file.
        metadata: its footer.
        repeated: whether a text that repeats takes its bytes each time (Arrow), or is stored once (polars).
        columns: those that will be read; None for all.

    Raises:
        LargeParquetError: it would.
        ValueError: the header of a page is damaged.
    """
    size = path.stat().st_size
    needed = 0
    for group in _row_groups(path, metadata, columns):
        needed += sum(chunk.whole + repeated * chunk.repeated for chunk in group)
        if (most := needed + sum(chunk.pages for chunk in group)) > max(MOST_WHOLE, TIMES * size):
            raise _too_large(size, most)


def _too_large(size: int, needed: int) -> LargeParquetError:
    return LargeParquetError(
        f"its {size:,} bytes can unpack to {needed / 1e9:.1f} GB or more; write it again in smaller row groups, "
        "without columns that are not needed"
    )


def _row_groups(
    path: Path, metadata: pq.FileMetaData, columns: Collection[str] | None = None
) -> Iterator[list[_Chunk]]:
    schema = metadata.schema
    places = range(metadata.num_columns)
    if columns is not None:  # a nested column's path starts with its name
        places = [place for place in places if schema.column(place).path.split(".")[0] in columns]
    with path.open("rb") as file:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            yield [_chunk(file, group.column(place), schema.column(place), group.num_rows) for place in places]


def _chunk(file: BinaryIO, column: Any, schema: Any, rows: int) -> _Chunk:
    text = column.physical_type == "BYTE_ARRAY"
    width = schema.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(column.physical_type, 8)
    dictionary = longest = largest = values = whole = repeated = 0
    each = 0.0
    for page in _pages(file, column):
        if page.kind == _DICTIONARY_PAGE:
            dictionary += page.unpacked
            longest = max(longest, _longest(file, page, column.compression) if text else 0)
            continue
        plain = 0.0
        if text and page.encoding in _BY_DICTIONARY:
            repeated += page.values * longest
        elif text:
            plain = page.unpacked if page.encoding == _BY_PREFIX else page.unpacked / max(1, page.values)
        largest, each = max(largest, page.unpacked), max(each, plain)
        values += page.values
        whole += int(page.values * (width + plain))
    if not schema.max_repetition_level:
        return _Chunk(dictionary + largest, 0, _OBJECT + width + max(each, longest), whole, repeated)
    lists = whole + repeated + values * _OBJECT
    return _Chunk(dictionary + largest, lists, lists / max(1, rows), whole + 8 * values, repeated)


def _pages(file: BinaryIO, column: Any) -> Iterator[_Page]:
    """The pages of a column's part of a row group, until they hold as many values as the footer says."""
    place = column.data_page_offset
    if column.dictionary_page_offset is not None and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    seen = 0
    while seen < column.num_values:
        header, place = _header(file, place)
        kind, unpacked, packed = header[1], header[2], header[3]
        if min(unpacked, packed) < 0:
            raise ValueError(_DAMAGED)
        if kind in _ABOUT:  # readers skip all others
            field, encoding = _ABOUT[kind]
            about = header.get(field)
            if not isinstance(about, dict) or about.get(1, -1) < 0:
                raise ValueError(_DAMAGED)
            yield _Page(kind, about[1], about.get(encoding, 0), unpacked, packed, place)
            seen += about[1] if kind != _DICTIONARY_PAGE else 0
        place += packed


def _longest(file: BinaryIO, page: _Page, compression: str) -> int:
    """Bytes of the longest text of a dictionary, or a number that is not below."""
    if page.unpacked <= _SHORT or page.unpacked > MOST_HELD:
        return page.unpacked
    import pyarrow as pa  # not needed for short dictionaries

    file.seek(page.start)
    content = file.read(page.packed)
    if compression != "UNCOMPRESSED":
        name = {"LZ4": "lz4_raw"}.get(compression, compression.lower())
        content = pa.Codec(name).decompress(content, page.unpacked, asbytes=True)
    place = longest = 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "little")
        longest, place = max(longest, length), place + 4 + length
    return min(longest, page.unpacked)


def _header(file: BinaryIO, place: int) -> tuple[dict[int, Any], int]:
    """A page's header, by the numbers of its fields, and where the page begins: Thrift's compact protocol."""
    length = 128
    while place >= 0 and length <= _MOST_HEADER:
        file.seek(place)
        data = file.read(length)
        try:
            found, end = _struct(data, 0)
            if all(isinstance(found.get(name), int) for name in (1, 2, 3)):
                return found, place + end
            break
        except IndexError:  # statistics can be long
            if len(data) < length:
                break
            length *= 16
        except RecursionError:
            break
    raise ValueError(_DAMAGED)


def _struct(data: bytes, place: int) -> tuple[dict[int, Any], int]:
    """Its 32-bit numbers and structs, all else skipped: fields of another type than the format's do not count."""
    fields: dict[int, Any] = {}
    name = 0
    while kind := data[place] & 15:
        step, place = data[place] >> 4, place + 1
        if step:
            name += step
        else:
            name, place = _number(data, place)
        if kind == 12:
            fields[name], place = _struct(data, place)
        elif kind == 5:
            fields[name], place = _number(data, place)
        elif kind in (4, 6):
            _, place = _varint(data, place)
        elif kind in (1, 2, 3, 7):
            place += {3: 1, 7: 8}.get(kind, 0)
        elif kind == 8:
            length, place = _varint(data, place)
            place += length
        else:
            raise ValueError(_DAMAGED)
    return fields, place + 1


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not data[place - 1] & 0x80:
            break
    return value, place


def _number(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


__all__ = ["LargeParquetError", "check_whole", "rows_at_once"]
