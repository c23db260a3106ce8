"""What closes a command: the answer in at most 15 lines, the last of which says where the result is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from bluffscope.cli.console import LastingConsole
from bluffscope.host.terminal import table

if TYPE_CHECKING:
    from bluffscope.report.answer import Answer, Effect

MOST_LINES: Final = 15
"""Lines of a terminal of 60 columns or more."""
SIZES_FROM: Final = 80
"""Columns of a terminal in which effects stand with their sizes in words."""


def print_brief(console: LastingConsole, answer: Answer, *last: str, first: Sequence[str] = ()) -> None:
    """What ran, whether it is sound, the answer, the strongest effects, a detector, what next, and where the result is.

    Where the lines would be too many, fewer effects are shown; the sentence names the strongest.

    Args:
        console: where it is printed.
        answer: what is said.
        last: lines at the end.
        first: lines before all others.
    """
    before = [*map(Text, first), Text(answer.ran, style="dim"), Text(answer.health), *map(Text, answer.own[:1])]
    before += [Text(answer.sentence, style="bold")]
    after = [Text(answer.detector)] if answer.detector else []
    next_lines = [f"{'' if place else 'Next:':<6}{command}" for place, command in enumerate(answer.next)]
    taken = sum(len(text.wrap(console, console.width)) for text in (*before, *after))
    # Commands are not broken, so that they can be copied; a terminal goes on in the next line.
    taken += sum(-(-len(line) // console.width) if console.is_terminal else 1 for line in (*next_lines, *last))
    console.print(*before, sep="\n")
    shown, sizes = len(answer.effects), console.width >= SIZES_FROM
    while shown and taken + _height(console, _effects(answer, shown, sizes)) > MOST_LINES:
        shown -= 1
    if shown:
        console.print(_effects(answer, shown, sizes))
    if after:
        console.print(*after, sep="\n")
    console.say(*next_lines, *last)


def _height(console: LastingConsole, shown: Table) -> int:
    return len(console.render_lines(shown))


def _effects(answer: Answer, most: int, sizes: bool) -> Table:
    """The strongest effects in words: where most is found, then in the other scopes."""
    effects = answer.effects[:most]
    undecided = effects[0].verdict != "separates"
    others = [] if undecided else [part for part in answer.scopes if part.scope != effects[0].scope]
    heads = [
        f"Strongest effects ({answer.symbol})",
        answer.where,
        *(other.name for other in others),
        *(["verdict"] if undecided else []),
    ]
    rows = [
        [
            effect.words,
            *(_cell(one, sizes) for one in (effect, *(other.effects[place] for other in others))),
            effect.verdict,
        ]
        for place, effect in enumerate(effects)
    ]
    return table(heads, [row[: len(heads)] for row in rows], left=range(len(heads)), gap=2)


def _cell(effect: Effect | None, sizes: bool) -> str:
    return "-" if effect is None else f"{effect.value:+.2f}{f' {effect.size}' * sizes}"
