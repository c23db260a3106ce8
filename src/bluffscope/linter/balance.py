"""Whether length or negation alone would tell hallucinations from facts.

Each check asks two things: is there an imbalance (a paired test over groups, since pairs of a group are not
independent), and is it large enough to matter (an effect size). Both must say yes: with 100,000 pairs every trifle is
significant, and among ten pairs every accident is large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import erfc, isfinite
from typing import Final

import numpy as np
from scipy.stats import binomtest, wilcoxon

from bluffscope.host.terminal import count
from bluffscope.linter.draft import Draft, p_value, percent, where
from bluffscope.linter.findings import ScopeMeasures
from bluffscope.linter.profile import Profile
from bluffscope.stats.effects import dz
from bluffscope.stats.study import numbered

FALSE_ALARMS: Final = 0.01
"""Chance of any finding of a check in balanced data; shared out among the scopes (Bonferroni)."""
SMALL_DZ: Final = 0.2
"""Smallest imbalance of lengths that counts: the margin within which docs/statistics.md calls effects equivalent."""
SMALL_SHARE: Final = 0.16
"""The same in shares of pairs, longer less shorter: 2 Phi(0.2) - 1 for normal differences. It sees what d_z does not
where a few very long texts swell the standard deviation."""
SMALL_NEGATION: Final = 0.1
"""Smallest difference of the shares with a negation: guessing by negation alone then has an AUROC of 0.55."""


def measure(profile: Profile) -> tuple[ScopeMeasures, ...]:
    """The balance of each scope."""
    scopes = list(profile.scopes())
    level = FALSE_ALARMS / len(scopes)
    return tuple(_measured(profile, scope, positions, level) for scope, positions in scopes)


def _measured(profile: Profile, scope: str, positions: np.ndarray, level: float) -> ScopeMeasures:
    groups = numbered(profile.groups[positions])
    number = int(groups.max()) + 1
    characters = _differences(profile.lengths[positions])
    tokens = None if profile.tokens is None else _differences(profile.tokens.lengths[positions])
    negations = profile.negations[positions]
    # Of 100,000 small domains none can be found, and each test would take a millisecond.
    tested = smallest_p(number) < level
    return ScopeMeasures(
        scope=scope,
        pairs=len(positions),
        groups=number,
        length_dz=_dz(characters),
        longer=float((characters > 0).mean()),
        shorter=float((characters < 0).mean()),
        length_p=signed_rank_p(characters, groups) if tested else None,
        token_dz=None if tokens is None else _dz(tokens),
        token_p=signed_rank_p(tokens, groups) if tested and tokens is not None else None,
        negations_fact=float(negations[:, 0].mean()),
        negations_hall=float(negations[:, 1].mean()),
        negation_p=sign_p(_differences(negations), groups) if tested else None,
    )


def smallest_p(groups: int) -> float:
    """The smallest p value that so many groups can give, exact or by the normal approximation where all are tied."""
    return min(2.0 ** (1 - groups), erfc((groups / 2) ** 0.5))


def _differences(values: np.ndarray) -> np.ndarray:
    """(pair,) float64: hallucination less fact."""
    return np.diff(values.astype(np.float64), axis=1)[:, 0]


def _dz(differences: np.ndarray) -> float | None:
    found = float(dz(differences[:, None])[0])
    return found if isfinite(found) else None


def _group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, values) / np.bincount(groups)


def signed_rank_p(differences: np.ndarray, groups: np.ndarray) -> float | None:
    """Wilcoxon's signed-rank test of the groups' mean differences, two-sided; None if no group has one.

    Args:
        differences: (pair,) float64.
        groups: (pair,) int64, numbered from 0 without gaps.
    """
    means = _group_means(differences, groups)
    means = means[means != 0]
    if not len(means):
        return None
    # The exact distribution knows no ties.
    tied = len(np.unique(np.abs(means))) < len(means)
    method = "exact" if len(means) <= 50 and not tied else "asymptotic"
    return float(wilcoxon(means, method=method).pvalue)  # pyright: ignore


def sign_p(differences: np.ndarray, groups: np.ndarray) -> float | None:
    """Exact two-sided sign test of the groups' mean differences (McNemar's, for single pairs); None if none differs."""
    means = _group_means(differences, groups)
    up, down = int((means > 0).sum()), int((means < 0).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else None


def length_imbalances(profile: Profile, scopes: Sequence[ScopeMeasures]) -> Iterator[Draft]:
    """Scopes in which hallucinations are longer than facts, or shorter, in characters."""
    tests = [scope.length_p for scope in scopes]
    return _imbalances(profile, profile.lengths, tests, "length-imbalance", "characters")


def token_length_imbalances(profile: Profile, scopes: Sequence[ScopeMeasures]) -> Iterator[Draft]:
    """The same in the model's tokens."""
    tests = [scope.token_p for scope in scopes]
    tokens = () if profile.tokens is None else profile.tokens.lengths
    return _imbalances(profile, np.asarray(tokens), tests, "token-length-imbalance", "tokens")


def _imbalances(
    profile: Profile, lengths: np.ndarray, tests: Sequence[float | None], code: str, unit: str
) -> Iterator[Draft]:
    for p, (scope, positions) in zip(tests, profile.scopes(), strict=True):
        if p is None or p >= FALSE_ALARMS / len(tests):
            continue
        differences = _differences(lengths[positions])
        effect, lean = _dz(differences), float(np.sign(differences).mean())
        constant = effect is None and lean != 0  # the same difference in every pair
        if not constant and abs(effect or 0.0) < SMALL_DZ and abs(lean) < SMALL_SHARE:
            continue
        # Mean and majority may disagree where a few texts are very long; the test ranks, and sides with the majority.
        longer = (lean or differences.mean()) > 0
        found = positions[differences > 0 if longer else differences < 0]
        sentence = (
            f"Hallucinations are {'longer' if longer else 'shorter'} than facts{where(scope)}: in {count(len(found))} "
            f"of {len(positions):,} ({percent(len(found) / len(positions))}), mean difference "
            f"{differences.mean():+.1f} {unit}, d_z "
            f"{'beyond measure, as it is the same in all' if effect is None else f'{effect:+.2f}'} (Wilcoxon over "
            f"groups {p_value(p)}): length alone tells them apart."
        )
        yield Draft(code, found, "{said}", {"said": sentence}, scope)


def negation_imbalances(profile: Profile, scopes: Sequence[ScopeMeasures]) -> Iterator[Draft]:
    """Scopes in which more hallucinations than facts hold a negation, or fewer."""
    for measured, (scope, positions) in zip(scopes, profile.scopes(), strict=True):
        difference = measured.negations_hall - measured.negations_fact
        p = measured.negation_p
        if p is None or p >= FALSE_ALARMS / len(scopes) or abs(difference) < SMALL_NEGATION:
            continue
        signs = _differences(profile.negations[positions])
        found = positions[signs > 0 if difference > 0 else signs < 0]
        sentence = (
            f"{percent(measured.negations_hall)} of the hallucinations hold a negation and "
            f"{percent(measured.negations_fact)} of the facts{where(scope)} (sign test over groups {p_value(p)}): a "
            f"word such as 'not' tells them apart in {count(len(found))}."
        )
        yield Draft("negation-imbalance", found, "{said}", {"said": sentence}, scope)
