"""What the page opens with: a picture of the strongest effect, the items that show it, and those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.host.terminal import count
from bluffscope.report.answer import Answer
from bluffscope.report.contents import Contents
from bluffscope.report.feature_cards import items_of
from bluffscope.report.labels import clean, effect, ending, number
from bluffscope.report.results import Effect, ScopeAnswer
from bluffscope.report.sides import IS_FACT
from bluffscope.stats.scopes import POOLED
from bluffscope.table.metric_pairs import MetricPair

BINS: Final = 24
ITEMS_SHOWN: Final = 3
_LONGEST: Final = 80


@dataclass(frozen=True)
class Example:
    """A pair or text that the page opens with."""

    name: str
    prompt: str
    texts: tuple[str, ...]
    """The fact and the hallucination, or one text."""
    true: bool
    """Of one text: whether it is."""
    value: str
    """The difference in the leading metric, or the text's own value."""


@dataclass(frozen=True)
class Examples:
    """Pairs or texts that show the leading effect, and others that do not."""

    typical: tuple[Example, ...] = ()
    exceptions: tuple[Example, ...] = ()
    against: int = 0
    """Of how many the difference goes the other way."""
    of: int = 0
    """Items looked at."""


def picture(contents: Contents, answer: Answer) -> dict[str, list[Any]]:
    """How both sides' values of the leading metric are spread, where it was found and where it was not.

    Returns:
        panel, note, view, lo, hi, share (of the side's texts, in per cent): a row for each bin that holds a text.
    """
    pair, rows = _leading(contents, answer), {name: [] for name in ("panel", "note", "view", "lo", "hi", "share")}
    if pair is None:
        return rows
    sides = _values(contents, pair)
    every = np.concatenate(sides)
    every = every[np.isfinite(every)]
    if not len(every):
        return rows
    borders = np.linspace(every.min(), every.max() + 1e-9 * max(1.0, abs(every.max())), BINS + 1)
    for scope, title, note in _panels(contents, answer):
        items = items_of(contents, scope)
        for view, side in zip(contents.words.views, sides, strict=True):
            values = side[items & np.isfinite(side)]
            counts = np.histogram(values, borders)[0]
            for place in np.flatnonzero(counts).tolist():
                share = 100 * counts[place] / len(values)
                cells = (title, note, view, *borders[place : place + 2].tolist(), share)
                for name, cell in zip(rows, cells, strict=True):
                    rows[name].append(float(f"{cell:.4g}") if isinstance(cell, float) else cell)
    return rows


def metric_name(contents: Contents, answer: Answer) -> str:
    """The metric of the picture with its layer."""
    pair = _leading(contents, answer)
    if pair is None:
        return ""
    label = clean(contents.definition(pair.metric).label, 40).replace("_", " ")
    return label if pair.layer is None else f"{label} at layer {pair.layer}"


def axis_title(contents: Contents, answer: Answer) -> str:
    """The same with what the ends of its range mean, or its unit, as the picture's axis says it."""
    pair = _leading(contents, answer)
    if pair is None:
        return ""
    known = contents.definition(pair.metric)
    about = known.ends or known.unit.replace("dimensionless", "")
    return f"{metric_name(contents, answer)}{about and f' ({clean(about, 24)})'}"


def examples(contents: Contents, answer: Answer) -> Examples:
    """Items whose difference is nearest the median of those that show the leading effect, and the greatest exceptions.

    Where the effect does not separate there is no rule to be typical of: `typical` are the largest differences then.
    """
    pair = _leading(contents, answer)
    if pair is None:
        return Examples()
    lead = answer.effects[0]
    fact, hall = _values(contents, pair)
    if contents.words.paired:
        shown = hall - fact
        along = shown * np.sign(lead.value)
    elif not (np.isfinite(fact).any() and np.isfinite(hall).any()):
        return Examples()
    else:
        shown = np.where(np.isfinite(fact), fact, hall)
        middle = (np.nanmean(fact) + np.nanmean(hall)) / 2
        along = (shown - middle) * np.sign(lead.value) * np.where(np.isfinite(fact), -1, 1)
    usable = np.flatnonzero(items_of(contents, lead.scope) & np.isfinite(along))
    by_size = usable[np.argsort(-along[usable], kind="stable")]

    def shows(items: np.ndarray) -> tuple[Example, ...]:
        return tuple(_example(contents, item, float(shown[item])) for item in items[:ITEMS_SHOWN].tolist())

    if lead.verdict != "separates":
        return Examples(shows(usable[np.argsort(-np.abs(along[usable]), kind="stable")]), of=len(usable))
    agree = by_size[along[by_size] > 0]
    near = np.argsort(np.abs(along[agree] - np.median(along[agree])), kind="stable") if len(agree) else agree
    return Examples(shows(agree[near]), shows(by_size[::-1]), int((along[usable] < 0).sum()), len(usable))


def beyond_length(answer: Answer) -> str:
    """Whether what was found is more than length and wording, in a line."""
    separate, confounded = (answer.counts.get(name, 0) for name in ("separates", "confounded"))
    if not answer.counts:
        return ""
    tested = sum(answer.counts.values())
    said = f"{separate} of {count(tested, 'metric')} differ at equal length and wording"
    return f"{said}; in {confounded} more, length or wording accounts for most of it." if confounded else f"{said}."


def holds(part: ScopeAnswer) -> str:
    """What one of two scopes says, in a line."""
    if not part.tested:
        return "cannot be judged"
    least = f" (an effect of {part.least:.2f} would be found)" if not part.separate and part.least else ""
    return f"{part.separate} of {count(part.tested, 'metric')} differ{least}"


def _leading(contents: Contents, answer: Answer) -> MetricPair | None:
    """The metric of the leading effect."""
    if answer.kind == "withheld" or not answer.effects:
        return None
    return next((pair for pair in contents.measured if pair.name == answer.effects[0].metric), None)


def _panels(contents: Contents, answer: Answer) -> list[tuple[str, str, str]]:
    """Scope, title and effect of each panel."""
    words, symbol = contents.words, contents.words.symbol

    def said(found: Effect | None) -> str:
        return f"; {symbol} {effect(found.value)}, {found.size}" if found else ""

    parts = [(part.scope, part.words, part.n, part.effects[0]) for part in answer.scopes]
    lead = answer.effects[0]
    parts = parts or [(POOLED, f"all {words.items}", lead.n, lead)]
    return [(scope, title, f"{words.count(n)}{said(found)}") for scope, title, n, found in parts]


def _values(contents: Contents, pair: MetricPair) -> tuple[np.ndarray, np.ndarray]:
    """(item,) of both sides; NaN where there is none."""
    columns = (contents.metrics[name].cast(pl.Float64).fill_null(float("nan")) for name in (pair.fact, pair.hall))
    fact, hall = (column.to_numpy() for column in columns)
    return fact, hall


def _example(contents: Contents, item: int, value: float) -> Example:
    row, words = contents.pairs.row(item, named=True), contents.words
    texts = (row["fact"], row["hallucination"]) if words.paired else (row["completion"],)
    return Example(
        name=str(row[words.key]),
        prompt=ending(row["prompt"], _LONGEST) if row.get("prompt") else "",
        texts=tuple(clean(text, _LONGEST) for text in texts),
        true=words.paired or bool(contents.metrics[IS_FACT][item]),
        value=number(value, signed=words.paired),
    )
