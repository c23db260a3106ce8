"""A run from its options to its report: measured, compared with float32 where that is asked for, and closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bluffscope.compare.precision import Fidelity, check_fidelity, measure_fidelity
from bluffscope.config import RunConfig
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.metrics import ANALYSES, Analysis
from bluffscope.metrics.own import UserAnalysis
from bluffscope.pipeline.build import NOTHING
from bluffscope.pipeline.given import Given
from bluffscope.runs.run import Progress, RunResult
from bluffscope.runs.run import run as measure
from bluffscope.table.reader import Run

if TYPE_CHECKING:
    from bluffscope.report.write import Report

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompletedRun(RunResult):
    """A run with what was made of it once it was measured."""

    report: Report | None = None
    """The page and figures, where they were asked for and could be drawn."""
    fidelity: Fidelity | None = None
    """What the run's precision changed, where the options ask for it."""


@exclusive()
def run(
    config: RunConfig,
    *,
    analyses: tuple[Analysis, ...] = ANALYSES,
    added: tuple[UserAnalysis, ...] = (),
    given: Given = NOTHING,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    draw: bool = True,
    earlier: Path | None = None,
) -> CompletedRun:
    """Measure, compare with float32 where the options ask for it, and close the run with its statistics and report.

    Args:
        config: as for `bluffscope.runs.run.run`, which does the measuring; so are all others but `draw`.
        analyses: which of the five analyses run.
        added: analyses of the user's own.
        given: model and SAEs that are in memory already.
        progress: called with the number of pairs just done.
        tell: called with each step as it begins.
        draw: whether statistics and report.html are made (it takes seconds).
        earlier: as for `bluffscope.runs.run.run`.

    Raises:
        InputError: something in the options or the data; nothing is written (but for a run that is complete when its
            fidelity cannot be measured).
        RunFolderError, QuarantineLimitError, RunStopped: as for `bluffscope.runs.run.run`.
    """
    started = time.perf_counter()
    tell = tell or (lambda _: None)
    given.check(config)
    check_fidelity(config)
    measured = measure(
        config, analyses=analyses, added=added, given=given, progress=progress, tell=tell, earlier=earlier
    )
    result = CompletedRun(**vars(measured))
    if config.output.fidelity and "fidelity" not in result.manifest:
        tell("Fidelity: measuring in float32")
        try:
            pairs, address = config.output.fidelity, config.engine.address
            fidelity = measure_fidelity(result.path, pairs=pairs, analyses=analyses, address=address)
        except InputError as error:
            raise InputError(f"the run is complete in {result.path}, but not its fidelity: {error}") from error
        result = replace(result, manifest=Run(result.path).manifest, fidelity=fidelity)
    if not draw or (result.untouched and (result.path / "report.html").exists()):
        return result
    return replace(result, report=_report(result.path, config.output.figures, tell, started))


def _report(path: Path, figures: bool, tell: Callable[[str], None], started: float) -> Report | None:
    """The run's statistics and page, and figures if wanted; None, and a warning, where they could not be made."""
    tell("Report: reading the run")
    from bluffscope.report.write import REPORT_ERRORS, write_report  # scipy: seconds that no other run pays

    try:
        return write_report(path, figures=figures, tell=tell, started=started)
    except REPORT_ERRORS as error:
        reason = " ".join(str(error).split())
        _log.warning("the run is complete, but not its report: %s; `bluffscope report %s` tries again", reason, path)
        return None


__all__ = ["CompletedRun", "run"]
