"""How a metric is declared: its columns, its bounds and what a reader must know. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from bluffscope.records import PAIRS, Arrangement

if TYPE_CHECKING:
    from bluffscope.metrics.measurement import Measurement

Kind = Literal["str", "int", "float", "bool", "category"]
Values = np.ndarray | list[str | None] | list[bool | None]
"""One value a pair: float64 with NaN where undefined, or text or truth with None."""
AnalysisFunction = Callable[["Measurement"], dict[str, Values]]
"""Returns the columns of an analysis for a batch: name to one value a pair."""

PARTS: Final = PAIRS.parts
"""Columns of a metric that compares the two completions; diff is hallucination - fact."""
VIEW_WORDS: Final = {"prompt": "prompt", "fact": "fact", "hall": "hallucination", "text": "text", "": "text"}
_DTYPES: Final[dict[Kind, type[pl.DataType]]] = {
    "str": pl.String,
    "int": pl.Int64,
    "float": pl.Float64,
    "bool": pl.Boolean,
    "category": pl.String,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the result table."""

    name: str
    kind: Kind
    """What it holds: "category" is text from a small set."""
    unit: str
    """degrees, nats, activation units, features, tokens, or "dimensionless"; empty for text."""
    low: float | None
    """Smallest possible value, or None where there is no bound."""
    high: float | None
    """Largest possible value, or None where there is no bound."""
    doc: str
    """What it says, in one sentence."""
    version: int = 1
    """Version of its definition."""
    section: str = "added"
    """"pair", the name of an analysis, "logprob", "added" (an analysis of the user's own) or "carried"."""
    label: str = ""
    """What reports call its metric; the metric's name where empty."""

    @property
    def dtype(self) -> type[pl.DataType]:
        """The column's type in the Parquet files: Float64, Int64, Boolean or String."""
        return _DTYPES[self.kind]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, before layers, views and differences make columns of it."""

    name: str
    unit: str
    low: float | None
    high: float | None
    doc: str
    """One sentence without its end: "of {view}" is filled in for each column."""
    label: str = ""
    """What figures call it; its name where empty."""
    higher: str = ""
    """What is said of texts in which it is higher; of a number that may differ."""
    lower: str = ""
    """Likewise of texts in which it is lower."""
    ends: str = ""
    """What its lowest and highest values mean, where its name leaves that open."""
    kind: Kind = "float"
    version: int = 1
    not_interpretable: str = ""
    """Why it is shown but neither tested together with others nor counted; empty for all that are."""
    of_completions: bool = False
    """Whether a per-layer metric has columns for completions only, and none for the prompt."""
    swept: bool = False
    """Whether --noise-sweep measures it again at each noise level s, as `{name}_s{s}`."""

    def column(self, name: str, view: str, section: str) -> Column:
        """The column that holds this metric of one view, or "diff" (hallucination - fact)."""
        low, high = self.low, self.high
        doc = self.doc.format(view=f"the {VIEW_WORDS.get(view, view)}")
        if view == "diff":
            doc = f"{name.removesuffix('_diff')}: hallucination - fact"
            # The difference of two values of [low, high] lies in [low - high, high - low].
            high = None if low is None or high is None else high - low
            low = None if high is None else -high
        return Column(name, self.kind, self.unit, low, high, doc + ".", self.version, section, self.label)

    def at_noise(self, level: float) -> Metric:
        """The same at one level of the noise sweep."""
        return replace(self, name=f"{self.name}_s{level:g}", doc=f"{self.doc}, at noise s = {level:g}")


@dataclass(frozen=True)
class Analysis:
    """One of the built-in analyses; those of the user's own are a `bluffscope.UserAnalysis`."""

    name: str
    """As in `bluffscope.ANALYSES` and in the section of its columns."""
    function: AnalysisFunction
    """Returns its columns for a batch."""
    title: str = ""
    """Heading of its metrics in reports and in docs/columns.md."""
    metrics: tuple[Metric, ...] = ()
    """What it measures, in the order of the table's columns."""
    of_pair: tuple[Metric, ...] = ()
    """What it says of a pair as a whole, in a column each, of the metric's own name; after `metrics`."""
    per_layer: bool = False
    """Whether it measures every layer and view (`l{layer}_{view}_{metric}`) rather than comparing the completions of a
    pair (`{metric}_{fact|hall|diff}`)."""
    needs_sae: bool = True
    """Whether it looks at SAE features: such an analysis is left out where a run has no SAEs."""
    needs_prompt: bool = False
    """Whether it compares texts with their prompt: such an analysis is left out where texts have none."""
    head: str = ""
    """What docs/columns.md says above its metrics."""
    note: str = ""
    """What docs/columns.md says below its metrics."""

    def columns(self, layers: Sequence[int], arrangement: Arrangement = PAIRS) -> tuple[Column, ...]:
        """Its columns: by layer, view and metric where it measures layers, else by metric and part."""
        if not self.per_layer:
            whole = self.of_pair if arrangement == PAIRS else ()
            of_pair = (metric.column(metric.name, "", self.name) for metric in whole)
            return (*self._compared(self.metrics, arrangement), *of_pair)
        return tuple(
            metric.column(arrangement.at_layer(layer, view, metric.name), view, self.name)
            for layer in layers
            for view in arrangement.views
            for metric in self.metrics
            if view in arrangement.completions or not metric.of_completions
        )

    def swept_columns(self, sweep: Iterable[float], arrangement: Arrangement = PAIRS) -> tuple[Column, ...]:
        """Columns of its metrics at each noise level of ``--noise-sweep``, s written by ``format(s, "g")``."""
        metrics = (metric.at_noise(level) for level in sweep for metric in self.metrics if metric.swept)
        return self._compared(metrics, arrangement)

    def _compared(self, metrics: Iterable[Metric], arrangement: Arrangement) -> tuple[Column, ...]:
        return tuple(
            metric.column(arrangement.of_part(metric.name, part), part, self.name)
            for metric in metrics
            for part in arrangement.parts
        )
