"""What a health check says: expected, seen, what it means and what to do; and all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

Severity = Literal["ok", "note", "warning", "error"]
"""An error stops verdicts, a warning is shown; a note says what could not be checked, and why."""

_ORDER: Final[tuple[Severity, ...]] = ("error", "warning", "note", "ok")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row of the health table."""

    check: str
    """What was looked at, in a few words."""
    layer: int | None = None
    """The layer it is about, as the user named it; None where it is about all."""
    severity: Severity = "ok"
    expected: str
    seen: str
    means: str = ""
    """What it means for the numbers; kept where something is wrong only."""
    do: str = ""
    """What to do about it; the same."""

    def __post_init__(self) -> None:
        # Here, so that a check is written once and not once for each outcome.
        if self.severity not in ("error", "warning"):
            for name in ("means", "do"):
                object.__setattr__(self, name, "")

    @property
    def title(self) -> str:
        """The check's name with its layer."""
        return self.check if self.layer is None else f"{self.check}, layer {self.layer}"

    @property
    def message(self) -> str:
        """The whole row as a sentence or two."""
        text = f"{self.title}: expected {self.expected}, seen {self.seen}"
        return ". ".join(part.rstrip(".") for part in (text, self.means, self.do) if part)

    def entry(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {
            "check": self.check,
            "layer": self.layer,
            "severity": self.severity,
            "expected": self.expected,
            "seen": self.seen,
            "means": self.means,
            "do": self.do,
            "message": self.message,
        }


@dataclass(frozen=True)
class Health:
    """Everything that was checked."""

    checks: tuple[Check, ...]
    """In the order of a run: set-up, tokens, reading, SAE, table."""
    allowed: bool = False
    """Whether verdicts are given although something is wrong (`--allow-unsound`)."""

    @classmethod
    def of(cls, checks: Iterable[Check], *, allowed: bool = False) -> Health:
        """All these checks."""
        return cls(tuple(checks), allowed)

    @property
    def findings(self) -> list[Check]:
        """Errors, then warnings."""
        found = [check for check in self.checks if check.severity in ("error", "warning")]
        return sorted(found, key=lambda check: _ORDER.index(check.severity))

    @property
    def errors(self) -> list[Check]:
        """What makes the numbers unsound."""
        return [check for check in self.checks if check.severity == "error"]

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def entry(self) -> dict[str, Any]:
        """What manifest.json holds under ``health``."""
        return {
            "status": "healthy" if self.sound else "unsound",
            "allowed": self.allowed,
            "findings": [check.entry() for check in self.findings],
            "checks": [check.entry() for check in self.checks],
        }
