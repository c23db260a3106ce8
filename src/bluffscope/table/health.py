"""What a run's health gate found, read from its manifest: one reading for statistics, report and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bluffscope.host.terminal import count

UNSOUND: Final = "unsound"


@dataclass(frozen=True)
class HealthFinding:
    """One thing that a check noticed."""

    severity: str
    """"error" (what makes a run unsound) or "warning"."""
    message: str
    """A sentence: what was expected and what was seen."""
    means: str = ""
    """What it means for the numbers."""
    do: str = ""
    """What to do."""
    about: str = ""
    """"SAEs" where what needs no SAE is sound all the same."""


@dataclass(frozen=True)
class Health:
    """The health gate of a run."""

    ran: bool = False
    unsound: bool = False
    allowed: bool = False
    """Verdicts were asked for all the same (``--allow-unsound``)."""
    findings: tuple[HealthFinding, ...] = ()
    """Errors first."""

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the gate failed, a sentence each; nothing where it passed or did not run."""
        errors = tuple(finding.message for finding in self.findings if finding.severity == "error")
        return (errors or ("the health gate failed",)) if self.unsound else ()

    @property
    def of_saes(self) -> bool:
        """Whether the gate failed over SAEs alone, so that what needs none is sound."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        return bool(errors) and all(finding.about == "SAEs" for finding in errors)

    @property
    def withheld(self) -> tuple[str, ...]:
        """`failures`, where they stop verdicts."""
        return () if self.allowed else self.failures


def outcome(health: Mapping[str, Any], *, verdicts: bool = True) -> str:
    """The outcome in a line, of a manifest's ``health``; with `verdicts`, whether they are shown."""
    found = [check.get("severity") for check in health.get("findings", ())]
    counts = " and ".join(count(number, name) for name in ("error", "warning") if (number := found.count(name)))
    checks = len(health.get("checks", ()))
    if health.get("status") != UNSOUND:
        return f"Health: healthy ({checks} checks{', ' + counts if counts else ''})"
    if not verdicts:
        return f"Health: UNSOUND: {counts} in {checks} checks"
    end = "verdicts are shown anyway (--allow-unsound)" if health.get("allowed") else "verdicts are withheld"
    return f"Health: UNSOUND: {counts} in {checks} checks; {end}"


def read_health(manifest: Mapping[str, Any]) -> Health:
    """The health gate of a run.

    Args:
        manifest: its ``health`` holds ``status`` ("healthy" or "unsound"), ``allowed``, and ``findings``, each with
            ``check, severity, expected, seen, means, do, message``; empty where the gate did not run.
    """
    health: Mapping[str, Any] = manifest.get("health") or {}
    findings = [
        HealthFinding(*(str(item.get(name) or "") for name in ("severity", "message", "means", "do", "about")))
        for item in health.get("findings") or ()
    ]
    findings.sort(key=lambda finding: finding.severity != "error")
    status = health.get("status")
    return Health(status is not None, status == UNSOUND, bool(health.get("allowed")), tuple(findings))
