"""What the health gate found, on a terminal: from the entry that the manifest holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bluffscope.host.terminal import Cell, table

_STYLES: Final = {"error": "bold red", "warning": "bold yellow", "note": "dim", "ok": "green"}
Entry = Mapping[str, Any]
"""The manifest's ``health``, or a row of it."""


def headline(health: Entry, *, verdicts: bool = True) -> str:
    """The outcome in a line; with `verdicts`, what becomes of them."""
    found = [check.get("severity") for check in health.get("findings", ())]
    errors, warnings = found.count("error"), found.count("warning")
    counts = " and ".join(
        f"{number} {name}{'' if number == 1 else 's'}"
        for number, name in ((errors, "error"), (warnings, "warning"))
        if number
    )
    checks = len(health.get("checks", ()))
    if health.get("status") != "unsound":
        return f"Health: healthy ({checks} checks{', ' + counts if counts else ''})"
    if not verdicts:
        return f"Health: UNSOUND: {counts} in {checks} checks"
    end = "verdicts are shown anyway (--allow-unsound)" if health.get("allowed") else "verdicts are withheld"
    return f"Health: UNSOUND: {counts} in {checks} checks; {end}"


def print_findings(console: Console, health: Entry) -> None:
    """Errors and warnings, each with what it means and what to do; nothing where there are none."""
    for finding in health.get("findings", ()):
        _print_finding(console, finding)


def print_health(console: Console, health: Entry) -> None:
    """All checks as a table, then the findings in full."""
    console.print(_table(health.get("checks", ())))
    print_findings(console, health)


def _print_finding(console: Console, finding: Entry) -> None:
    severity = str(finding.get("severity"))
    line = Text(f"{severity}: ", style=_STYLES.get(severity, ""))
    line.append(f"{_title(finding)}: ", style="bold")
    line.append(f"expected {finding.get('expected')}; seen {finding.get('seen')}", style="not bold default")
    console.print(line, soft_wrap=True)
    for part in ("means", "do"):
        if text := finding.get(part):
            console.print(Text(f"  {text}."), soft_wrap=True)


def _table(checks: Iterable[Entry]) -> Table:
    rows: list[list[Cell]] = []
    for check in checks:
        severity = str(check.get("severity"))
        named = Text(severity, style=_STYLES.get(severity, ""))
        rows.append([named, _title(check), str(check.get("expected")), str(check.get("seen"))])
    return table(["", "check", "expected", "seen"], rows, title="Health", left=range(4))


def _title(check: Entry) -> str:
    layer = check.get("layer")
    return str(check.get("check")) if layer is None else f"{check.get('check')}, layer {layer}"
