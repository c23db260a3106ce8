"""What closes a run: its statistics where they are missing, report.html, and figures/. Needs the folder alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2

from bluffscope.detectors.evaluate import detect_in, quick_to_detect
from bluffscope.errors import BluffscopeError, InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.report.contents import Contents, read_contents
from bluffscope.report.dashboard import write_dashboard
from bluffscope.report.figures import write_figures
from bluffscope.report.page import render_page
from bluffscope.report.result_files import write_stats
from bluffscope.report.sections import answer
from bluffscope.stats import analyse_table
from bluffscope.stats.analysis import noted
from bluffscope.stats.sampling import drawn_from, pairs_of, read_metrics
from bluffscope.table.atomic import TABLE_ERRORS, unwritable, write_bytes
from bluffscope.table.damage import MANIFEST, checked
from bluffscope.table.health import read_health
from bluffscope.table.reader import Run, read_run

REPORT_ERRORS: Final = (BluffscopeError, ValueError, jinja2.TemplateError, *TABLE_ERRORS)
"""What may go wrong while a report is made; the run that it is of is complete already."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What was written of a run."""

    path: Path
    """report.html."""
    figures: tuple[Path, ...]
    sentence: str
    """The answer that the page opens with."""


@exclusive()
def write_report(folder: str | Path, *, figures: bool = True) -> Report:
    """Writes report.html and figures/ into a run's folder, in place of earlier ones, and its statistics if need be.

    Args:
        folder: the run's folder.
        figures: whether figures/ is written; it takes most of the time.

    Raises:
        InputError: no finished run, or a file of it is missing or damaged.
        RunFolderError: the folder cannot be written.
    """
    run = read_run(folder)
    if not (run.path / "stats.parquet").exists():
        _write_statistics(run)
    contents = read_contents(run.path)
    page = run.path / "report.html"
    write_bytes(page, render_page(contents))
    return Report(page, tuple(_figures(contents)) if figures else (), answer(contents)["sentence"])


def _write_statistics(run: Run) -> None:
    """All of `bluffscope stats`; a table that holds nothing to test is said, and reported without them."""
    metrics, total = read_metrics(run.path)
    pairs = pairs_of(run.path, metrics)
    health = read_health(checked(run.manifest, MANIFEST, run.path / "manifest.json"))
    # The table's own domains are those of its rows, whatever pairs.parquet says.
    pairs = pairs.drop("domain", strict=False)
    try:
        result = analyse_table(metrics, pairs, withheld=health.withheld)
        detection = detect_in(metrics, pairs, run) if quick_to_detect(metrics) else None
    except InputError as error:
        _log.warning("no statistics: %s", error)
        return
    source = {"table": "metrics.parquet", "pairs_from": None, "by": [], "health": health.failures}
    result = noted(result, drawn_from(metrics.height, total))
    write_stats(result, run.path, source | {"allowed_unsound": health.allowed}, detection)


def _figures(contents: Contents) -> list[Path]:
    if contents.metrics.is_empty():
        return []
    folder = contents.path / "figures"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    model = contents.manifest.get("model", {}).get("name") or "model"
    layers = " ".join(map(str, contents.config.get("model", {}).get("layers", ())))
    return [*write_dashboard(contents.metrics, folder, f"{model}, layers {layers}"), *write_figures(contents, folder)]


__all__ = ["REPORT_ERRORS", "Report", "write_report"]
