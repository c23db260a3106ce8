"""The detectors of a run's folder: what it keeps of its texts beside the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from bluffscope.detectors.evaluate import Detection, detect
from bluffscope.detectors.inputs import Views
from bluffscope.stats.cells import Resampling
from bluffscope.stats.study import build_study
from bluffscope.table.reader import Run

CLOSING_PAIRS: Final = 1000
CLOSING_DOMAINS: Final = 6
"""Most pairs, and domains, for which the statistics that close a run fit detectors unasked: it takes seconds then."""


def detect_in(
    table: pl.DataFrame,
    pairs: pl.DataFrame | None,
    run: Run | None,
    *,
    by: Sequence[str] = (),
    by_order: bool = False,
    resampling: Resampling | None = None,
) -> Detection:
    """Every detector that what is known allows.

    Args:
        table: the result table, or any other.
        pairs: what it was measured from, for the texts.
        run: the table's run, for its residuals and features; None for a table that has none.
        by: further columns whose values are scopes.
        by_order: the k-th row is the k-th pair's; only for a table without ids.
        resampling: seed and resamples, in place of ``Resampling()``.

    Raises:
        InputError: residuals or features that cannot be read.
    """
    study = build_study(table, pairs, by, by_order=by_order)
    views = Views(study.pairs)
    if run is not None:
        kept = (run.path / "residuals.parquet").exists()
        features = run.features if (run.path / "features.parquet").exists() else None
        views = Views(study.pairs, table["pair_id"], run.residuals if kept else None, features)
    return detect(study, views, resampling or Resampling())


def quick_to_detect(table: pl.DataFrame) -> bool:
    """Whether detectors of a table take seconds."""
    domains = table["domain"].n_unique() if "domain" in table.columns else 1
    return table.height <= CLOSING_PAIRS and domains <= CLOSING_DOMAINS
