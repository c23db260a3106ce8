"""Whether labels are balanced, and whether length, negation or domain alone would tell false texts from true ones.

As for pairs, an imbalance must be found by a test over groups and be large enough to matter. The test is the one of the
statistics: the mean difference of false and true texts with cluster-robust errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import f, rankdata

from bluffscope.host.terminal import count
from bluffscope.linter.balance import FALSE_ALARMS, SMALL_DZ, SMALL_NEGATION, smallest_p
from bluffscope.linter.clusters import NAMED, listed_first
from bluffscope.linter.draft import Draft, p_value, percent, where
from bluffscope.linter.findings import Difference, TextMeasures
from bluffscope.linter.labelled.profile import TextProfile
from bluffscope.pairs.links import POOLED
from bluffscope.pairs.readers import quoted
from bluffscope.stats.auroc import areas
from bluffscope.stats.effects import hedges_factor
from bluffscope.stats.held_constant import Held, estimated, fit
from bluffscope.stats.labelled import FEWEST_OF_A_LABEL
from bluffscope.stats.study import numbered

SMALL_LEAN: Final = 0.056
"""Smallest distance of a length's AUROC from 0.5 that counts: Phi(0.2 / sqrt 2) - 0.5, which is `SMALL_DZ` for normal
lengths. It sees what g does not where a few very long texts swell the standard deviation."""
SMALL_EXPLAINED: Final = 0.01
"""Smallest share of the labels' variance that domains must explain: that of two halves which differ by d = 0.2."""
RARE_LABEL: Final = 0.2
"""Share of the texts below which a label is rare: always saying the other is right in four of five."""
NONE_FOUND: Final = np.empty(0, np.int64)


def measure(profile: TextProfile) -> tuple[TextMeasures, ...]:
    """The balance of each scope."""
    scopes = list(profile.scopes())
    level = FALSE_ALARMS / len(scopes)
    return tuple(_measured(profile, scope, positions, level) for scope, positions in scopes)


def _measured(profile: TextProfile, scope: str, positions: np.ndarray, level: float) -> TextMeasures:
    false, groups = profile.false[positions], numbered(profile.groups[positions])
    counts, number = profile.counts(positions), int(groups.max()) + 1
    # Where a label is rare nothing is judged, and of very many small domains none can be found.
    tested = min(counts.values()) >= FEWEST_OF_A_LABEL and smallest_p(number) < level
    negations = profile.negations[positions]
    return TextMeasures(
        scope=scope,
        texts=len(positions),
        groups=number,
        **counts,
        length=_difference(profile.lengths[positions], false, groups) if tested else Difference(),
        tokens=_of_tokens(profile, positions, groups) if tested else Difference(),
        negations_true=float(negations[~false].mean()) if counts["true"] else 0.0,
        negations_false=float(negations[false].mean()) if counts["false"] else 0.0,
        negation_p=_tested(negations.astype(float), false, groups)[0] if tested else None,
    )


def _of_tokens(profile: TextProfile, positions: np.ndarray, groups: np.ndarray) -> Difference:
    if profile.tokens is None:
        return Difference()
    lengths = profile.tokens.lengths[positions]
    known = lengths > 0
    false = profile.false[positions][known]
    return _difference(lengths[known], false, numbered(groups[known])) if 0 < false.sum() < len(false) else Difference()


def _difference(lengths: np.ndarray, false: np.ndarray, groups: np.ndarray) -> Difference:
    """Of lengths: the effect in characters or tokens, the test and the lean in ranks."""
    sides = lengths[~false, None].astype(float), lengths[false, None].astype(float)
    p, _ = _tested(rankdata(lengths), false, groups)
    _, g = _tested(lengths.astype(float), false, groups)
    return Difference(g, float(areas(*sides, groups[~false], groups[false]).area[0]), p)


class Tested(NamedTuple):
    """Of a difference between false and true texts, where it is defined."""

    p: float | None
    g: float | None


