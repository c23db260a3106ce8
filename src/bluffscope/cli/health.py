"""What the health gate found, on a terminal: from the entry that the manifest holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from bluffscope.cli import exit_codes
from bluffscope.cli.console import SEVERITIES
from bluffscope.host.terminal import table

if TYPE_CHECKING:
    from bluffscope.table.health import Health

Entry = Mapping[str, Any]
"""The manifest's ``health``, or a row of it."""


def print_findings(console: Console, health: Entry) -> None:
    """Errors and warnings, each with what it means and what to do; nothing where there are none."""
    for finding in health.get("findings", ()):
        line = _severity(finding, ": ")
        line.append(f"{_title(finding)}: ", style="bold")
        line.append(f"expected {finding.get('expected')}; seen {finding.get('seen')}", style="not bold default")
        console.print(line, soft_wrap=True)
        for part in ("means", "do"):
            if text := finding.get(part):
                console.print(Text(f"  {text}."), soft_wrap=True)


def print_health(console: Console, health: Entry) -> None:
    """All checks as a table, then the findings in full."""
    rows = [
        (_severity(check), _title(check), str(check.get("expected")), str(check.get("seen")))
        for check in health.get("checks", ())
    ]
    console.print(table(["", "check", "expected", "seen"], rows, title="Health", left=range(4)))
    print_findings(console, health)


def print_failed_gate(console: Console, health: Health) -> None:
    """A warning above a run's results, where it failed its health gate."""
    if health.failures:
        warning = f"The run failed its health gate: {'; '.join(health.failures)}. See bluffscope doctor."
        console.print(warning, style="bold red", markup=False, highlight=False)


def exit_code(health: Health, *, allowed: bool = False) -> int:
    """4 where the run failed its gate and verdicts are withheld, else 0."""
    return exit_codes.UNSOUND if health.withheld and not allowed else exit_codes.DONE


def _severity(check: Entry, end: str = "") -> Text:
    severity = str(check.get("severity"))
    return Text(f"{severity}{end}", style=SEVERITIES.get(severity, ""))


def _title(check: Entry) -> str:
    layer = check.get("layer")
    return str(check.get("check")) if layer is None else f"{check.get('check')}, layer {layer}"
