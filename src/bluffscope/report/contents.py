"""What a report is made of: everything that a run's folder holds, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from bluffscope.config.presets import DEMO_NAME
from bluffscope.features.effects import feature_effects
from bluffscope.features.study import FeatureStudy
from bluffscope.metrics import declared
from bluffscope.metrics.logprob import KNOWS
from bluffscope.report.detector_findings import checked_table
from bluffscope.report.features import sided_study
from bluffscope.report.sides import Words, labels_of, numeric_pairs, sided_statistics, two_sided, words_of
from bluffscope.stats.sampling import draw_groups, drawn_from, pairs_of, read_metrics
from bluffscope.stats.scopes import POOLED
from bluffscope.table.atomic import table_errors
from bluffscope.table.damage import ABOUT, CONFIG, MANIFEST, checked
from bluffscope.table.health import Health, read_health
from bluffscope.table.metric_pairs import MetricPair
from bluffscope.table.reader import Run, read_run

FEATURE_PAIRS: Final = 10_000
"""Most pairs for tests of features: each pair has hundreds of rows in features.parquet."""


class Definition(NamedTuple):
    """What the page says about a metric; texts are empty where nothing is known."""

    label: str
    doc: str
    """One sentence."""
    unit: str


def knowledge(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns that may say whether a model knows a pair, the more telling one first.

    `known` speaks of the model that the data were made with: for the bundled benchmark this is the demo model.
    """
    return ("known", KNOWS) if (manifest.get("model") or {}).get("name") == DEMO_NAME else (KNOWS, "known")


def verdicts_withheld(stats: pl.DataFrame | None, health: Health) -> bool:
    """Whether no verdict may be shown: the gate failed, or the statistics were made when it had."""
    if stats is None or stats.is_empty():
        return bool(health.withheld)
    stopped = stats["verdict"] == "withheld"
    return stopped.all() or (bool(health.withheld) and not (health.of_saes and stopped.any()))


@dataclass(frozen=True)
class RunTables:
    """What a run measured, read once for its statistics and its page."""

    run: Run
    metrics: pl.DataFrame
    """The result table; of a large one a sample (`total` says of how many)."""
    pairs: pl.DataFrame
    """The texts, group and carried columns of the items of `metrics`, in its order: pairs, or labelled texts."""
    total: int
    """Items of the run's table, whether they were read or not."""

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path


def read_tables(path: str | Path) -> RunTables:
    """Read what a run measured.

    Raises:
        InputError: no finished run, or a table of it is missing or damaged.
    """
    run = read_run(path)
    metrics, total = read_metrics(run.path)
    return RunTables(run, metrics, pairs_of(run.path, metrics), total)


@dataclass(frozen=True, kw_only=True)
class Contents(RunTables):
    """A run as the report needs it; of labelled texts, metrics and statistics are in the columns of pairs."""

    measured: tuple[MetricPair, ...]
    """Numeric metrics of fact and hallucination, in the table's order."""
    stats: pl.DataFrame | None
    """stats.parquet, or None where there is none."""
    about: dict[str, Any]
    """stats.json without its rows; empty where there is none."""
    ladder: pl.DataFrame | None
    detectors: pl.DataFrame | None
    transfer: pl.DataFrame | None
    curves: pl.DataFrame | None
    """Reliability and risk-coverage of the detectors."""
    sweep: pl.DataFrame | None
    """What `bluffscope detect sweep` found."""
    carried: pl.DataFrame | None
    """What `bluffscope detect transfer` found."""
    features: FeatureStudy | None
    """As `bluffscope features` finds them; None where the run has none."""
    manifest: dict[str, Any]
    config: dict[str, Any]
    features_from: str | None = None
    """A sentence on the items that the features were tested on, where not all."""

    @property
    def words(self) -> Words:
        """How to speak of its items and sides."""
        return words_of(self.metrics)

    @property
    def scopes(self) -> list[str]:
        """Scopes of the statistics in their order; none where there are no statistics."""
        return [] if self.stats is None else self.stats["scope"].unique(maintain_order=True).to_list()

    @cached_property
    def health(self) -> Health:
        """What the health gate found; allowed also where the statistics were made with --allow-unsound."""
        health = read_health(self.manifest)
        return replace(health, allowed=health.allowed or bool(self.about.get("allowed_unsound")))

    def definition(self, metric: str) -> Definition:
        """What is declared of a metric (name without its layer), built in or of the user's own."""
        if known := declared(metric):
            return Definition(metric, f"{known.metric.doc.format(view='a text')}.", known.metric.unit)
        own = self.manifest.get("added", {}).get(metric, {})
        return Definition(own.get("label") or metric, own.get("doc", ""), own.get("unit", ""))

    @cached_property
    def dose(self) -> pl.DataFrame:
        """Mean stability of both sides at each level of noise and in each domain, with 95 % intervals of the mean.

        scope, s, view, mean, lo, hi, n; no rows where the run has no noise sweep.
        """
        known = {pair: declared(pair.metric) for pair in self.measured}
        levels = {pair: found.level for pair, found in known.items() if found and found.level}
        if not levels:
            return pl.DataFrame()
        texts = pl.concat(
            self.metrics.select(
                scope=self._domain(),
                s=pl.lit(level),
                **self._sides(pair),
            )
            for pair, level in levels.items()
        )
        whole = texts.with_columns(scope=pl.lit(POOLED))
        both = pl.concat([whole, texts]) if texts["scope"].n_unique() > 1 else whole
        return _means(both, "s", self.words)

    @cached_property
    def trajectory(self) -> pl.DataFrame:
        """Mean log-probability of both sides' completions through the logit lens, with 95 % intervals of the mean.

        scope, layer, view, mean, lo, hi, n: over all items, then those that the model knows and does not, where a
        column says so; no rows where fewer than two layers were measured.
        """
        by_layer = {pair.layer: pair for pair in self.measured if pair.metric == "lens_logprob"}
        if len(by_layer) < 2:
            return pl.DataFrame()
        column = next((name for name in knowledge(self.run.manifest) if name in self.metrics.columns), None)
        scopes = {f"all {self.words.items}": pl.lit(value=True)}
        if column is not None:
            scopes |= {f"{column}={str(value).lower()}": pl.col(column) == value for value in (True, False)}
        parts = [
            self.metrics.filter(chosen).select(
                scope=pl.lit(name),
                layer=pl.lit(layer),
                **self._sides(pair),
            )
            for name, chosen in scopes.items()
            for layer, pair in sorted(by_layer.items())
        ]
        return _means(pl.concat(parts), "layer", self.words).drop_nulls("lo")

    def _sides(self, pair: MetricPair) -> dict[str, pl.Expr]:
        columns = (pair.fact, pair.hall)
        return {view: pl.col(name).cast(pl.Float64) for view, name in zip(self.words.views, columns, strict=True)}

    def _domain(self) -> pl.Expr:
        """Each item's domain, called as the statistics call it."""
        if "domain" not in self.metrics.columns:
            return pl.lit("all")
        name = pl.col("domain").cast(pl.String).fill_null("None")
        return pl.when(name == POOLED).then(pl.lit(f"domain={POOLED}")).otherwise(name)

    @property
    def withheld(self) -> bool:
        """Whether no verdict may be shown."""
        return verdicts_withheld(self.stats, self.health)


