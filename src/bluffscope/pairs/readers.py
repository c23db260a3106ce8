"""Files to records, one reader a format: a record is what the file holds, before any field is looked at.

JSONL, CSV and Parquet stream; of a JSON list the text is held while it is read. Whatever bytes a file holds, a
reader yields records or raises one `InputError`, and holds no more than the limits below allow.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.host.parquet_limits import LargeParquetError, rows_at_once

MAX_JSON_BYTES: Final = 200 * 1000**2
"""Of a JSON list, whose text is held: up to four times as much in memory."""
MAX_LINE_BYTES: Final = 16 * 1024**2
"""Of a line: longer than any model's context by far, and parsed it stays below half a GB."""
PARQUET_ROWS: Final = 512
"""Rows of a Parquet file that are held at a time; fewer where they may be long."""
PARQUET_BUFFER_BYTES: Final = 64 * 1024
_limit_raised: Final = Lock()
_SPACE: Final = re.compile(r"[ \t\n\r]*")
BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Record:
    """One item of a file, as the file has it."""

    file: str
    """The file, as messages name it."""
    unit: str
    """What `number` counts: line (from 1), item or row (from 0)."""
    number: int
    fields: Mapping[str, Any]
    textual: bool
    """True where the format knows text only (CSV), so that numbers have to be recognised."""

    @property
    def place(self) -> str:
        """The file and the line, item or row, for messages."""
        return f"{self.file}: {self.unit} {self.number}"


def shown(name: str | Path) -> str:
    """A file name that is safe in a one-line message."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def quoted(value: object, longest: int = 60) -> str:
    """A value in quotes, escaped to one line and cut to `longest` characters."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= longest else text[: longest - 3] + "...")


def read_records(path: Path) -> Iterator[Record]:
    """The records of one file, in order.

    Raises:
        InputError: The file cannot be read, is not what its suffix says, or holds no record.
    """
    reader = READERS[path.suffix.lower()]
    empty = True
    with _read_errors(path):
        if not path.stat().st_size:
            raise InputError(f"{shown(path)}: the file is empty; give a file with at least one pair")
        for record in reader(path):
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


def _read_json(path: Path) -> Iterator[Record]:
    name = shown(path)
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise InputError(
            f"{name}: {size / 1e6:.0f} MB is too large for a JSON list, which is read whole (at most "
            f"{MAX_JSON_BYTES / 1e6:.0f} MB); give it as JSONL, one object a line"
        )
    text = _whole_text(path)
    if not text.lstrip().startswith("["):
        items = _parse_json(text, name)
        raise InputError(f"{name}: expected a list of objects, got {_json_type(items)}{_list_hint(items)}")
    for number, item in enumerate(_items(text, name)):
        if not isinstance(item, dict):
            raise InputError(f"{name}: item {number}: expected an object with a pair's fields, got {_json_type(item)}")
        yield Record(name, "item", number, cast("dict[str, Any]", item), textual=False)


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


def _whole_text(path: Path) -> str:
    name = shown(path)
    data = path.read_bytes()
    if (zero := data.find(b"\0")) >= 0:
        raise _nul(name, data.count(b"\n", 0, zero) + 1)
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        raise _not_utf8(name, data.count(b"\n", 0, error.start) + 1, error.start) from error
    if not text.strip():
        raise InputError(f"{name}: the file is empty; give a list of objects")
    return text


def _list_hint(items: object) -> str:
    if not isinstance(items, dict):
        return ""
    values = cast("dict[str, object]", items)
    keys = [key for key, value in values.items() if isinstance(value, list)]
    if len(keys) == 1:
        return f"; save the list under {quoted(keys[0])} as the whole file"
    return "; put it in [ ], or name a file of one object a line .jsonl"


def _read_jsonl(path: Path) -> Iterator[Record]:
    name = shown(path)
    for number, line in enumerate(_text_lines(path), 1):
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
        raise _RepeatedKeyError(quoted(_first_repeated([key for key, _ in pairs])))
    return item


def _first_repeated(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _json_type(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return json.dumps(value)[:40]  # null, true, false or a number


def _text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, no byte-order mark, none longer than `MAX_LINE_BYTES`."""
    name = shown(path)
    offset = 0
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise InputError(
                    f"{name}: line {number}: longer than {MAX_LINE_BYTES // 1024**2} MiB; give one pair a line"
                )
            if b"\0" in raw:
                raise _nul(name, number)
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(name, number, offset + error.start) from error
            offset += len(raw)
            yield line.removeprefix(BOM) if number == 1 else line


def _not_utf8(name: str, line: int, offset: int) -> InputError:
    return InputError(f"{name}: line {line}, byte offset {offset}: not UTF-8 text; save the file as UTF-8")


def _nul(name: str, line: int) -> InputError:
    return InputError(f"{name}: line {line}: a NUL byte; save the file as UTF-8 text (it may be UTF-16 or binary)")


def _read_csv(path: Path) -> Iterator[Record]:
    name = shown(path)
    rows = csv.reader(_text_lines(path), strict=True)
    header = _next_row(rows, name)
    while header is not None and not header:
        header = _next_row(rows, name)
    if header is None:
        return
    _check_names(header, name, f"line {rows.line_num}: ")
    while True:
        line = rows.line_num + 1
        row = _next_row(rows, name)
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(
                f"{name}: line {line}: {len(row)} fields where the header has {len(header)}; "
                "put texts that hold a comma, a quote or a line break in double quotes"
            )
        yield Record(name, "line", line, dict(zip(header, row, strict=True)), textual=True)


def _next_row(rows: Any, name: str) -> list[str] | None:
    """The next row of a csv.reader, or None at the end."""
    line = rows.line_num + 1
    # The limit is the process's: it is raised for this row only. Its default would refuse long prompts.
    with _limit_raised:
        before = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            return next(rows, None)
        except csv.Error as error:
            reason = str(error).split(" - ")[0]
            raise InputError(
                f"{name}: line {line}: invalid CSV: {reason}; quote with double quotes, and write a quote inside as two"
            ) from error
        finally:
            csv.field_size_limit(before)


def _check_names(names: list[str], file: str, place: str = "") -> None:
    if "" in names:
        raise InputError(f"{file}: {place}column {names.index('') + 1} has no name; name it in the header or drop it")
    if (repeated := _first_repeated(names)) is not None:
        raise InputError(f"{file}: {place}two columns are named {quoted(repeated)}; rename one")


def _read_parquet(path: Path) -> Iterator[Record]:
    # pyarrow and not polars: it turns corrupt bytes into exceptions, where polars aborts the whole process, and
    # its memory stays flat inside a row group, of which polars decodes the whole. Imported here: it costs 0.4 s.
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = shown(path)
    number = 0
    try:
        with pq.ParquetFile(str(path), pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES) as file:
            _check_names(list(file.schema_arrow.names), name)
            rows = rows_at_once(path, file.metadata, PARQUET_ROWS)
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                for fields in batch.to_pylist():
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


READERS: Final[dict[str, Callable[[Path], Iterator[Record]]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""The reader of each file suffix."""
