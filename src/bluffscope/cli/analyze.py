"""`bluffscope analyze`: the tool's main job."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.text import Text

from bluffscope.cli import exit_codes
from bluffscope.cli.brief import print_brief
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.dry_run import dry_run
from bluffscope.cli.health import exit_code, print_findings
from bluffscope.cli.main import guarded
from bluffscope.cli.options import RunCommand, ScreenOptions, parse
from bluffscope.cli.progress import shown_progress
from bluffscope.config import EngineOptions, ForecastOptions, RunConfig
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.host.terminal import count
from bluffscope.table.health import outcome

if TYPE_CHECKING:
    from bluffscope.api import CompletedRun
    from bluffscope.metrics import Analysis


@dataclass(frozen=True, kw_only=True)
class Analyze(RunCommand):
    """Measure pairs or labelled texts in a language model; write tables, statistics and a report."""

    forecast: ForecastOptions = field(default_factory=ForecastOptions)
    """Predict a run instead of doing it."""
    screen: ScreenOptions = field(default_factory=ScreenOptions)
    """How much is printed."""

    def execute(self) -> int:
        """Run and print the answer, or predict the run."""
        self.screen.check()
        if self.forecast.dry_run:
            return dry_run(self.config, self.forecast)
        if self.forecast != ForecastOptions():
            raise InputError("--gpus and --gpu-kind require --dry-run")
        return analyze(self.config, screen=self.screen)


@dataclass(frozen=True, kw_only=True)
class Experiment(RunCommand):
    """`bluffscope analyze` with some of the analyses."""

    screen: ScreenOptions = field(default_factory=ScreenOptions)
    """How much is printed."""


def experiment(
    script: str, description: str, names: Sequence[str] = (), batch_size: Literal["auto"] | int = "auto"
) -> int:
    """`bluffscope analyze` as a script of its own, with the script's choice of analyses; returns the exit code.

    Args:
        script: the script's file; its flags are those of `bluffscope analyze`.
        description: what it does, for --help.
        names: the analyses that run, by name; empty for all five.
        batch_size: what holds without --batch-size.
    """
    program = Path(script).name
    default = Experiment(engine=EngineOptions(batch_size=batch_size))

    def action() -> int:
        command: Experiment = parse(Experiment, sys.argv[1:], program, description.strip(), default)
        command.screen.check()
        from bluffscope.metrics import ANALYSES  # polars, which --help should not wait for

        with exclusive():
            chosen = tuple(analysis for analysis in ANALYSES if not names or analysis.name in names)
            return analyze(command.config, chosen, screen=command.screen)

    return guarded(program, action)


def analyze(
    config: RunConfig, analyses: tuple[Analysis, ...] | None = None, *, screen: ScreenOptions | None = None
) -> int:
    """Run with progress on the terminal and print the results; returns the exit code.

    4 if the health gate failed and verdicts are withheld, else 3 if pairs had to be quarantined.

    Args:
        config: the options.
        analyses: which analyses run, or None for all five.
        screen: how much is printed.
    """
    screen = screen or ScreenOptions()
    messages = message_console()
    started = time.perf_counter()
    with shown_progress(messages, quiet=screen.quiet) as progress:
        # Torch and polars take seconds to import: the bar moves by then.
        from bluffscope.api import run
        from bluffscope.host.hub import downloads_reported
        from bluffscope.metrics import ANALYSES
        from bluffscope.metrics.own import load_analyses
        from bluffscope.table.health import read_health

        added = load_analyses(config.measure.analysis)
        downloads = downloads_reported(progress.tell) if progress.moves else nullcontext()
        with messages_on(messages, notes=not screen.quiet), downloads:
            result = run(config, analyses=analyses or ANALYSES, added=added, progress=progress, tell=progress.tell)
    _print(result, time.perf_counter() - started, screen)
    quarantined = exit_codes.QUARANTINED if result.merged.quarantined else exit_codes.DONE
    return exit_code(read_health(result.manifest)) or quarantined


def _print(result: CompletedRun, seconds: float, screen: ScreenOptions) -> None:
    """The answer and where the results are; with --full all tables, with --verbose what the run took and left out."""
    console = output_console()
    made = result.report
    where = [f"Run: {result.path}"] if made is None else [f"Report: {made.path}"]
    if screen.quiet:
        page = result.path / "report.html"
        console.say(str(page if page.exists() else result.path))
    elif result.untouched:
        tables = len(result.merged.tables)
        console.say(f"Nothing to do: {result.path} is complete, and its {tables} tables match their checksums")
    elif screen.full:
        _print_tables(console, result)
        print_findings(console, result.manifest["health"])
        details, hints = _details(result, seconds), [f"Hint: {hint}" for hint in result.manifest["hints"]]
        run = [f"Run: {result.path}"] if made is not None else []
        console.say(*details, outcome(result.manifest["health"]), *hints, *run, *where)
    else:
        if screen.verbose or made is None:
            print_findings(console, result.manifest["health"])
            console.say(*_details(result, seconds), *(f"Hint: {hint}" for hint in result.manifest["hints"]))
        _print_fidelity(console, result)
        if made is None:
            console.say(outcome(result.manifest["health"]), *where)
        else:
            console.say(*([""] if screen.verbose else []))
            print_brief(console, made.answer, *where)


def _print_tables(console: LastingConsole, result: CompletedRun) -> None:
    """The summary of every metric, and the answer."""
    from bluffscope.metrics import ANALYSES
    from bluffscope.report import render_summary
    from bluffscope.stats.sampling import drawn_from, read_metrics

    metrics, total = read_metrics(result.path)
    console.print(render_summary(metrics, result.manifest["metric_versions"]))
    if note := drawn_from(metrics.height, total):
        console.say(note)
    _print_fidelity(console, result)
    if result.report is not None:
        console.print(Text(f"\n{result.report.answer.headline}\n", style="bold"))
    if not result.manifest["saes"]:
        names = ", ".join(analysis.title.lower() for analysis in ANALYSES if analysis.needs_sae)
        console.say(f"Without SAEs: left out are {names}, features and what follows from them")


def _print_fidelity(console: LastingConsole, result: CompletedRun) -> None:
    """What the precision changed, where the options ask for it."""
    from bluffscope.report import render_fidelity

    if result.fidelity is not None:
        console.print(render_fidelity(result.fidelity))


def _details(result: CompletedRun, seconds: float) -> list[str]:
    """Where the time went, and what was left out."""
    from bluffscope.report.timings import read_timings
    from bluffscope.table.reader import Run

    manifest, merged, report = result.manifest, result.merged, result.report
    items = Run(result.path).arrangement.table
    timings = read_timings(manifest, None if report is None else report.seconds)
    taken = seconds if report is None else report.seconds  # as the page says it
    rate = "" if timings.rate is None else f" ({timings.rate:.0f} {items}/sec once loaded)"
    stages = " | ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.stages.items())
    lines = [f"Total time: {taken:.1f} s{rate}", f"Seconds by stage: {stages}"]
    if manifest["workers"] is not None:
        lines.append(_workers_line(manifest["workers"]))
    lines.append(_memory_line(manifest["memory"]))
    if merged.quarantined:
        number = merged.rows + merged.quarantined
        lines.append(f"Quarantined: {merged.quarantined} of {number} {items} (quarantine.parquet):")
        lines += [f"  {number} x {reason}" for reason, number in list(merged.reasons.items())[:5]]
    lint = manifest["lint"]
    if lint.get("headline"):
        of = f" of {lint['rows']:,} {items} in whole groups drawn at random" if "rows_in_all" in lint else ""
        lines.append(f"Lint{of}: {lint['headline']}; see manifest.json")
    return lines


def _workers_line(workers: Mapping[str, Any]) -> str:
    """`Workers: 2, each with 1 thread, 61.2 pairs/sec (1 died on the way)`."""
    number, threads, rate = workers["number"], workers["threads"], workers["pairs_per_second_each"]
    each = count(threads, "thread") + (" and a GPU" if workers["gpu"] else "")
    speed = "" if rate is None else f", {rate:.1f} pairs/sec"
    lost = f" ({workers['lost']} died on the way)" if workers["lost"] else ""
    return f"Workers: {number}, each with {each}{speed}{lost}"


def _memory_line(memory: Mapping[str, int | None]) -> str:
    """`Peak memory: 1.2 GB (predicted 1.3)`."""
    predicted = memory["predicted_bytes"]
    text = f"Peak memory: {(memory['peak_bytes'] or 0) / 1e9:.1f} GB"
    return text if predicted is None else f"{text} (predicted {predicted / 1e9:.1f})"


COMMAND = Analyze