def _tested(values: np.ndarray, false: np.ndarray, groups: np.ndarray) -> Tested:
    """The statistics' test over groups, and Hedges' g.

    Args:
        values: (text,) float64.
        false: (text,) of both labels.
        groups: (text,) numbered from 0 without gaps.
    """
    level = np.ones((len(values), 1)) / np.sqrt(len(values))
    found = estimated(fit(false.astype(float), Held(level), groups), values[:, None])
    p, g = float(found.p[0]), float(hedges_factor(len(values) - 2) * found.standardised[0])
    if np.isnan(p) and len(np.unique(values[false])) == len(np.unique(values[~false])) == 1:
        # Without any spread inside the labels there is no error to test by; the labels could be dealt out so by chance.
        return Tested(smallest_p(int(groups.max()) + 1) if np.ptp(values) > 0 else None, None)
    return Tested(p if np.isfinite(p) else None, g if np.isfinite(g) else None)


def label_findings(profile: TextProfile, scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """Whether there are enough texts of both labels, in all texts and in each domain."""
    yield from _label_counts(scopes)
    yield from _label_imbalances(scopes)
    yield from _telling_domains(profile, scopes)


def _label_counts(scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """One label alone, or too few texts of one, in all texts or in domains."""
    pooled = scopes[0]
    if not min(pooled.true, pooled.false):
        sentence = (
            f"No text is {'false' if pooled.true else 'true'} (of {pooled.texts:,}): there is nothing to tell apart; "
            f"add {'false' if pooled.true else 'true'} ones, or see which labels --labels takes for what."
        )
        yield Draft("one-label", NONE_FOUND, "{said}", {"said": sentence}, POOLED)
        return
    few = [scope for scope in scopes if min(scope.true, scope.false) < FEWEST_OF_A_LABEL]
    if not few:
        return
    few = few[:1] if few[0].scope == POOLED else few
    shown = [f"{_rarer(scope)} of {count(scope.texts, 'text')}{where(scope.scope)}" for scope in few[:NAMED]]
    sentence = (
        f"No verdict will be given: only {listed_first(shown, len(few))}, and at least {FEWEST_OF_A_LABEL} texts of "
        f"each label are needed. Add some{'' if few[0].scope == POOLED else ' there'}."
    )
    yield Draft("few-of-a-label", NONE_FOUND, "{said}", {"said": sentence}, POOLED if few[0].scope == POOLED else None)


def _rarer(scope: TextMeasures) -> str:
    """`3 true`."""
    return f"{scope.true:,} true" if scope.true < scope.false else f"{scope.false:,} false"


def _label_imbalances(scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """Scopes in which a label is rare, though there are enough texts of it; domains only where all texts are not."""
    pooled: str | None = None
    for scope in scopes:
        rare, other = ("false", "true") if scope.false < scope.true else ("true", "false")
        number = min(scope.true, scope.false)
        if number < FEWEST_OF_A_LABEL or number >= RARE_LABEL * scope.texts or rare == pooled:
            continue
        pooled = rare if scope.scope == POOLED else pooled
        share = number / scope.texts
        sentence = (
            f"Only {number:,} of {count(scope.texts, 'text')} ({percent(share)}) are {rare}{where(scope.scope)}: "
            f"calling all of them {other} is right in {percent(1 - share)}; read AUROC, not accuracy, or add {rare} "
            "ones."
        )
        yield Draft("label-imbalance", NONE_FOUND, "{said}", {"said": sentence}, scope.scope)


def _telling_domains(profile: TextProfile, scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """Domains that differ in their shares of false texts: what tells domains apart then tells labels apart."""
    domains = scopes[1:]
    if not domains or not min(scopes[0].true, scopes[0].false):
        return
    explained, p = _explained_by_domain(profile)
    false, true = (np.array([getattr(scope, label) for scope in domains]) for label in ("false", "true"))
    order = np.argsort(false / (false + true), kind="stable")
    below = np.cumsum(true[order]) - true[order] / 2
    auroc = float((false[order] * below).sum() / (false.sum() * true.sum()))
    if p >= FALSE_ALARMS or explained < SMALL_EXPLAINED:
        return
    most, least = domains[order[-1]], domains[order[0]]
    sentence = (
        f"The domain alone tells false texts from true ones (AUROC {auroc:.2f}, F test over groups {p_value(p)}): "
        f"{percent(most.false / most.texts)} of the texts are false in {quoted(most.scope)} and "
        f"{percent(least.false / least.texts)} in {quoted(least.scope)}; balance the labels in each domain, or read "
        "what is said of single domains."
    )
    yield Draft("domain-tells", NONE_FOUND, "{said}", {"said": sentence}, POOLED)


def _explained_by_domain(profile: TextProfile) -> tuple[float, float]:
    """Adjusted share of the variance of the groups' shares of false texts that domains explain; p of the F test."""
    width = len(profile.domains)
    cells, inverse = np.unique(profile.groups.astype(np.int64) * width + profile.domain, return_inverse=True)
    shares = np.bincount(inverse, profile.false) / np.bincount(inverse)  # of each group in each domain
    domain = cells % width
    sizes = np.bincount(domain, minlength=width)
    within = shares - (np.bincount(domain, shares, width) / sizes)[domain]
    total, left = float(((shares - shares.mean()) ** 2).sum()), float((within**2).sum())
    freedom = len(cells) - width
    if freedom <= 0 or total <= 0:
        return 0.0, 1.0
    explained = 1 - (left / freedom) / (total / (len(cells) - 1))
    if left <= 0:
        return explained, 0.0
    return explained, float(f.sf((total - left) / (width - 1) / (left / freedom), width - 1, freedom))


def length_imbalances(profile: TextProfile, scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """Scopes in which false texts are longer than true ones, or shorter, in characters."""
    found = [scope.length for scope in scopes]
    return _imbalances(profile, profile.lengths, found, "length-imbalance", "characters")


def token_length_imbalances(profile: TextProfile, scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """The same in the model's tokens."""
    lengths = np.asarray(() if profile.tokens is None else profile.tokens.lengths)
    return _imbalances(profile, lengths, [scope.tokens for scope in scopes], "token-length-imbalance", "tokens")


def _imbalances(
    profile: TextProfile, lengths: np.ndarray, found: Sequence[Difference], code: str, unit: str
) -> Iterator[Draft]:
    for difference, (scope, positions) in zip(found, profile.scopes(), strict=True):
        if difference.p is None or difference.p >= FALSE_ALARMS / len(found) or difference.auroc is None:
            continue
        constant = difference.g is None  # all of a label are as long as each other
        if not constant and abs(difference.g or 0.0) < SMALL_DZ and abs(difference.auroc - 0.5) < SMALL_LEAN:
            continue
        # Mean and ranks may disagree where a few texts are very long; the test ranks.
        longer = difference.auroc > 0.5
        true, false = (positions[profile.false[positions] == label] for label in (False, True))
        middle = float(np.median(lengths[true]))
        beyond = false[lengths[false] > middle] if longer else false[lengths[false] < middle]
        g = "beyond measure, as each label has one length" if difference.g is None else f"{difference.g:+.2f}"
        mean = float(lengths[false].mean() - lengths[true].mean())
        more = "longer" if longer else "shorter"
        sentence = (
            f"False texts are {more} than true ones{where(scope)}: {percent(len(beyond) / len(false))} of them are "
            f"{more} than the median true one ({middle:g} {unit}), mean difference {mean:+.1f} {unit}, g {g}, AUROC of "
            f"length {difference.auroc:.2f} (rank test over groups {p_value(difference.p)}): length alone tells them "
            "apart; even the lengths out, or trust results at equal length only."
        )
        yield Draft(code, beyond, "{said}", {"said": sentence}, scope)


def negation_imbalances(profile: TextProfile, scopes: Sequence[TextMeasures]) -> Iterator[Draft]:
    """Scopes in which more false texts than true ones hold a negation, or fewer."""
    for measured, (scope, positions) in zip(scopes, profile.scopes(), strict=True):
        difference, p = measured.negations_false - measured.negations_true, measured.negation_p
        if p is None or p >= FALSE_ALARMS / len(scopes) or abs(difference) < SMALL_NEGATION:
            continue
        more = "false" if difference > 0 else "true"
        found = positions[profile.negations[positions] & (profile.false[positions] == (more == "false"))]
        sentence = (
            f"{percent(measured.negations_false)} of the false texts hold a negation and "
            f"{percent(measured.negations_true)} of the true ones{where(scope)} (t test over groups {p_value(p)}): a "
            f"word such as 'not' gives {count(len(found), f'{more} text')} away; deny as often in both."
        )
        yield Draft("negation-imbalance", found, "{said}", {"said": sentence}, scope)
