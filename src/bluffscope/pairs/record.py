"""A record is what one item of a file holds, before any field is looked at; and how messages show what is in files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from bluffscope.errors import InputError

UNNAMED: Final = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""What a pandas index that was written to a file without a name is called by those who read it."""
INDEX_LEFT_OUT: Final = "a column without a name is left out: the index of a table"

Tell: TypeAlias = Callable[[str], None]
"""Called with one line about how the data is read; the same line may come again with each pass."""


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


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names in quotes, the first of them where there are many."""
    every = [quoted(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "") or "none"


def first_repeated(names: list[str]) -> str | None:
    """The first name that stands there twice."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def check_names(names: list[str], file: str, place: str = "") -> None:
    """Refuse columns without a name and names that two have."""
    if "" in names:
        raise InputError(f"{file}: {place}column {names.index('') + 1} has no name; name it in the header or drop it")
    if (repeated := first_repeated(names)) is not None:
        raise InputError(f"{file}: {place}two columns are named {quoted(repeated)}; rename one")
