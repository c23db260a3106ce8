"""What a health check says: expected, seen, what it means and what to do; and all of them together."""

from __future__ import annotations

import operator
import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Severity = Literal["ok", "note", "warning", "error"]
"""An error stops verdicts, a warning is shown; a note says what could not be checked, and why."""


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
    """What it means for the numbers; only where something is wrong."""
    do: str = ""
    """What to do about it; the same."""
    about: Literal["run", "SAEs"] = "run"
    """Whether all that was measured is in doubt where it fails, or only what was measured through SAEs."""

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
        return asdict(self) | {"message": self.message}


@cache
def declared() -> dict[str, dict[str, Any]]:
    """The checks of checks.toml by title."""
    return tomllib.loads(resources.files("bluffscope.health").joinpath("checks.toml").read_text("utf-8"))


def found(title: str, severity: Severity | bool, seen: str, *, layer: int | None = None, **words: object) -> Check:
    """The outcome of a declared check.

    Args:
        title: of the check in checks.toml.
        severity: how bad it is; True and False stand for "error" and "ok".
        seen: what was found.
        layer: the layer it is about.
        words: what is in braces in its texts.
    """
    declaration = {"check": title} | declared()[title]
    given = declaration | words | {"layer": layer}
    grade = severity if isinstance(severity, str) else "error" if severity else "ok"
    names = ("check", "expected", "means", "do") if grade in ("warning", "error") else ("check", "expected")
    texts = {name: str(declaration.get(name, "")).format(**given) for name in names}
    about: Any = declaration.get("about", "run")
    return Check(layer=layer, severity=grade, seen=seen, about=about, **texts)


def judged(title: str, value: float, seen: str, *, layer: int | None = None, **words: object) -> Check:
    """The outcome of a declared check of a value that has limits; arguments as for `found`."""
    return found(title, graded(title, value), seen, layer=layer, **words)


def graded(title: str, value: float) -> Severity:
    """How bad a value is by the limits of a declared check; NaN fails only where values should not fall below them."""
    check = declared()[title]
    warning, error = check["warning"], check["error"]
    if error < warning:
        return "error" if not value >= error else "warning" if value < warning else "ok"
    exceeds = operator.ge if check.get("inclusive") else operator.gt
    return "error" if exceeds(value, error) else "warning" if exceeds(value, warning) else "ok"


@dataclass(frozen=True)
class Health:
    """Everything that was checked."""

    checks: tuple[Check, ...]
    """In the order of a run: set-up, tokens, reading, SAE, table."""
    allowed: bool = False
    """Whether verdicts are given although something is wrong (`--allow-unsound`)."""

    @property
    def findings(self) -> list[Check]:
        """Errors, then warnings."""
        return [check for severity in ("error", "warning") for check in self.checks if check.severity == severity]

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return all(check.severity != "error" for check in self.checks)

    def entry(self) -> dict[str, Any]:
        """What manifest.json holds under ``health``."""
        return {
            "status": "healthy" if self.sound else "unsound",
            "allowed": self.allowed,
            "findings": [check.entry() for check in self.findings],
            "checks": [check.entry() for check in self.checks],
        }
