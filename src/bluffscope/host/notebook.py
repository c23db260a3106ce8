"""Small pieces of HTML that a notebook of any theme shows: their colours are those of the text around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from bluffscope.host.terminal import clean

MOST: Final = 300
"""Characters of one text."""
_LINE: Final = "border-top:1px solid color-mix(in srgb,currentColor 25%,transparent)"
_CELL: Final = f"padding:.15em .8em .15em 0;text-align:left;background:none;{_LINE}"


def block(name: str, facts: Iterable[str], parts: Iterable[str]) -> str:
    """What an object shows: its name and what it is in a line, and `line`s and `table`s below."""
    head = f'<p style="margin:.2em 0"><b>{_text(name)}</b> {" · ".join(map(_text, facts))}</p>'
    return f'<div style="font-family:sans-serif;font-size:.92em">{"".join([head, *parts])}</div>'


def line(text: str, *, faint: bool = False) -> str:
    """A paragraph."""
    return f'<p style="margin:.2em 0{";opacity:.75" if faint else ""}">{_text(text)}</p>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; nothing where there are no rows."""
    body = "".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)
    if not body:
        return ""
    return f'<table style="border-collapse:collapse;margin:.4em 0"><tr>{_cells(heads, "th")}</tr>{body}</table>'


def _cells(texts: Iterable[str], tag: str) -> str:
    return "".join(f'<{tag} style="{_CELL}">{_text(text)}</{tag}>' for text in texts)


def _text(text: str) -> str:
    return escape(clean(text, MOST))
