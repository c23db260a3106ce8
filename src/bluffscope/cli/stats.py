"""`bluffscope stats`: a run's folder, or any table, to verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import Command
from bluffscope.config import DataOptions
from bluffscope.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from bluffscope.stats import StatsResult
    from bluffscope.table.health import Health
    from bluffscope.table.reader import Run


@dataclass(frozen=True, kw_only=True)
class Stats(Command):
    """Test whether any metric of a run, or of any other table, separates fact from hallucination."""

    table: tyro.conf.Positional[Path]
    """The folder of a run, or a .parquet or .csv table with fact and hallucination columns."""
    pairs: str | None = None
    """The pairs that the table was measured from; they add what the table lacks: lengths (in characters), groups,
    domains and other columns."""
    columns: tuple[str, ...] = ()
    """Map field names of --pairs, as KEY=NAME; see bluffscope analyze."""
    by_order: bool = False
    """Match rows and --pairs by order, not by a column of ids."""
    by: tuple[str, ...] = ()
    """Also test each value of these columns separately."""
    family: Literal["scope", "all"] = "scope"
    """Correct for multiple testing within each scope, or across all metrics and scopes."""
    control: Literal["none", "null", "planted"] = "none"
    """Also test the method on this table: with flipped labels (false positives) or a planted effect (power)."""
    detectors: bool = False
    """Also fit detectors and baselines, cross-validated by group; some require the folder of a run."""
    allow_unsound: bool = False
    """Show verdicts even if the run failed its health gate."""
    seed: int = 0
    """Seed for bootstrap, permutations and controls."""
    out: Path | None = None
    """Folder for stats.parquet and stats.json (default: the folder of the run or table)."""

    def execute(self) -> int:
        """Test, write, print."""
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a number from 0")
        return stats(self)


def stats(options: Stats) -> int:
    """Test a table and say what came of it."""
    # Polars and scipy take a second to import: --help and a mistyped flag should not.
    from bluffscope.detectors.evaluate import detect_in
    from bluffscope.report.result_files import write_stats
    from bluffscope.report.verdicts import render_verdicts
    from bluffscope.stats import Resampling, analyse_table
    from bluffscope.stats.analysis import noted
    from bluffscope.stats.sampling import drawn_from

    table, pairs, folder, run = _opened(options)
    note = None if run is None else drawn_from(table.height, run.rows)
    health = _health(run)
    allowed = options.allow_unsound or health.allowed
    withheld = () if allowed else health.failures
    resampling = Resampling(seed=options.seed)
    try:
        result = analyse_table(
            table,
            pairs,
            by=options.by,
            by_order=options.by_order,
            family=options.family,
            control=options.control,
            resampling=resampling,
            withheld=withheld,
        )
        detection = None
        if options.detectors:
            detection = detect_in(table, pairs, run, by=options.by, by_order=options.by_order, resampling=resampling)
    except InputError as error:
        raise InputError(f"{options.table}: {error}") from error
    source = {
        "table": str(options.table),
        "pairs_from": options.pairs,
        "by_order": options.by_order,
        "by": options.by,
        "health": health.failures,
        "allowed_unsound": allowed,
    }
    result = noted(result, note)
    files = write_stats(result, options.out or folder, source, detection)
    console = output_console()
    if health.failures:
        console.print(_banner(health.failures), style="bold red", markup=False, highlight=False)
    console.print(render_verdicts(result))
    if detection is not None:
        from bluffscope.report.detectors import render_detection

        console.print(render_detection(detection))
    if note is not None:
        console.say(note)
    console.say(*_last_lines(options, result, files, run))
    return exit_codes.UNSOUND if withheld else exit_codes.DONE


def _health(run: Run | None) -> Health:
    """What the run's health gate found; nothing for a table without a manifest."""
    from bluffscope.table.health import read_health

    return read_health(run.manifest if run is not None and (run.path / "manifest.json").exists() else {})


def _banner(failures: Sequence[str]) -> str:
    return f"The run failed its health gate: {'; '.join(failures)}. See bluffscope doctor."


def _last_lines(options: Stats, result: StatsResult, files: tuple[Path, Path], run: Run | None) -> Iterator[str]:
    yield f"Statistics: {files[0]}, {files[1].name} ({result.rows.height} rows)"
    if run is not None and not options.detectors:
        yield "No detectors were fitted; use --detectors."
    if run is not None and options.out is None and (run.path / "report.html").exists():
        yield f"report.html is out of date; run `bluffscope report {run.path}`."


def _opened(options: Stats) -> tuple[pl.DataFrame, pl.DataFrame | None, Path, Run | None]:
    """The table, its pairs where they are known, the folder that results go to, and the run."""
    from bluffscope.stats.sampling import pairs_of, read_metrics
    from bluffscope.table.reader import read_run, read_table

    path = options.table
    if options.by_order and (options.pairs is None or path.is_dir() or Path(options.pairs).is_dir()):
        raise InputError("--by-order matches a table with --pairs, a file each: a folder has no order")
    if not path.is_dir():
        return read_table(path), pairs_frame(options.pairs, options.columns), path.parent, None
    run = read_run(path)
    table, _ = read_metrics(path)
    if options.pairs is not None:
        return table, pairs_frame(options.pairs, options.columns), path, run
    return table, pairs_of(path, table) if (path / "pairs.parquet").exists() else None, path, run


def pairs_frame(data: str | None, columns: tuple[str, ...] = ()) -> pl.DataFrame | None:
    """The pairs of a source as a run's pairs.parquet has them, groups included; None for no source.

    Raises:
        InputError: the pairs cannot be read.
    """
    if data is None:
        if columns:
            raise InputError("--columns requires --pairs")
        return None
    import polars as pl

    from bluffscope.pairs import open_source

    source = open_source(DataOptions(data=data, columns=columns))
    scan = source.scan()
    rows: Iterator[dict[str, Any]] = (
        {column.name: pair.extra.get(column.name) for column in scan.carried}
        | {
            "pair_id": pair.id,
            "domain": pair.domain,
            "complexity": pair.complexity,
            "group": str(group),
            "prompt": pair.prompt,
            "fact": pair.fact,
            "hallucination": pair.hallucination,
        }
        for pair, group in zip(source.pairs(), scan.groups, strict=True)
    )
    return pl.DataFrame(list(rows), infer_schema_length=None)


COMMAND = Stats
__all__ = ["COMMAND", "Stats", "pairs_frame", "stats"]
