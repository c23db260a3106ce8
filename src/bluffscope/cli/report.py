"""`bluffscope report`: a run's page, and figures if wanted, from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.options import Command
from bluffscope.host.quiet import check_docstrings


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write a run's report.html again. Reuses existing statistics; computes any that are missing."""

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    figures: bool = False
    """Also write the charts as PNG and SVG, in figures/."""

    def execute(self) -> int:
        """Write, and print the answer and where the page is."""
        check_docstrings()
        # Polars and scipy take seconds to import: --help and a mistyped flag should not.
        from bluffscope.report.write import write_report

        with messages_on(message_console()):
            report = write_report(self.run, figures=self.figures)
        console = output_console()
        console.say(report.sentence, style="bold")
        if report.figures:
            console.say(f"Figures: {report.figures[0].parent} ({len(report.figures)} files)")
        console.say(f"Report: {report.path}")
        return exit_codes.DONE


COMMAND = Report
