"""Charts of the report on their own, for a notebook."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from bluffscope.errors import InputError
from bluffscope.report import charts
from bluffscope.report.contents import read_contents
from bluffscope.report.figures import drawn_svg, effects_figure, labelled, scatter_figure
from bluffscope.report.marks import Spec
from bluffscope.report.panels import figure, pair_values, panel, together
from bluffscope.report.sides import numeric_pairs, sided_statistics, two_sided, words_of, words_of_statistics
from bluffscope.table import reader
from bluffscope.table.metric_pairs import MetricPair, metric_pairs, text_metrics

_SIZE: Final = 340
"""Of a scatter, in pixels."""


@dataclass(frozen=True)
class Plot:
    """A chart with its numbers in it. A notebook shows it."""

    spec: Spec

    def to_dict(self) -> dict[str, Any]:
        """As Vega-Lite: what altair.Chart.from_dict and every other tool of Vega take."""
        return figure(self.spec)

    def altair(self) -> Any:
        """As an Altair chart, to change and combine.

        Raises:
            InputError: the package altair is not installed.
        """
        try:
            import altair  # no part of the installation
        except ImportError:
            raise InputError("plot: an Altair chart needs the package altair; pip install altair") from None
        return altair.Chart.from_dict(self.to_dict())

    def to_svg(self) -> str:
        """As SVG, drawn without a browser or a network.

        Raises:
            InputError: the package that draws is not installed.
        """
        return drawn_svg(self.spec)

    def _repr_html_(self) -> str:
        return self.to_svg()


@dataclass(frozen=True)
class Plots:
    """The charts of a run. Called, it gives the effect sizes, or one metric's values."""

    run: reader.Run
    verdicts: Callable[[], pl.DataFrame]
    """The run's statistics, made where they are missing."""

    def __call__(self, metric: str | None = None, layer: int | None = None) -> Plot:
        """Every metric's effect size, or one metric's values of fact against hallucination.

        Args:
            metric: its name, with or without layer ("entropy", "l5_gini", "gini"); None for effect sizes.
            layer: of the metric, where it has one and the name does not say it.

        Raises:
            InputError: the run has no such metric, or nothing to draw.
        """
        if metric is None:
            return self.effects()
        name = metric if layer is None else f"l{layer}_{metric}"
        metrics = two_sided(self.run.metrics, self.run.measured)
        known = {pair.name: pair for pair in metric_pairs(metrics.columns)}
        if name not in known:
            alike = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
            raise InputError(f"plot: the run has no metric {name!r}; there are {', '.join(alike or list(known)[:3])}")
        return metric_plot(metrics, known[name])

    def effects(self) -> Plot:
        """Effect sizes over all pairs or texts, with intervals.

        Raises:
            InputError: none has an effect size.
        """
        stats = self.verdicts()
        words = words_of_statistics(stats)
        drawn = effects_figure(sided_statistics(stats), words)
        if drawn is None:
            raise InputError(f"plot: no metric has an effect size over all {words.items}")
        return Plot(drawn)

    def trajectory(self) -> Plot:
        """Log-probability of the completions by layer, through the logit lens: all, known and unknown side by side.

        Raises:
            InputError: the run was measured without the trajectory, or at one layer.
        """
        contents = read_contents(self.run.path)
        rows = contents.trajectory
        if rows.is_empty():
            raise InputError(f"{self.run.path}: no trajectory over layers; measure with --trajectory at two or more")
        ends = rows.select(pl.min("lo"), pl.max("hi")).row(0)
        spec = charts.trajectory(contents.words, *ends)
        parts = [panel(spec, part, str(scope), 220) for (scope,), part in rows.group_by("scope", maintain_order=True)]
        return Plot(together(parts, len(parts)))

    def pair(self, item: str) -> Plot:
        """Where one pair or text lies among all: its metrics in standard deviations from the mean, the furthest first.

        Args:
            item: its id.

        Raises:
            InputError: the run has no such pair or text, or no metric that varies.
        """
        metrics, key = self.run.metrics, self.run.key
        if item not in metrics[key]:
            alike = difflib.get_close_matches(item, metrics[key], n=3, cutoff=0.3)
            near = f"; there are {', '.join(alike)}" if alike else ""
            raise InputError(f"plot: the run measured no {key.removesuffix('_id')} {item!r}{near}")
        words = words_of(metrics)
        if words.paired:
            values = {one.name: pl.col(one.hall) - pl.col(one.fact) for one in numeric_pairs(metrics)}
        else:
            names = text_metrics(metrics.columns, self.run.measured)
            values = {name: pl.col(name) for name in names if metrics[name].dtype.is_numeric()}
        numbers = metrics.select(value.alias(name) for name, value in values.items())
        score = (pl.all() - pl.all().mean()) / pl.all().std()
        scores = numbers.select(score).filter(metrics[key] == item).transpose(include_header=True, header_name="metric")
        rows = scores.rename({"column_0": "sd"}).filter(pl.col("sd").is_finite())
        if rows.is_empty():
            raise InputError(f"plot: no metric of {item} can be compared with those of other {words.items}")
        rows = rows.sort(pl.col("sd").abs(), descending=True, maintain_order=True).head(_METRICS)
        what = "differences (hallucination - fact)" if words.paired else "values"
        return Plot(panel(_BARS, rows, f"{item}: its {what} among all {words.items}", _SIZE))


_METRICS: Final = 24
"""Of one pair."""
_BARS: Final[Spec] = {
    "mark": {"type": "bar", "height": 9, "color": "#767676"},
    "encoding": {
        "y": {"field": "metric", "type": "nominal", "sort": None, "title": None},
        "x": {"field": "sd", "type": "quantitative", "title": "standard deviations from the mean"},
    },
}


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
