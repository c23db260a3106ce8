"""`bluffscope stats`: a run's folder, or any table, to verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import tyro

from bluffscope.cli.brief import print_brief
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.health import exit_code, print_failed_gate
from bluffscope.cli.options import Command, ScreenOptions
from bluffscope.cli.progress import shown_progress
from bluffscope.config import DataOptions
from bluffscope.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from bluffscope.detectors.evaluate import Detection
    from bluffscope.stats import StatsResult
    from bluffscope.table.health import Health
    from bluffscope.table.reader import Run


class _Tested(NamedTuple):
    """What came of a table."""

    result: StatsResult
    detection: Detection | None
    run: Run | None
    """The table's run, where it has one."""
    health: Health
    note: str | None
    """On the items that were tested, where not all."""
    source: dict[str, Any]
    """What was tested, and how, as stats.json says it."""
    files: tuple[Path, Path]


@dataclass(frozen=True, kw_only=True)
class Stats(Command):
    """Test whether any metric of a run, or of a table of pairs or labelled texts, separates true from false."""

    table: tyro.conf.Positional[Path]
    """The folder of a run, or a .parquet or .csv table: with fact and hallucination columns, or with a column label."""
    pairs: str | None = None
    """The pairs that the table was measured from; they add what the table lacks: lengths (in characters), groups,
    domains and other columns."""
    columns: tuple[str, ...] = ()
    """Map field names of --pairs, as KEY=NAME; see bluffscope analyze."""
    cluster_by: str | None = None
    """Cluster by prompt, completion or both (needs the texts), or by a column (default: group, else both)."""
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
    """Seed for permutations, controls and detectors' folds."""
    out: Path | None = None
    """Folder for stats.parquet and stats.json (default: the folder of the run or table)."""
    screen: ScreenOptions = field(default_factory=ScreenOptions)
    """How much is printed."""

    def execute(self) -> int:
        """Test, write, print."""
        self.screen.check()
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a number from 0")
        messages = message_console()
        with shown_progress(messages, quiet=self.screen.quiet) as progress:
            progress.tell("Testing effects")
            with messages_on(messages, notes=not self.screen.quiet):
                found = self._tested(progress.tell)
        where = [f"Statistics: {found.files[0]}, {found.files[1].name} ({found.result.rows.height} rows)"]
        if found.run is not None and self.out is None and (found.run.path / "report.html").exists():
            where = [f"report.html is out of date; run `bluffscope report {found.run.path}`.", *where]
        console = output_console()
        if self.screen.quiet:
            console.say(str(found.files[0]))
        elif self.screen.full:
            print_failed_gate(console, found.health)
            if found.run is not None and not self.detectors:
                where = ["No detectors were fitted; use --detectors.", *where]
            _print_tables(console, found, where)
        else:
            self._print_brief(console, found, where)
        return exit_code(found.health, allowed=self.allow_unsound)

    def _tested(self, tell: Callable[[str], None]) -> _Tested:
        """Read, test and write."""
        # Polars and scipy take a second to import: --help and a mistyped flag should not.
        from bluffscope.detectors.evaluate import detect_in
        from bluffscope.report.result_files import write_stats
        from bluffscope.stats import Resampling
        from bluffscope.stats.analysis import noted
        from bluffscope.stats.sampling import drawn_from
        from bluffscope.table.health import read_health

        table, pairs, folder, run = self._opened()
        labelled = _labelled(table, run)
        if not labelled and self.out is None and (folder / "texts.parquet").exists():
            raise InputError(
                f"{self.table} lies in a run over labelled texts, whose statistics these would replace: give --out"
            )
        note = None if run is None else drawn_from(table.height, run.rows, of="texts" if labelled else "pairs")
        health = read_health(run.manifest if run is not None and (run.path / "manifest.json").exists() else {})
        allowed = self.allow_unsound or health.allowed
        resampling = Resampling(seed=self.seed)
        withheld = () if allowed else health.failures
        try:
            gate: dict[str, Any] = {"withheld": withheld, "of_saes": health.of_saes}
            found = self._of_texts(table, pairs, run, **gate) if labelled else self._of_pairs(table, pairs, **gate)
            detection = None
            if self.detectors:
                tell("Fitting detectors")
                detection = detect_in(table, pairs, run, by=self.by, by_order=self.by_order, resampling=resampling)
        except InputError as error:
            raise InputError(f"{self.table}: {error}") from error
        source = {
            "table": str(self.table),
            "pairs_from": self.pairs,
            "columns": self.columns,
            "by_order": self.by_order,
            "by": self.by,
            "cluster_by_option": self.cluster_by,
            "health": health.failures,
            "allowed_unsound": allowed,
        }
        result = noted(found, note)
        files = write_stats(result, self.out or folder, source, detection)
        return _Tested(result, detection, run, health, note, source, files)

    def _print_brief(self, console: LastingConsole, found: _Tested, where: list[str]) -> None:
        """The answer; before it what was asked for beyond it."""
        from bluffscope.report.answer import Results, answer
        from bluffscope.report.sides import sided_statistics, words_of_statistics
        from bluffscope.report.verdicts import render_control

        result, run = found.result, found.run
        about, words = {**found.source, **result.about}, words_of_statistics(result.rows)
        results = Results(
            stats=sided_statistics(result.rows),
            words=words,
            path=self.table,
            health=replace(found.health, allowed=bool(about["allowed_unsound"])),
            manifest={} if run is None else run.manifest,
            config={} if run is None else run.config,
            about=about,
            detectors=None if found.detection is None else found.detection.rows,
            n=about[words.items] if run is None else run.rows,
            tested=about[words.items],
            sides=None if words.paired else (about["true"], about["false"]),
        )
        if result.control is not None:
            console.print(render_control(result))
        if self.screen.verbose:
            console.say(f"Correction: {about['corrections']}.", f"Errors: {about['errors']}.", *about["notes"], "")
        print_brief(console, answer(results), *where)

    def _of_pairs(self, table: pl.DataFrame, pairs: pl.DataFrame | None, **gate: Any) -> StatsResult:
        from bluffscope.stats import Resampling, analyse_table

        return analyse_table(
            table,
            pairs,
            by=self.by,
            by_order=self.by_order,
            cluster_by=self.cluster_by,
            family=self.family,
            control=self.control,
            resampling=Resampling(seed=self.seed),
            **gate,
        )

    def _of_texts(self, table: pl.DataFrame, texts: pl.DataFrame | None, run: Run | None, **gate: Any) -> StatsResult:
        from bluffscope.stats import analyse_labelled

        if self.pairs is not None:
            raise InputError(
                "--pairs is for tables of pairs; a table of labelled texts has completion, group and domain"
            )
        return analyse_labelled(
            table,
            texts,
            by=self.by,
            cluster_by=self.cluster_by,
            family=self.family,
            control=self.control,
            seed=self.seed,
            measured=None if run is None else run.measured,
            **gate,
        )

    def _opened(self) -> tuple[pl.DataFrame, pl.DataFrame | None, Path, Run | None]:
        """The table, its pairs or texts where they are known, the folder that results go to, and the run."""
        from bluffscope.stats.sampling import pairs_of, read_metrics
        from bluffscope.table.reader import read_run, read_table

        path = self.table
        if self.by_order and (self.pairs is None or path.is_dir() or Path(self.pairs).is_dir()):
            raise InputError("--by-order matches a table with --pairs, a file each: a folder has no order")
        if self.columns and self.pairs is None:
            raise InputError("--columns requires --pairs")
        pairs = None if self.pairs is None else pairs_frame(self.pairs, self.columns)
        if not path.is_dir():
            return read_table(path), pairs, path.parent, None
        run = read_run(path)
        table, _ = read_metrics(path)
        if pairs is None and (path / f"{run.arrangement.table}.parquet").exists():
            pairs = pairs_of(path, table)
        return table, pairs, path, run


def _print_tables(console: LastingConsole, found: _Tested, where: list[str]) -> None:
    """Every verdict with its reason, and every detector."""
    from bluffscope.report.detectors import render_detection
    from bluffscope.report.verdicts import render_verdicts

    console.print(render_verdicts(found.result))
    if found.detection is not None:
        console.print(render_detection(found.detection))
    console.say(*filter(None, (found.note,)), *where)


def _labelled(table: pl.DataFrame, run: Run | None) -> bool:
    """Whether it is a table of labelled texts."""
    from bluffscope.table.metric_pairs import metric_pairs

    if run is not None:
        return "text_id" in table.columns
    return "label" in table.columns and not metric_pairs(table.columns)


def pairs_frame(data: str, columns: tuple[str, ...] = ()) -> pl.DataFrame:
    """The pairs of a source as a run's pairs.parquet has them, groups included.

    Raises:
        InputError: the pairs cannot be read.
    """
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
