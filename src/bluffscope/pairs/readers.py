"""Files to records, one reader a format.

JSONL, CSV and Parquet stream; of a JSON list the text is held while it is read. Whatever bytes a file holds, a
reader yields records or raises one `InputError`, and holds no more than its limits allow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.host.parquet_limits import LargeParquetError, rows_at_once
from bluffscope.pairs.delimited import read_csv, read_tsv
from bluffscope.pairs.record import (
    INDEX_LEFT_OUT,
    Record,
    Tell,
    check_names,
    first_repeated,
    listed,
    quoted,
    shown,
)
from bluffscope.pairs.text_files import BOM, MAX_LINE_BYTES, bare, open_bytes, text_lines, whole_text

PARQUET_ROWS: Final = 512
"""Rows of a Parquet file that are held at a time; fewer where they may be long."""
PARQUET_BUFFER_BYTES: Final = 64 * 1024
_INDEX: Final = re.compile(r"__index_level_\d+__")
"""A pandas index without a name, in Parquet."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")
MOST_OBJECT: Final = 50 * 1000**2
"""Characters of a JSON object around a list, which is parsed as a whole."""


def format_of(path: PurePath) -> str | None:
    """The suffix by which a file's reader is found in `READERS`, or None where nothing reads it."""
    suffix = bare(path).suffix.lower()
    known = suffix in READERS and (suffix != _PARQUET or path.suffix.lower() == _PARQUET)
    return suffix if known else None


def stem(path: PurePath) -> str:
    """A file's name without its suffixes."""
    return bare(path).stem


def suffixes() -> str:
    """What a file's name may end with, for messages."""
    *others, last = READERS
    return f"{', '.join(others)} or {last}"


def read_records(path: Path, tell: Tell) -> Iterator[Record]:
    """The records of one file, in order.

    Args:
        path: a file with a `format_of`.
        tell: told what the reader left out or had to find out.

    Raises:
        InputError: The file cannot be read, is not what its suffix says, or holds no record.
    """
    reader = READERS[bare(path).suffix.lower()]
    empty = True
    with _read_errors(path):
        if not path.stat().st_size:
            raise InputError(f"{shown(path)}: the file is empty; give a file with at least one pair")
        for record in reader(path, tell):
            empty = False
            yield record
    if empty:
        raise InputError(f"{shown(path)}: the file holds no pairs; give a file with at least one pair")


@contextmanager
def _read_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{shown(path)}: cannot be read ({reason}); check the path and its permissions") from error
    except MemoryError as error:
        raise InputError(f"{shown(path)}: needs more memory than is available; give it as JSONL") from error


def _read_json(path: Path, tell: Tell) -> Iterator[Record]:
    name = shown(path)
    if _has_lines(path):
        yield from _read_jsonl(path, tell)
        return
    text = whole_text(path)
    items = _items(text, name) if text.lstrip().startswith("[") else _list_inside(text, name, tell)
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(f"{name}: item {number}: expected an object with a pair's fields, got {_json_type(item)}")
        yield Record(name, "item", number, cast("dict[str, Any]", item), textual=False)


def _has_lines(path: Path) -> bool:
    """Whether a .json file has an object on its first line and something on a later one."""
    with open_bytes(path) as file:
        first = file.readline(MAX_LINE_BYTES + 1)
        while first.strip() == b"" and first:
            first = file.readline(MAX_LINE_BYTES + 1)
        if not first.removeprefix(BOM.encode()).lstrip().startswith(b"{"):
            return False
        try:
            json.loads(first.removeprefix(BOM.encode()))
        except (ValueError, RecursionError):
            return False
        while line := file.readline(MAX_LINE_BYTES):
            if line.strip():
                return True
    return False


def _list_inside(text: str, name: str, tell: Tell) -> list[object]:
    """The one list of objects that a JSON object holds, as SQuAD's files do."""
    if len(text) > MOST_OBJECT:
        raise InputError(f"{name}: an object of {len(text):,} characters; save the list in it as the whole file")
    whole = _parse_json(text, name)
    values = cast("dict[str, object]", whole) if isinstance(whole, dict) else {}
    lists = {key: cast("list[object]", value) for key, value in values.items() if isinstance(value, list)}
    found = [key for key, items in lists.items() if items and all(isinstance(item, dict) for item in items)]
    if len(found) == 1:
        tell(f"{name}: read the objects under {quoted(found[0])}")
        return lists[found[0]]
    hint = "; put it in [ ], or name a file of one object a line .jsonl" if isinstance(whole, dict) else ""
    hint = f"; save the list under one of {listed(found)} as the whole file" if found else hint
    raise InputError(f"{name}: expected a list of objects, got {_json_type(whole)}{hint}")


