"""`bluffscope report`: a run's page, and figures if wanted, from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.options import parsed, refuse_repeated
from bluffscope.config import expectation
from bluffscope.host.quiet import check_docstrings

_PROGRAM = "bluffscope report"
_DESCRIPTION = """Write report.html of a run again. Statistics are computed where the folder has none;
those that are there are shown as they are."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Which run."""

    run: tyro.conf.Positional[Path]
    """A run's folder."""
    figures: bool = False
    """Also write the charts as PNG and SVG, in figures/."""


def main(arguments: Sequence[str]) -> int:
    """Parse the options, write, and print the answer and where the page is; gives the exit code."""
    refuse_repeated(arguments)

    def gather(options: Annotated[ReportOptions, tyro.conf.arg(name="")]) -> ReportOptions:
        return options

    expected = partial(expectation, groups=(ReportOptions,))
    options = parsed(gather, arguments, _PROGRAM, _DESCRIPTION, expected)
    check_docstrings()
    # Polars and scipy take seconds to import: --help and a mistyped flag should not.
    from bluffscope.report.write import write_report

    with messages_on(message_console()):
        report = write_report(options.run, figures=options.figures)
    console = output_console()
    console.print(Text(report.sentence, style="bold"))
    lines = [f"Figures: {report.figures[0].parent} ({len(report.figures)} files)"] if report.figures else []
    for line in [*lines, f"Report: {report.path}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return exit_codes.DONE


__all__ = ["ReportOptions", "main"]
