"""What the numbers of one metric in one scope allow to say (docs/statistics.md): pure rules, the first that holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

from bluffscope.stats.effects import ALPHA
from bluffscope.stats.length_control import EQUIVALENT_DZ, MIN_EACH_SIDE, LengthState

MIN_PAIRS: Final = 5
EQUIVALENCE_PAIRS: Final = 70
"""Below about this many pairs no effect, not even 0, can be shown to lie within `EQUIVALENT_DZ`."""

Name = Literal["separates", "confounded", "equivalent", "inconclusive"]
NAMES: Final[tuple[Name, ...]] = ("separates", "confounded", "equivalent", "inconclusive")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one metric in one scope; None where it is not defined."""

    n: int
    not_interpretable: str = ""
    """Why the metric means nothing, so that it was corrected with no other; empty where it does."""
    varies: bool
    """Whether the differences have any spread."""
    lengths: LengthState
    dz: float | None = None
    q: float | None = None
    q_grouped: float | None = None
    """As `q`, of the same test with groups of pairs as its units."""
    adj_dz: float | None = None
    adj_q: float | None = None
    adj_q_grouped: float | None = None
    """As `adj_q`, with groups of pairs as the units."""
    equivalence_p: float | None = None
    mde80: float | None = None
    n_equal_length: int | None = None
    equal_length_dz: float | None = None


_FROM_ELSEWHERE: Final = ("not_interpretable", "varies", "lengths")
MEASURED_EVIDENCE: Final = tuple(field.name for field in fields(Evidence) if field.name not in _FROM_ELSEWHERE)
"""What is measured under the same names."""


class Verdict(NamedTuple):
    """A word and why."""

    verdict: Name
    reason: str
    """One sentence without its end."""


def judge(evidence: Evidence) -> Verdict:
    """The verdict of one metric in one scope."""
    if why := _unusable(evidence):
        return Verdict("inconclusive", why)
    dz, adj_dz = evidence.dz, evidence.adj_dz
    assert dz is not None and adj_dz is not None  # what `_unusable` lets through has both
    raw, adjusted = _found(evidence.q), _found(evidence.adj_q)
    numbers = f"d_z {dz:+.2f} (q {_p(evidence.q)}), at equal lengths {adj_dz:+.2f} (q {_p(evidence.adj_q)})"
    if evidence.lengths == "equal":
        numbers = f"d_z {dz:+.2f} (q {_p(evidence.q)}), all lengths equal"
    grouped = _found(evidence.q_grouped) and _found(evidence.adj_q_grouped)
    if raw and adjusted and grouped and dz * adj_dz > 0:
        return Verdict("separates", numbers + _stratum(evidence))
    if raw and not adjusted and abs(adj_dz) < abs(dz) / 2:
        return Verdict("confounded", f"length accounts for more than half of it: {numbers}")
    if evidence.equivalence_p is not None and evidence.equivalence_p < ALPHA:
        within = f"the effect at equal lengths lies within {EQUIVALENT_DZ} of 0 (p {_p(evidence.equivalence_p)})"
        return Verdict("equivalent", f"{within}: {numbers}")
    why = _undecided(evidence, raw=raw, adjusted=adjusted, same_sign=dz * adj_dz > 0)
    return Verdict("inconclusive", f"{why}: {numbers}")


def few_pairs(number: int) -> str:
    """What is said of fewer pairs than can be tested."""
    return f"{number} pair{'s' * (number != 1)} with a value on both sides, fewer than {MIN_PAIRS}"


def _unusable(evidence: Evidence) -> str | None:
    """Why nothing can be said, or None."""
    if evidence.not_interpretable:
        return f"not interpretable: {evidence.not_interpretable}"
    if evidence.n < MIN_PAIRS:
        return few_pairs(evidence.n)
    if not evidence.varies:
        return "all differences are equal (zero variance)"
    if evidence.lengths == "unknown":
        return "lengths unknown, so that length cannot be ruled out"
    if evidence.lengths == "one-sided":
        return (
            f"not adjustable for length: fewer than {MIN_EACH_SIDE} pairs have a hallucination no longer than the "
            f"fact, or fewer than {MIN_EACH_SIDE} one no shorter"
        )
    if evidence.dz is None or evidence.adj_dz is None:
        return "not adjustable for length: one pair alone sets the slope, or length explains every difference"
    return None


def _found(q: float | None) -> bool:
    return q is not None and q < ALPHA


def _stratum(evidence: Evidence) -> str:
    """A warning where pairs of equal length, if there are enough to ask, point the other way."""
    dz, equal = evidence.dz, evidence.equal_length_dz
    if dz is None or equal is None or (evidence.n_equal_length or 0) < MIN_EACH_SIDE or dz * equal >= 0:
        return ""
    return f"; but the {evidence.n_equal_length} pairs of equal length point the other way ({equal:+.2f})"


def _undecided(evidence: Evidence, *, raw: bool, adjusted: bool, same_sign: bool) -> str:
    if raw and adjusted and not same_sign:
        return "the effect changes its sign when length is held constant"
    if raw and adjusted and not _found(evidence.q_grouped):
        return f"not shown where pairs that share a text count as one (q {_p(evidence.q_grouped)})"
    if raw and adjusted:
        return f"not shown at equal lengths where pairs that share a text count as one (q {_p(evidence.adj_q_grouped)})"
    if raw:
        return "an effect that length neither accounts for nor leaves standing"
    if adjusted:
        return "an effect at equal lengths only"
    seen = "no effect shown"
    if evidence.mde80 is not None:
        seen += f"; {evidence.n} pairs show d_z {evidence.mde80:.2f} with 80 % power"
    if evidence.n < EQUIVALENCE_PAIRS:
        return f"{seen}, and fewer than about {EQUIVALENCE_PAIRS} cannot show that there is none"
    return seen


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
