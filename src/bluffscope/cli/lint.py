"""`bluffscope lint`: what is wrong or doubtful with pairs, as text or JSON."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import tyro
from rich.table import Table

from bluffscope import __version__
from bluffscope.cli import exit_codes
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.named_file import check_file, write_json
from bluffscope.cli.options import Command
from bluffscope.config import DataOptions, LintConfig
from bluffscope.host.terminal import count, table

if TYPE_CHECKING:
    from bluffscope.linter import Finding, LintReport, ScopeMeasures

SHOWN_FINDINGS: Final = 5
"""Findings of a code that are printed; JSON has all."""
SHOWN_PAIRS: Final = 12
SHOWN_SCOPES: Final = 20
_STYLES: Final = {"error": "bold red", "warning": "bold yellow", "info": "bold"}


@dataclass(frozen=True, kw_only=True)
class _Data(DataOptions):
    data: tyro.conf.Positional[str] = "bluff200"
    """A .json, .jsonl, .csv, .tsv or .parquet file (text also as .gz or .zst), a folder of such files, a dataset on the
    Hugging Face Hub (hf://datasets/OWNER/NAME[@REVISION][/PATH]), or the bundled bluff200."""


@dataclass(frozen=True, kw_only=True)
class Lint(LintConfig, Command):
    """Find problems in a data set before any model runs: duplicates, contradictions, cues that leak the label.

    With --model or --preset, also in that model's tokens. Exits with 1 if there is an error.
    """

    data: _Data = field(default_factory=_Data)
    """The pairs to lint."""

    def execute(self) -> int:
        """Lint the data and print what was found; 1 if there is an error among it."""
        check_file("--json", self.output.json)
        # numpy, scipy and scikit-learn take a second to import: --help and a mistyped flag should not.
        from bluffscope.linter.library import lint_with
        from bluffscope.table.folder import as_json

        with messages_on(message_console()):
            report = lint_with(self.data, self.tokenizer)
        content = {"bluffscope": __version__, **report.as_dict()}
        write_json(self.output.json, content)
        if self.output.format == "json":
            sys.stdout.write(as_json(content, indent=2))
        else:
            _print(report, output_console())
        return exit_codes.FAILED if report.failed else exit_codes.DONE


COMMAND = Lint


def _print(report: LintReport, console: LastingConsole) -> None:
    from bluffscope.linter import CODES

    lens = f", in the tokens of {report.tokenizer}" if report.tokenizer else ""
    counts = ", ".join(
        f"{number} {severity}" if severity == "info" else count(number, severity)
        for severity, number in report.as_dict(0)["counts"].items()
        if number
    )
    groups = count(report.scopes[0].groups, "group")
    if report.cluster_by != DataOptions.cluster_by:
        groups += f" (--cluster-by {report.cluster_by})"
    console.say(f"{report.data}: {count(report.rows)} in {groups}{lens}: {counts or 'no finding'}")
    for code, severity in CODES.items():
        if found := report.of(code):
            console.say("")
            console.say(f"{severity}: {code.replace('-', ' ')}", style=_STYLES[severity])
            for finding in found[:SHOWN_FINDINGS]:
                console.say(_indented(finding.message, 2, console.width))
                if pairs := _pairs_line(finding):
                    console.say(_indented(pairs, 4, console.width), style="dim")
            if len(found) > SHOWN_FINDINGS:
                console.say(
                    f"  and {len(found) - SHOWN_FINDINGS:,} more of this kind; --json FILE has all", style="dim"
                )
    console.say("")
    console.print(_table(report))
    console.say(*_notes(report), style="dim")


def _indented(text: str, by: int, width: int) -> str:
    """Wrapped without trailing spaces, which rich's own padding would leave in logs."""
    margin = " " * by
    return textwrap.fill(
        text, width, initial_indent=margin, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def _pairs_line(finding: Finding) -> str:
    from bluffscope.pairs.readers import quoted

    shown = ", ".join(quoted(pair)[1:-1] for pair in dict.fromkeys(finding.pairs[:SHOWN_PAIRS]))
    more = len(finding.pairs) - SHOWN_PAIRS
    return f"pairs: {shown}{f' and {more:,} more' if more > 0 else ''}" if shown else ""


def _table(report: LintReport) -> Table:
    """The numbers behind the findings, or behind their absence."""
    from bluffscope.pairs.readers import quoted

    token = report.tokenizer is not None
    heads = ["scope", "pairs", "groups", "longer/shorter", "length d_z", "token d_z", "negation f/h", "text AUROC"]
    rows = [
        (
            quoted(scope.scope)[1:-1],
            f"{scope.pairs:,}",
            f"{scope.groups:,}",
            f"{100 * scope.longer:.0f} % / {100 * scope.shorter:.0f} %",
            _number(scope.length_dz),
            *([_number(scope.token_dz)] if token else []),
            f"{100 * scope.negations_fact:.0f} % / {100 * scope.negations_hall:.0f} %",
            _auroc(scope),
        )
        for scope in report.scopes[:SHOWN_SCOPES]
    ]
    return table([head for head in heads if token or head != "token d_z"], rows, gap=2)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _auroc(scope: ScopeMeasures) -> str:
    if scope.auroc is None:
        return "-"
    return f"{scope.auroc:.2f} [{scope.auroc_lo:.2f}, {scope.auroc_hi:.2f}]"


def _notes(report: LintReport) -> Iterator[str]:
    yield "longer/shorter: hallucinations with more / fewer characters than the fact; f/h: facts, hallucinations."
    yield "text AUROC: completion text alone, cross-validated by group (0.5: chance); intervals hold simultaneously."
    if sampled := [scope for scope in report.scopes if scope.auroc is not None and scope.auroc_pairs < scope.pairs]:
        most = max(scope.auroc_pairs for scope in sampled)
        yield f"The text classifier saw a sample of at most {most:,} pairs of each scope (seed {report.seed})."
    if (more := len(report.scopes) - SHOWN_SCOPES) > 0:
        yield f"Not shown: {more:,} more domains; --json FILE has all."
