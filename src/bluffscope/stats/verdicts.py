"""What the numbers of one metric in one scope allow to say (docs/statistics.md): pure rules, the first that holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

from bluffscope.pairs.links import FEWEST_CLUSTERS
from bluffscope.stats.effects import ALPHA
from bluffscope.stats.held_constant import MIN_EACH_SIDE
from bluffscope.stats.scopes import Of

MIN_PAIRS: Final = 5
EQUIVALENT_DZ: Final = 0.2
"""Effects within so many standard deviations of 0 are negligible."""
EQUIVALENCE_PAIRS: Final = 70
"""Below about this many pairs no effect, not even 0, can be shown to lie within `EQUIVALENT_DZ`."""

NO_VARIANCE: Final = "all differences are equal (zero variance)"
NO_VARIANCE_BETWEEN: Final = "the differences of every cluster have the same mean (zero variance between clusters)"
_COMPARED: Final = {"pairs": "differences", "texts": "values"}

Name = Literal["separates", "confounded", "equivalent", "inconclusive"]
NAMES: Final[tuple[Name, ...]] = ("separates", "confounded", "equivalent", "inconclusive")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one metric in one scope; None where it is not defined."""

    n: int
    barred: str | None = None
    """Why it cannot be judged (`barring`); None where it can."""
    held: str = "length"
    """What is held constant, in words."""
    of: Of = "pairs"
    """What n counts."""
    mean_diff: float | None = None
    dz: float | None = None
    adj_mean_diff: float | None = None
    adj_dz: float | None = None
    q: float | None = None
    """Of the larger of the raw and the adjusted p value."""
    raw_q: float | None = None
    adj_q: float | None = None
    skew_q: float | None = None
    """As `q`, with an allowance for skewness that the sample may hide."""
    equivalence_q: float | None = None
    mde80: float | None = None
    n_equal_length: int | None = None
    equal_length_dz: float | None = None

    @property
    def symbol(self) -> str:
        """The standardised effect's name."""
        return "d_z" if self.of == "pairs" else "g"


MEASURED_EVIDENCE: Final = tuple(field.name for field in fields(Evidence) if field.name not in ("barred", "held", "of"))
"""What is measured under the same names."""


class Verdict(NamedTuple):
    """A word and why."""

    verdict: Name
    reason: str
    """One sentence without its end."""


def barring(
    number: int, clusters: int, *, varies: bool, not_interpretable: str, barred: str | None, of: Of = "pairs"
) -> str | None:
    """Why a metric cannot be judged, or None where it can.

    Args:
        number: of pairs with a value on both sides, or of texts with one.
        clusters: of them.
        varies: whether the differences (of texts, the values) have any spread.
        not_interpretable: why the metric means nothing; empty where it does.
        barred: why the effect at equal length and wording cannot be had, if so.
        of: what is counted.
    """
    if not_interpretable:
        return f"not interpretable: {not_interpretable}"
    if number < MIN_PAIRS:
        return few_pairs(number)
    if not varies:
        return in_words_of(of, NO_VARIANCE)
    if clusters < FEWEST_CLUSTERS:
        return few_clusters(clusters, of)
    return barred


def judge(evidence: Evidence) -> Verdict:
    """The verdict of one metric in one scope."""
    if evidence.barred is not None:
        return Verdict("inconclusive", evidence.barred)
    raw, adjusted = evidence.mean_diff, evidence.adj_mean_diff
    assert raw is not None and adjusted is not None  # what is not barred has both
    numbers = _numbers(evidence)
    differs = _found(evidence.raw_q) or _found(evidence.adj_q)
    if _found(evidence.equivalence_q):
        within = f"within {EQUIVALENT_DZ} sd of 0, raw and adjusted (q {_p(evidence.equivalence_q)})"
        return Verdict("equivalent", f"{'real but negligible: ' if differs else ''}{within}: {numbers}")
    same_sign = raw * adjusted > 0
    if _found(evidence.q) and _found(evidence.skew_q) and same_sign:
        return Verdict("separates", numbers + _stratum(evidence))
    if _found(evidence.raw_q) and not _found(evidence.adj_q) and abs(adjusted) < abs(raw) / 2:
        return Verdict("confounded", f"{evidence.held} accounts for more than half of it: {numbers}")
    return Verdict("inconclusive", f"{_undecided(evidence, same_sign=same_sign)}: {numbers}")


def few_pairs(number: int) -> str:
    """What is said of fewer pairs than can be tested."""
    return f"{number} pair{'s' * (number != 1)} with a value on both sides, fewer than {MIN_PAIRS}"


def few_clusters(number: int, of: Of = "pairs") -> str:
    """What is said of fewer clusters than can be judged."""
    what = "pairs that share no text" if of == "pairs" else of
    return f"only {number} cluster{'s' * (number != 1)} of {what}, fewer than {FEWEST_CLUSTERS}"


def in_words_of(of: Of, sentence: str) -> str:
    """A sentence on the differences of pairs, or the same on the values of texts."""
    return sentence.replace(_COMPARED["pairs"], _COMPARED[of])


def _numbers(evidence: Evidence) -> str:
    raw = f"{evidence.symbol} {evidence.dz:+.2f} (q {_p(evidence.raw_q)})"
    if evidence.held == "nothing":
        return f"{raw}, all lengths equal"
    where = {"length": "at equal length", "the completion": "at equal wording"}
    held = where.get(evidence.held, "at equal length and wording")
    return f"{raw}, {held} {evidence.adj_dz:+.2f} (q {_p(evidence.adj_q)})"


def _found(q: float | None) -> bool:
    return q is not None and q < ALPHA


def _stratum(evidence: Evidence) -> str:
    """A warning where pairs of equal length, if there are enough to ask, point the other way."""
    dz, equal = evidence.dz, evidence.equal_length_dz
    if dz is None or equal is None or (evidence.n_equal_length or 0) < MIN_EACH_SIDE or dz * equal >= 0:
        return ""
    return f"; but the {evidence.n_equal_length} pairs of equal length point the other way ({equal:+.2f})"


def _undecided(evidence: Evidence, *, same_sign: bool) -> str:
    raw, adjusted, held = _found(evidence.raw_q), _found(evidence.adj_q), evidence.held
    if raw and adjusted and not same_sign:
        return f"the effect changes its sign when {held} is held constant"
    if _found(evidence.q) or (raw and adjusted and held == "nothing"):
        skewed = f"significant only if the {_COMPARED[evidence.of]} are not skewed, which so few cannot show"
        return f"{skewed} (q {_p(evidence.skew_q)})"
    if raw and adjusted:
        return f"significant by either test, but not by both at once (q {_p(evidence.q)})"
    if raw:
        return f"an effect that {held} neither accounts for nor leaves standing"
    if adjusted:
        return f"an effect only where {held} is held constant"
    seen = "no effect shown"
    if evidence.mde80 is not None:
        seen += f"; {evidence.n} independent {evidence.of} show {evidence.symbol} {evidence.mde80:.2f} with 80 % power"
    if evidence.of == "pairs" and evidence.n < EQUIVALENCE_PAIRS:
        return f"{seen}, and fewer than about {EQUIVALENCE_PAIRS} cannot show that there is none"
    return seen


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
