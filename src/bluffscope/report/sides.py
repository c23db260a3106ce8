"""A run has two sides, true and false, and items: a pair has a text of each side, a labelled text is one of either.

A labelled table in the columns of pairs, each metric with a null on the side that a text is not of, is read by the same
code as a pair run's. What the two kinds are called differs; `Words` has that.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from bluffscope.host.terminal import count
from bluffscope.metrics import declared
from bluffscope.table.metric_pairs import MetricPair, metric_pairs, text_metrics


@dataclass(frozen=True)
class Words:
    """What a reader is told that items, sides and effects are."""

    key: str
    """Column that names an item."""
    item: Literal["pair", "text"]
    fact: str
    """The true side in a column's head, the other likewise."""
    hall: str
    short: str
    """Of the false side, in eight characters."""
    facts: str
    """Texts of the true side, the others likewise."""
    halls: str
    apart: str
    """After "separates"."""
    between: str
    """After "differs between"."""
    difference: str
    """What is subtracted from what."""
    symbol: str
    """Of the standardised difference."""
    effect: str
    """How that is computed."""
    values: str
    """Heading of the values of one metric."""
    points: str
    """How they are drawn."""

    @property
    def items(self) -> Literal["pairs", "texts"]:
        """More than one item."""
        return "pairs" if self.paired else "texts"

    @property
    def views(self) -> tuple[str, str]:
        """Names of the sides in the key of a chart."""
        return (self.fact, self.hall) if self.item == "pair" else (self.facts, self.halls)

    @property
    def paired(self) -> bool:
        """Whether each item has both sides."""
        return self.item == "pair"

    def count(self, number: int) -> str:
        """`1 pair`, `1,200 texts`."""
        return count(number, self.item)

    def number(self, true: int, false: int) -> str:
        """`200 pairs`, `30 true and 20 false texts`, of so many texts of either side."""
        return f"{true:,} pairs" if self.paired else f"{true:,} true and {false:,} false texts"

    def used(self, fact: pl.Expr, hall: pl.Expr) -> pl.Expr:
        """Whether an item has the values that it can have: both of a pair, one of a text; null and NaN are none."""
        finite = [side.is_finite().fill_null(value=False) for side in (fact, hall)]
        return finite[0] & finite[1] if self.paired else finite[0] | finite[1]


PAIRED: Final = Words(
    key="pair_id",
    item="pair",
    fact="fact",
    hall="hallucination",
    short="halluc.",
    facts="facts",
    halls="hallucinations",
    apart="fact from hallucination",
    between="fact and hallucination",
    difference="hallucination - fact",
    symbol="d_z",
    effect="d_z = mean / sd of the paired differences",
    values="Fact against hallucination",
    points="one point a pair",
)
LABELLED: Final = Words(
    key="text_id",
    item="text",
    fact="true",
    hall="false",
    short="false",
    facts="true texts",
    halls="false texts",
    apart="true from false texts",
    between="true and false texts",
    difference="false - true",
    symbol="g",
    effect="g = difference of the means / pooled sd (Hedges)",
    values="True and false texts",
    points="one point a text, diamonds are means",
)


IS_FACT: Final = "is_fact"
"""Column of a labelled table in the columns of pairs: whether a text is of the true side."""


def words_of(table: pl.DataFrame) -> Words:
    """How to speak of a result table, or of its texts."""
    return LABELLED if LABELLED.key in table.columns else PAIRED


def two_sided(table: pl.DataFrame, measured: Collection[str] = ()) -> pl.DataFrame:
    """A labelled result table in the columns of pairs; that of pairs as it is.

    Args:
        table: a result table.
        measured: its columns of metrics, where that is known; else they are found by name and type.

    Returns:
        Each metric of a text in two columns, of true and of false texts, each null in the rows of the other. The
        prompt's own metrics are left out, as is a further column that would look like a side of a metric. `label`
        becomes `is_fact`.
    """
    if words_of(table).paired or IS_FACT in table.columns:
        return table
    sides: dict[str, pl.Expr] = {}
    metrics = [name for name in text_metrics(table.columns, measured or None) if measured or _by_name(table, name)]
    for name in metrics:
        layer, _, metric = name.partition("_")
        in_layer = _in_layer(name)
        for side, of in (("fact", pl.col("label")), ("hall", ~pl.col("label"))):
            called = f"{layer}_{side}_{metric}" if in_layer else f"{name}_{side}"
            sides[called] = pl.when(of).then(pl.col(name)).alias(called)
    others = [name for name in table.columns if name not in measured and not _in_layer(name) and name not in sides]
    taken = {name for pair in metric_pairs(others) for name in (pair.fact, pair.hall)}
    kept = [name for name in others if name not in taken and name != "label"]
    return table.select(*kept, pl.col("label").alias(IS_FACT), *sides.values())


def _in_layer(name: str) -> bool:
    return re.match(r"l\d+_.", name) is not None


def _by_name(table: pl.DataFrame, name: str) -> bool:
    return _in_layer(name) or declared(name) is not None or table.schema[name].is_float()


_RENAMED: Final = {
    **{
        f"{of}_{label}": f"{of}_{side}"
        for of in ("mean", "share")
        for label, side in (("true", "fact"), ("false", "hall"))
    },
    "top_texts": "top_pairs",
    "only_in_true": "only_in_facts",
    **{f"g{end}": f"dz{end}" for end in ("", "_lo", "_hi")},
    "adj_g": "adj_dz",
    "planted_g": "planted_dz",
}


def words_of_statistics(rows: pl.DataFrame) -> Words:
    """How to speak of statistics."""
    return LABELLED if "n_true" in rows.columns else PAIRED


def sided_statistics(rows: pl.DataFrame) -> pl.DataFrame:
    """Statistics of labelled texts, or of their features, under the names of pairs: `dz`, say, is Hedges' g."""
    return rows.rename(_RENAMED, strict=False)


def numeric_pairs(metrics: pl.DataFrame) -> list[MetricPair]:
    """The metrics of a result table (`two_sided`) that are numbers."""
    kinds = metrics.schema
    return [
        pair
        for pair in metric_pairs(metrics.columns)
        if kinds[pair.fact].is_numeric() and kinds[pair.hall].is_numeric()
    ]


def labels_of(metrics: pl.DataFrame) -> tuple[int, int]:
    """True and false texts of a labelled table in the columns of pairs."""
    true = int(metrics[IS_FACT].sum())
    return true, metrics.height - true
