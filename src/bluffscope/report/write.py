"""What closes a run: its statistics where they are missing, report.html, and figures/. Needs the folder alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import polars as pl

from bluffscope.detectors.evaluate import detect_in, quick_to_detect
from bluffscope.errors import BluffscopeError, InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.records import PAIRS
from bluffscope.report.answer import Answer, Results, answer
from bluffscope.report.contents import RunTables, read_contents, read_tables
from bluffscope.report.knowledge import knowledge
from bluffscope.report.page import render_page
from bluffscope.report.result_files import current_statistics, write_stats
from bluffscope.stats import Resampling, StatsResult, analyse_labelled, analyse_table
from bluffscope.stats.analysis import noted
from bluffscope.stats.sampling import drawn_from
from bluffscope.table.atomic import TABLE_ERRORS, write_bytes
from bluffscope.table.damage import MANIFEST, checked
from bluffscope.table.health import read_health

REPORT_ERRORS: Final = (BluffscopeError, ValueError, jinja2.TemplateError, *TABLE_ERRORS)
"""Errors while a report is made; its run is already complete."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What was written of a run."""

    path: Path
    """report.html."""
    figures: tuple[Path, ...]
    answer: Answer
    """What the page opens with."""
    seconds: float
    """Of the run and this page together, as on the page."""

    @property
    def sentence(self) -> str:
        """The answer in a sentence."""
        return self.answer.sentence


@exclusive()
def write_report(
    folder: str | Path,
    *,
    figures: bool = False,
    tell: Callable[[str], None] | None = None,
    started: float | None = None,
    detectors: bool = False,
) -> Report:
    """Write report.html into a run's folder, in place of an earlier one, and the run's statistics if they are missing.

    Args:
        folder: the run's folder.
        figures: whether figures/ is written too, the charts as PNG and SVG: some seconds more.
        tell: called with the name of each step as it begins.
        started: `time.perf_counter()` when the run began, where it was only now, for the total time.
        detectors: whether detectors are fitted however many texts there are, if the folder has none yet.

    Raises:
        InputError: no finished run, or a file of it is missing or damaged.
        RunFolderError: the folder cannot be written.
    """
    tell = tell or (lambda _: None)
    began = time.perf_counter()
    tables = read_tables(folder)
    before = tables.run.manifest.get("timings", {}).get("total", 0.0)

    @cache
    def total() -> float:
        return time.perf_counter() - (began - before if started is None else started)

    if not current_statistics(tables.path) or (detectors and not (tables.path / "detectors.parquet").exists()):
        _write_statistics(tables, tell, detectors)
    tell("Report: testing features")
    contents = read_contents(tables)
    tell("Report: writing the page")
    page = tables.path / "report.html"
    write_bytes(page, render_page(contents, total))
    written: list[Path] = []
    if figures:
        tell("Report: drawing figures")
        from bluffscope.report import figures as static  # only now: most reports have none

        written = static.write_figures(static.figures(contents), tables.path / "figures")
    return Report(page, tuple(written), answer(Results.of(contents)), total())


def statistics_of(tables: RunTables) -> StatsResult:
    """Verdicts on a run's metrics, as `bluffscope stats` gives them; withheld where the health gate failed.

    Raises:
        InputError: the table has nothing to test.
    """
    health = read_health(checked(tables.run.manifest, MANIFEST, tables.path / "manifest.json"))
    gate: dict[str, Any] = {"withheld": health.withheld, "of_saes": health.of_saes}
    if tables.run.arrangement == PAIRS:
        of, result = "pairs", analyse_table(tables.metrics, _texts_of(tables), **gate)
    else:
        of, result = "texts", analyse_labelled(tables.metrics, tables.pairs, measured=tables.run.measured, **gate)
    return noted(result, drawn_from(tables.metrics.height, tables.total, of=of))


def _texts_of(tables: RunTables) -> pl.DataFrame:
    """The pairs without their domains: the table's own are those of its rows, whatever pairs.parquet says."""
    return tables.pairs.drop("domain", strict=False)


def _write_statistics(tables: RunTables, tell: Callable[[str], None], detectors: bool) -> None:
    """All of `bluffscope stats`; where the table has nothing to test, a warning."""
    run, metrics = tables.run, tables.metrics
    health = read_health(checked(run.manifest, MANIFEST, run.path / "manifest.json"))
    try:
        tell("Report: testing effects")
        result = statistics_of(tables)
        tell("Report: fitting detectors")
        # Where nobody asked for detectors a run is to close in seconds: one draw of folds, and only the quick ones.
        wanted = detectors or quick_to_detect(metrics)
        chosen: dict[str, Any] = {} if detectors else {"resampling": Resampling(repeats=1), "quick": True}
        by = _known_column(tables)
        detection = detect_in(metrics, _texts_of(tables), run, by=by, **chosen) if wanted else None
    except InputError as error:
        _log.warning("no statistics: %s", error)
        return
    # The columns that `bluffscope stats RUN --detectors --by ...` takes to come to the same.
    source = {"table": "metrics.parquet", "pairs_from": None, "by": list(by if wanted else ())}
    source |= {"health": health.failures}
    write_stats(result, run.path, source | {"allowed_unsound": health.allowed}, detection)


def _known_column(tables: RunTables) -> tuple[str, ...]:
    """The column that says what the model knows, where there is one: what is found may hold of that alone."""
    kinds = {**tables.pairs.schema, **tables.metrics.schema}
    return next(((name,) for name in knowledge(tables.run.manifest) if kinds.get(name) == pl.Boolean), ())


__all__ = ["REPORT_ERRORS", "Report", "statistics_of", "write_report"]
