"""What a report is made of: everything that a run's folder holds, read once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from bluffscope.features.effects import FeatureStudy, feature_effects
from bluffscope.metrics import declared
from bluffscope.stats.sampling import draw_groups, drawn_from, pairs_of, read_metrics
from bluffscope.table.atomic import table_errors
from bluffscope.table.damage import ABOUT, CONFIG, MANIFEST, checked
from bluffscope.table.health import Health, read_health
from bluffscope.table.metric_pairs import MetricPair, metric_pairs
from bluffscope.table.reader import Run, read_run

FEATURE_PAIRS: Final = 10_000
"""Pairs whose features are tested: each has hundreds of rows in features.parquet."""


class Definition(NamedTuple):
    """What a reader is told of a metric; texts are empty where nothing is known."""

    label: str
    doc: str
    """One sentence."""
    unit: str


@dataclass(frozen=True)
class Contents:
    """A run as the report needs it."""

    run: Run
    metrics: pl.DataFrame
    """The result table; of a large one a sample (`total` says of how many)."""
    pairs: pl.DataFrame
    """The texts, group and carried columns of the pairs of `metrics`, in its order."""
    measured: tuple[MetricPair, ...]
    """Numeric metrics of fact and hallucination, in the table's order."""
    stats: pl.DataFrame | None
    """stats.parquet, or None where there is none."""
    about: dict[str, Any]
    """stats.json without its rows; empty where there is none."""
    ladder: pl.DataFrame | None
    detectors: pl.DataFrame | None
    transfer: pl.DataFrame | None
    features: FeatureStudy | None
    """As `bluffscope features` finds them; None where the run has none."""
    manifest: dict[str, Any]
    config: dict[str, Any]
    total: int
    """Pairs of the run's table, whether they were read or not."""
    features_from: str | None = None
    """Of which pairs the features were tested, where not of all."""

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def scopes(self) -> list[str]:
        """Scopes of the statistics in their order; none where there are no statistics."""
        return [] if self.stats is None else self.stats["scope"].unique(maintain_order=True).to_list()

    @cached_property
    def health(self) -> Health:
        """What the health gate found; allowed also where the statistics were told to allow it."""
        health = read_health(self.manifest)
        return replace(health, allowed=health.allowed or bool(self.about.get("allowed_unsound")))

    def definition(self, metric: str) -> Definition:
        """What is declared of a metric (name without its layer), built in or of the user's own."""
        if known := declared(metric):
            return Definition(metric, f"{known.metric.doc.format(view='a text')}.", known.metric.unit)
        own = self.manifest.get("added", {}).get(metric, {})
        return Definition(own.get("label") or metric, own.get("doc", ""), own.get("unit", ""))

    @property
    def withheld(self) -> bool:
        """Whether no verdict may be shown: the gate failed, or the statistics were made when it had."""
        judged = self.stats is None or not (self.stats["verdict"] == "withheld").any()
        return bool(self.health.withheld) or not judged


def read_contents(path: str | Path) -> Contents:
    """Reads a run's folder.

    Raises:
        InputError: no finished run, or a file of it is missing or damaged.
    """
    run = read_run(path)
    metrics, total = read_metrics(run.path)
    pairs = pairs_of(run.path, metrics)
    measured = tuple(
        pair
        for pair in metric_pairs(metrics.columns)
        if metrics.schema[pair.fact].is_numeric() and metrics.schema[pair.hall].is_numeric()
    )
    features, features_from = None, None
    if (run.path / "features.parquet").exists() and not metrics.is_empty():
        with table_errors(run.path / "pairs.parquet"):
            drawn = pairs.filter(draw_groups(pairs["group"], FEATURE_PAIRS))
        with table_errors(run.path / "features.parquet"):
            features, features_from = feature_effects(run.features, drawn), drawn_from(drawn.height, total)
    about = checked(run.document("stats.json"), ABOUT, run.path / "stats.json")
    return Contents(
        run=run,
        metrics=metrics,
        pairs=pairs,
        measured=measured,
        stats=run.table("stats.parquet"),
        about={key: value for key, value in about.items() if not key.endswith("rows")},
        ladder=run.table("ladder.parquet"),
        detectors=run.table("detectors.parquet"),
        transfer=run.table("transfer.parquet"),
        features=features,
        manifest=checked(run.manifest, MANIFEST, run.path / "manifest.json"),
        config=checked(run.config, CONFIG, run.path / "config.yaml"),
        total=total,
        features_from=features_from,
    )
