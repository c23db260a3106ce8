"""Charts of the report on their own, for a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from bluffscope.errors import InputError
from bluffscope.report.figures import drawn_svg, effects_figure, labelled, scatter_figure
from bluffscope.report.marks import Spec
from bluffscope.report.panels import figure, pair_values
from bluffscope.report.sides import sided_statistics, words_of, words_of_statistics
from bluffscope.table.metric_pairs import MetricPair

_SIZE: Final = 340
"""Of a scatter, in pixels."""


@dataclass(frozen=True)
class Plot:
    """A chart with its numbers in it. A notebook shows it."""

    spec: Spec

    def to_dict(self) -> dict[str, Any]:
        """As Vega-Lite: what altair.Chart.from_dict and every other tool of Vega take."""
        return figure(self.spec)

    def to_svg(self) -> str:
        """As SVG, drawn without a browser or a network.

        Raises:
            InputError: the package that draws is not installed.
        """
        return drawn_svg(self.spec)

    def _repr_html_(self) -> str:
        return self.to_svg()


def effects_plot(stats: pl.DataFrame) -> Plot:
    """Effect sizes over all pairs or texts, with intervals.

    Args:
        stats: a run's verdicts.

    Raises:
        InputError: none has an effect size.
    """
    words = words_of_statistics(stats)
    drawn = effects_figure(sided_statistics(stats), words)
    if drawn is None:
        raise InputError(f"plot: no metric has an effect size over all {words.items}")
    return Plot(drawn)


def metric_plot(metrics: pl.DataFrame, pair: MetricPair) -> Plot:
    """A metric of the fact against that of the hallucination, one point a pair; or of true and of false texts.

    Args:
        metrics: a run's result table, in the columns of pairs.
        pair: the metric's columns.

    Raises:
        InputError: it is no number, or no pair has both values.
    """
    if not (metrics[pair.fact].dtype.is_numeric() and metrics[pair.hall].dtype.is_numeric()):
        raise InputError(f"plot: {pair.name} is no number")
    words = words_of(metrics)
    both = labelled(pair_values(metrics, pair), ("domain",))
    if both.is_empty():
        where = f"no pair has {pair.name} of both texts" if words.paired else f"no text has {pair.name}"
        raise InputError(f"plot: {where}")
    return Plot(scatter_figure(pair.name, both, _SIZE, words))
