"""`bluffscope lint`: what is wrong or doubtful with pairs or labelled texts, as text or JSON."""

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
from bluffscope.cli.console import SEVERITIES, LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.named_file import check_file, write_json
from bluffscope.cli.options import Command
from bluffscope.config import DataOptions, LintConfig
from bluffscope.host.terminal import count, table

if TYPE_CHECKING:
    from bluffscope.linter import Finding, LintReport, ScopeMeasures, TextMeasures

SHOWN_FINDINGS: Final = 5
"""Findings of a code that are printed; JSON has all."""
SHOWN_IDS: Final = 12
SHOWN_SCOPES: Final = 20
_CROSS_VALIDATED: Final = "cross-validated by group (0.5: chance); intervals hold simultaneously."
_OF_TOKENS: Final = {"pairs": "token d_z", "texts": "token g"}


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
    """The pairs or labelled texts to lint."""

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
    from bluffscope.linter import CODES, TextMeasures

    lens = f", in the tokens of {report.tokenizer}" if report.tokenizer else ""
    counts = ", ".join(
        f"{number} {severity}" if severity == "info" else count(number, severity)
        for severity, number in report.as_dict(0)["counts"].items()
        if number
    )
    whole = report.scopes[0]
    groups = count(whole.groups, "group")
    if report.cluster_by != DataOptions.cluster_by:
        groups += f" (--cluster-by {report.cluster_by})"
    labels = f" ({whole.true:,} true, {whole.false:,} false)" if isinstance(whole, TextMeasures) else ""
    rows = count(report.rows, report.noun)
    console.say(f"{report.data}: {rows}{labels} in {groups}{lens}: {counts or 'no finding'}")
    for code, severity in CODES.items():
        if found := report.of(code):
            console.say("")
            console.say(f"{severity}: {code.replace('-', ' ')}", style=SEVERITIES[severity])
            for finding in found[:SHOWN_FINDINGS]:
                console.say(_indented(finding.message, 2, console.width))
                if ids := _ids_line(finding, report.items):
                    console.say(_indented(ids, 4, console.width), style="dim")
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


def _ids_line(finding: Finding, items: str) -> str:
    from bluffscope.pairs.readers import quoted

    shown = ", ".join(quoted(pair)[1:-1] for pair in dict.fromkeys(finding.pairs[:SHOWN_IDS]))
    more = len(finding.pairs) - SHOWN_IDS
    return f"{items}: {shown}{f' and {more:,} more' if more > 0 else ''}" if shown else ""


def _table(report: LintReport) -> Table:
    """The numbers behind the findings, or behind their absence; without columns that no scope has a number for."""
    from bluffscope.linter import TextMeasures

    token = report.tokenizer is not None
    shown = report.scopes[:SHOWN_SCOPES]
    rows = [_of_texts(scope) if isinstance(scope, TextMeasures) else _of_pairs(scope) for scope in shown]
    prompts = any(row.get("prompt AUROC", "-") != "-" for row in rows)
    left_out = [head for head, known in ((_OF_TOKENS[report.items], token), ("prompt AUROC", prompts)) if not known]
    heads = [head for head in rows[0] if head not in left_out]
    return table(heads, [[row[head] for head in heads] for row in rows], gap=2)


def _of_pairs(scope: ScopeMeasures) -> dict[str, str]:
    from bluffscope.pairs.readers import quoted

    return {
        "scope": quoted(scope.scope)[1:-1],
        "pairs": f"{scope.pairs:,}",
        "groups": f"{scope.groups:,}",
        "longer/shorter": _shares(scope.longer, scope.shorter),
        "length d_z": _number(scope.length_dz),
        "token d_z": _number(scope.token_dz),
        "negation f/h": _shares(scope.negations_fact, scope.negations_hall),
        "text AUROC": _auroc(scope.auroc, scope.auroc_lo, scope.auroc_hi),
    }


def _of_texts(scope: TextMeasures) -> dict[str, str]:
    from bluffscope.pairs.readers import quoted

    return {
        "scope": quoted(scope.scope)[1:-1],
        "true": f"{scope.true:,}",
        "false": f"{scope.false:,}",
        "groups": f"{scope.groups:,}",
        "length g": _number(scope.length.g),
        "token g": _number(scope.tokens.g),
        "negation t/f": _shares(scope.negations_true, scope.negations_false),
        "text AUROC": _auroc(scope.auroc, scope.auroc_lo, scope.auroc_hi),
        "prompt AUROC": _auroc(scope.prompt_auroc, scope.prompt_auroc_lo, scope.prompt_auroc_hi),
    }


def _shares(one: float, other: float) -> str:
    return f"{100 * one:.0f} % / {100 * other:.0f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _auroc(value: float | None, lo: float | None, hi: float | None) -> str:
    return "-" if value is None else f"{value:.2f} [{lo:.2f}, {hi:.2f}]"


def _notes(report: LintReport) -> Iterator[str]:
    from bluffscope.linter import ScopeMeasures

    sampled: list[int] = []
    if report.items == "pairs":
        yield "longer/shorter: hallucinations with more / fewer characters than the fact; f/h: facts, hallucinations."
        yield f"text AUROC: completion text alone, {_CROSS_VALIDATED}"
    else:
        yield "g: mean length of false texts less that of true ones, in standard deviations; t/f: true, false."
        yield f"text AUROC, prompt AUROC: words of completions or of prompts alone, {_CROSS_VALIDATED}"
    for scope in report.scopes:
        pairs = isinstance(scope, ScopeMeasures)
        seen, there = (scope.auroc_pairs, scope.pairs) if pairs else (scope.auroc_texts, scope.texts)
        if scope.auroc is not None and seen < there:
            sampled.append(seen)
    if sampled:
        most = f"at most {max(sampled):,} {report.items}"
        yield f"The text classifier saw a sample of {most} of each scope (seed {report.seed})."
    if (more := len(report.scopes) - SHOWN_SCOPES) > 0:
        yield f"Not shown: {more:,} more domains; --json FILE has all."