def _means(texts: pl.DataFrame, along: str, words: Words) -> pl.DataFrame:
    """scope, `along`, view, mean, n, lo, hi: means of both sides' values with their 95 % intervals.

    Args:
        texts: scope, `along`, and a column for each view.
        along: the column that is drawn along the axis.
        words: names of the views.
    """
    mean, half = pl.col("value").mean(), 1.96 * pl.col("value").std() / pl.len().sqrt()
    return (
        texts.unpivot(list(words.views), index=["scope", along], variable_name="view")
        .drop_nulls("value")
        .group_by("scope", along, "view", maintain_order=True)
        .agg(mean=mean, n=pl.len(), lo=mean - half, hi=mean + half)
    )


def read_contents(source: str | Path | RunTables) -> Contents:
    """Read all of a run's folder.

    Args:
        source: the folder, or the tables that were read from it.

    Raises:
        InputError: no finished run, or a file of it is missing or damaged.
    """
    tables = source if isinstance(source, RunTables) else read_tables(source)
    run, pairs, total = tables.run, tables.pairs, tables.total
    manifest, stats = checked(run.manifest, MANIFEST, run.path / "manifest.json"), run.table("stats.parquet")
    ladder = run.table("ladder.parquet")
    metrics = two_sided(tables.metrics, run.measured)
    words = words_of(metrics)
    features, features_from = None, None
    # Of texts of one label there is nothing to compare.
    if run.has_features and not metrics.is_empty() and (words.paired or all(labels_of(metrics))):
        with table_errors(run.path / f"{words.items}.parquet"):
            drawn = pairs.filter(draw_groups(pairs["group"], FEATURE_PAIRS))
        with table_errors(run.path / "features.parquet"):
            features = sided_study(feature_effects(run.features, drawn))
            features_from = drawn_from(drawn.height, total, of=words.items)
    about = checked(run.document("stats.json"), ABOUT, run.path / "stats.json")
    return Contents(
        run=run,
        metrics=metrics,
        pairs=pairs,
        measured=tuple(numeric_pairs(metrics)),
        stats=None if stats is None else sided_statistics(stats),
        about={key: value for key, value in about.items() if not key.endswith("rows")},
        ladder=None if ladder is None else sided_statistics(ladder),
        detectors=run.table("detectors.parquet"),
        transfer=run.table("transfer.parquet"),
        curves=checked_table(run, "detector_curves.parquet"),
        sweep=checked_table(run, "sweep.parquet"),
        carried=checked_table(run, "transfer_matrix.parquet"),
        features=features,
        manifest=manifest,
        config=checked(run.config, CONFIG, run.path / "config.yaml"),
        total=total,
        features_from=features_from,
    )