def _items(text: str, name: str) -> Iterator[object]:
    """The items of a JSON list, each parsed when it is asked for: parsed, they take several times their text."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
    place = _past_space(text, text.index("[") + 1)
    ended = text.startswith("]", place)
    while not ended:
        with _json_errors(name, None):
            item, place = decoder.raw_decode(text, place)
            place = _past_space(text, place)
            ended = text.startswith("]", place)
            if not ended and not text.startswith(",", place):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
        yield item
        place = place if ended else _past_space(text, place + 1)
    if (place := _past_space(text, place + 1)) < len(text):
        with _json_errors(name, None):
            raise json.JSONDecodeError("Extra data", text, place)


def _past_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _read_jsonl(path: Path, _: Tell) -> Iterator[Record]:
    name = shown(path)
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        item = _parse_json(line, name, line=number)
        if not isinstance(item, dict):
            hint = "; if the file is one JSON list, name it .json" if isinstance(item, list) else ""
            raise InputError(f"{name}: line {number}: expected one JSON object, got {_json_type(item)}{hint}")
        yield Record(name, "line", number, cast("dict[str, Any]", item), textual=False)


def _parse_json(text: str, name: str, line: int | None = None) -> object:
    """The value of a JSON text; `line` is where it stands if it is one line of a file."""
    with _json_errors(name, line):
        return json.loads(text, object_pairs_hook=_unique_keys)


@contextmanager
def _json_errors(name: str, line: int | None) -> Generator[None]:
    place = name if line is None else f"{name}: line {line}"
    try:
        yield
    except json.JSONDecodeError as error:
        hint = "; is this one object a line? then name it .jsonl" if line is None and "Extra" in error.msg else ""
        raise InputError(
            f"{name}: line {line or error.lineno}, column {error.colno}: invalid JSON: {error.msg}{hint}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{place}: the JSON is nested too deeply; give flat objects") from error
    except _RepeatedKeyError as error:
        raise InputError(f"{place}: an object has the field {error} twice; keep one of them") from error
    except ValueError as error:  # int() refuses thousands of digits
        raise InputError(f"{place}: a number has too many digits; give it as text") from error


class _RepeatedKeyError(Exception):
    """A JSON object names a field twice; the last would silently win."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) != len(pairs):
        raise _RepeatedKeyError(quoted(first_repeated([key for key, _ in pairs])))
    return item


def _json_type(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return json.dumps(value)[:40]  # null, true, false or a number


def _read_parquet(path: Path, tell: Tell) -> Iterator[Record]:
    # pyarrow and not polars: it turns corrupt bytes into exceptions, where polars aborts the whole process, and
    # its memory stays flat inside a row group, of which polars decodes the whole. Imported here: it costs 0.4 s.
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = shown(path)
    number = 0
    try:
        with pq.ParquetFile(str(path), pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES) as file:
            names = list(file.schema_arrow.names)
            indices = [column for column in names if _INDEX.fullmatch(column)]
            check_names([column for column in names if column not in indices], name)
            if indices:
                tell(f"{name}: {INDEX_LEFT_OUT}")
            rows = rows_at_once(path, file.metadata, PARQUET_ROWS)
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                for fields in batch.to_pylist():
                    for column in indices:
                        del fields[column]
                    yield Record(name, "row", number, fields, textual=False)
                    number += 1
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: near row {number}: not UTF-8 text; write the file's texts as UTF-8") from error
    except InputError:
        raise
    except LargeParquetError as error:
        raise InputError(f"{name}: {error}") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = quoted(str(error).partition("\n")[0], 100)
        raise InputError(
            f"{name}: near row {number}: cannot be read as Parquet ({reason}); write the file again"
        ) from error


_PARQUET: Final = ".parquet"
READERS: Final[dict[str, Callable[[Path, Tell], Iterator[Record]]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    _PARQUET: _read_parquet,
}
"""The reader of each file suffix; all but Parquet's also read what is compressed."""
