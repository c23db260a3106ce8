"""What every table in a terminal is made with: aligned columns without boxes, the same on a pipe."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

Cell = str | Text


class Row(NamedTuple):
    """A row with a style of its own."""

    cells: Sequence[Cell]
    style: str = ""


Column = TypeVar("Column")


class Folded(Generic[Column]):
    """Tables with as many columns side by side as the console has room for, the others below them."""

    def __init__(
        self,
        columns: Sequence[Column],
        widths: tuple[int, int],
        tables: Callable[[Sequence[Column]], Iterable[RenderableType]],
    ) -> None:
        """What is shown.

        Args:
            columns: one for each column after the first.
            widths: of the first column, and of each other.
            tables: makes the tables of some of the columns.
        """
        self._columns, self._widths, self._tables = columns, widths, tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's protocol for what a console can print."""
        del console
        first, other = self._widths
        in_a_row = max(1, (options.max_width - first - 1) // (other + 1))
        for start in range(0, len(self._columns), in_a_row):
            yield from self._tables(self._columns[start : start + in_a_row])


def table(
    heads: Sequence[Cell],
    rows: Iterable[Row | Sequence[Cell]],
    *,
    title: str | None = None,
    left: Collection[int] = (0,),
    widths: Mapping[int, int] | None = None,
    least: int = 0,
    gap: int = 1,
) -> Table:
    """A table; texts in it are shown as they are, whatever markup they hold.

    Args:
        heads: of the columns, in as many lines as need be.
        rows: shorter ones are filled up.
        title: above the table, in bold.
        left: columns that are aligned to the left and broken where the console is too narrow for them.
        widths: of columns that have a given one.
        least: width of the first column at least.
        gap: spaces between columns.
    """
    made = Table(
        title=None if title is None else Text(title, no_wrap=True, overflow="ignore"),
        title_style="bold",
        title_justify="left",
        box=None,  # its lines would cost the width of a whole column
        padding=(0, gap, 0, 0),
        pad_edge=False,
        header_style="underline",
    )
    widths = widths or {}
    for place, head in enumerate(heads):
        to_left = place in left
        made.add_column(
            Text(head) if isinstance(head, str) else head,
            justify="left" if to_left else "right",
            overflow="fold",
            no_wrap=not to_left,
            width=widths.get(place),
            min_width=least if place == 0 else None,
        )
    for row in rows:
        cells, style = row if isinstance(row, Row) else (row, "")
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), style=style)
    return made


def interval(row: Mapping[str, float | None], prefix: str = "", style: str = ".2f") -> str:
    """`0.61 to 0.74`, of a row with ``{prefix}lo`` and ``{prefix}hi``; "-" where it has none."""
    lo, hi = row[f"{prefix}lo"], row[f"{prefix}hi"]
    return "-" if lo is None or hi is None else f"{lo:{style}} to {hi:{style}}"


def count(number: int, noun: str = "pair") -> str:
    """`1 pair`, `1,200 pairs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clean(text: str, width: int = 24) -> str:
    """A text on one line of at most `width` characters, without what would disturb the text around it.

    Control characters, line ends and bidirectional overrides go; a long text ends in an ellipsis. An empty
    text becomes "(empty)".
    """
    # Cc, Cf: controls and bidirectional marks; Cs, Cn: what neither a terminal nor an SVG file can hold.
    # Joiners are kept: emoji and several scripts need them.
    kept = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char
        for char in text
        if char in "\u200c\u200d" or unicodedata.category(char) not in ("Cf", "Cs", "Cn", "Co")
    )
    line = " ".join(kept.split())
    if len(line) > width:
        line = line[: width - 1].rstrip() + "…"
    return line or "(empty)"
