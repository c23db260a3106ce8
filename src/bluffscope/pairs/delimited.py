"""Tables of text: commas, semicolons or tabs between the fields of a row, and a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, Final

from bluffscope.errors import InputError
from bluffscope.pairs.record import INDEX_LEFT_OUT, Record, Tell, check_names, shown
from bluffscope.pairs.text_files import MAX_LINE_BYTES, text_lines

_DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
_QUOTED: Final = re.compile(r'"[^"]*"?')
_limit_raised: Final = Lock()


def read_csv(path: Path, tell: Tell) -> Iterator[Record]:
    """The rows of a .csv file; where its header has no comma, semicolons or tabs stand between the fields."""
    return _read(path, None, tell)


def read_tsv(path: Path, tell: Tell) -> Iterator[Record]:
    """The rows of a .tsv file."""
    return _read(path, "\t", tell)


def _read(path: Path, delimiter: str | None, tell: Tell) -> Iterator[Record]:
    name = shown(path)
    lines = _lines(path)
    named, first, skipped = _start(lines)
    if first is None:
        return
    delimiter = named or delimiter or _delimiter(first)
    rows = csv.reader(chain([first], lines), strict=True, delimiter=delimiter)
    header = _next_row(rows, name, skipped)
    assert header is not None  # its first line is not blank
    nameless = header[0] == "" and len(header) > 1
    check_names(header[nameless:], name, f"line {rows.line_num + skipped}: ")
    if nameless:
        tell(f"{name}: {INDEX_LEFT_OUT}")
    while True:
        line_number = rows.line_num + skipped + 1
        row = _next_row(rows, name, skipped)
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(
                f"{name}: line {line_number}: {len(row)} fields between {_DELIMITERS[delimiter]} where the header has "
                f"{len(header)}; put texts that hold a delimiter, a quote or a line break in double quotes"
            )
        fields = dict(zip(header[nameless:], row[nameless:], strict=True))
        yield Record(name, "line", line_number, fields, textual=True)


def _start(lines: Iterator[str]) -> tuple[str | None, str | None, int]:
    """The delimiter that a line `sep=;` names, as Excel writes and obeys it; the header's first line; lines before."""
    delimiter, skipped = None, 0
    for line in lines:
        said = re.fullmatch(r"sep=([,;\t])", line.rstrip("\r\n"), re.IGNORECASE)
        if said is not None and delimiter is None:
            delimiter = said[1]
        elif line.strip():
            return delimiter, line, skipped
        skipped += 1
    return delimiter, None, skipped


def _delimiter(header: str) -> str:
    """The first of commas, semicolons and tabs that stands in a header outside quotes."""
    bare = _QUOTED.sub("", header)
    return next((sign for sign in _DELIMITERS if sign in bare), ",")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file; where it has a single one, those that end in a carriage return alone, as old Macs wrote."""
    lines = text_lines(path)
    first = list(islice(lines, 2))
    if len(first) == 1:
        first = re.split(r"(?<=\r)(?!\n)", first[0])
    return chain(filter(None, first), lines)


def _next_row(rows: Any, name: str, skipped: int = 0) -> list[str] | None:
    """The next row of a csv.reader, or None at the end; its lines are counted from those skipped before."""
    line = rows.line_num + skipped + 1
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
