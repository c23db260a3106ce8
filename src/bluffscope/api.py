"""The library call: options by the names of the command line's flags, the result table back."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from bluffscope.compare.precision import Fidelity, check_fidelity, measure_fidelity
from bluffscope.config import RunConfig, with_values
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.host.float64_guard import own_settings
from bluffscope.metrics import ANALYSES, Analysis
from bluffscope.metrics.own import UserAnalysis, load_analyses
from bluffscope.pairs.given import write_pairs
from bluffscope.runs.run import Progress, RunResult
from bluffscope.runs.run import run as measure
from bluffscope.table.reader import Run

if TYPE_CHECKING:
    from bluffscope.report.write import Report

_log = logging.getLogger(__name__)


@exclusive()
@own_settings()
def analyze(
    data: str | Path | Iterable[Mapping[str, Any]] = "bluff200",
    *,
    analyses: Iterable[Analysis] = ANALYSES,
    added: Iterable[UserAnalysis] = (),
    out: str | Path | None = None,
    **options: Any,
) -> pl.DataFrame:
    """Run the analyses and give the result table, one row a pair in input order.

    Args:
        data: a path, "bluff200", or the pairs themselves as mappings with prompt, fact, hallucination
            and, if you have them, id, domain, complexity and further columns.
        analyses: which of the five analyses run (`bluffscope.metrics.ANALYSES`).
        added: analyses of your own, made by `bluffscope.per_read` or from a function of a `Measurement` and the
            columns it returns.
        out: folder for the run's files; without it nothing is kept but the table.
        **options: any option of `bluffscope analyze` by its name with underscores: ``model``,
            ``sae``, ``layers``, ``batch_size``, ``noise_sweep``, ...

    Returns:
        The table that the run's metrics.parquet holds; quarantined pairs are not in it.

    Raises:
        InputError: options or data that cannot be used, in one line.
        TypeError: an option that does not exist.

    Example:
        >>> import bluffscope
        >>> table = bluffscope.analyze(limit=4)
        >>> table["l2_fact_l0_norm"].len()
        4
    """
    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        if not isinstance(data, str | Path):
            data = write_pairs(data, Path(scratch) / "pairs.jsonl")
        config = config_from(data=str(data), out=out if out is not None else Path(scratch) / "run", **options)
        named = load_analyses(config.measure.analysis)
        return measure(config, analyses=tuple(analyses), added=(*added, *named)).metrics()


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
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    draw: bool = True,
) -> CompletedRun:
    """Measure, compare with float32 where the options ask for it, and close the run with its statistics and report.

    Args:
        config: as for `bluffscope.runs.run.run`, which does the measuring; so are `analyses`, `added` and `progress`.
        analyses: which of the five analyses run.
        added: analyses of the user's own.
        progress: called with the number of pairs just done.
        tell: called with each step as it begins.
        draw: whether statistics and report.html are made (it takes seconds).

    Raises:
        InputError: something in the options or the data; nothing is written (but for a run that is complete when its
            fidelity cannot be measured).
        RunFolderError, QuarantineLimitError, RunStopped: as for `bluffscope.runs.run.run`.
    """
    started = time.perf_counter()
    tell = tell or (lambda _: None)
    check_fidelity(config)
    measured = measure(config, analyses=analyses, added=added, progress=progress, tell=tell)
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


def config_from(**options: Any) -> RunConfig:
    """A `RunConfig` from options by name, whichever part they belong to.

    Raises:
        TypeError: an option that does not exist.
        InputError: a value of the wrong type.
    """
    parts: dict[str, Any] = {}
    defaults = RunConfig()
    for part in fields(RunConfig):
        group = getattr(defaults, part.name)
        names = {field.name for field in fields(group)}
        chosen = {name: options.pop(name) for name in list(options) if name in names}
        parts[part.name] = with_values(group, chosen)
    if options:
        raise TypeError(f"unknown option {next(iter(options))!r}: expected a flag of `bluffscope analyze`")
    return RunConfig(**parts)


__all__ = ["CompletedRun", "analyze", "config_from", "run"]
