"""`bluffscope report`: a run's page, and figures if wanted, from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.brief import print_brief
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.health import print_findings
from bluffscope.cli.options import Command, ScreenOptions
from bluffscope.cli.progress import shown_progress
from bluffscope.host.quiet import check_docstrings

if TYPE_CHECKING:
    from bluffscope.report.write import Report as WrittenReport


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write a run's report.html again. Reuses existing statistics; computes any that are missing."""

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    figures: bool = False
    """Also write the charts as PNG and SVG, in figures/."""
    screen: ScreenOptions = field(default_factory=ScreenOptions)
    """How much is printed."""

    def execute(self) -> int:
        """Write, and print the answer and where the page is."""
        check_docstrings()
        self.screen.check()
        report = reported(self.run, self.screen, figures=self.figures)
        console = output_console()
        if self.screen.quiet:
            console.say(str(report.path))
            return exit_codes.DONE
        figures = f"Figures: {report.figures[0].parent} ({len(report.figures)} files)" if report.figures else None
        if self.screen.full or self.screen.verbose:
            _print_more(console, self.run, self.screen)
        print_brief(console, report.answer, *filter(None, (figures,)), f"Report: {report.path}")
        return exit_codes.DONE


def reported(run: Path, screen: ScreenOptions, *, figures: bool = False, detectors: bool = False) -> WrittenReport:
    """Write a run's page, with progress on the terminal.

    Args:
        run: its folder.
        screen: how much is printed.
        figures: whether the charts are written too.
        detectors: whether detectors are fitted however many texts there are.
    """
    messages = message_console()
    with shown_progress(messages, quiet=screen.quiet) as progress:
        progress.tell("Report: reading the run")
        # Polars and scipy take seconds to import: --help and a mistyped flag should not.
        from bluffscope.report.write import write_report

        with messages_on(messages, notes=not screen.quiet):
            return write_report(run, figures=figures, tell=progress.tell, detectors=detectors)


def _print_more(console: LastingConsole, path: Path, screen: ScreenOptions) -> None:
    """The summary of every metric with --full, health and timings with --verbose."""
    from bluffscope.report import render_summary
    from bluffscope.report.timings import read_timings
    from bluffscope.stats.sampling import read_metrics
    from bluffscope.table.reader import read_run

    run = read_run(path)
    if screen.full:
        console.print(render_summary(read_metrics(path)[0], run.measured))
    if screen.verbose:
        print_findings(console, run.manifest.get("health") or {})
        stages = read_timings(run.manifest).stages.items()
        console.say(f"Seconds by stage: {' | '.join(f'{stage} {seconds:.1f}' for stage, seconds in stages)}", "")


COMMAND = Report
