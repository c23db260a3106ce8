"""Whether the completions' text alone gives the label away: a bag of words that must stay at chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from scipy.stats import t as student

from bluffscope.host.terminal import count
from bluffscope.linter.draft import p_value, short, where
from bluffscope.linter.findings import Finding, ScopeMeasures
from bluffscope.linter.profile import Profile
from bluffscope.pairs.readers import quoted
from bluffscope.pairs.wordbag import bag_classifier, counted
from bluffscope.records import Pair
from bluffscope.stats.auroc import ordering
from bluffscope.stats.resampling import area_draws, ends
from bluffscope.stats.study import numbered

MARGIN: Final = 0.05
"""An AUROC must exceed 0.5 by this: 0.55 is an effect of d = 0.18, about the 0.2 within which the statistics call
effects equivalent. What lies below could not make a verdict."""
FALSE_ALARMS: Final = 0.04
"""Chance of a finding in data whose texts tell nothing; half of it is for all pairs, half is shared by the domains."""
CONFIDENCE: Final = 0.95
"""Of the intervals of all scopes together (Bonferroni)."""
FEWEST_GROUPS: Final = 20
"""Four groups a fold; with fewer the interval is so wide that only the coarsest cue could be found."""
FOLDS: Final = 5
RESAMPLES: Final = 2000
WIDENED: Final = (1 + FOLDS / (FOLDS - 1)) ** 0.5
"""What intervals and exchanges are stretched by where scores are fixed: resampling them does not see that the folds'
training data overlap and vary (Nadeau and Bengio 2003: variance times 1 + k n_test / n_train)."""
REFITTED: Final = 500
"""Below this many groups the classifier is fitted again to each of `EXCHANGES`."""
EXCHANGED: Final = "liblinear"
"""The solver for exchanges: six times as fast on words, with AUROCs within .001 of the other's."""
EXCHANGES: Final = 49
"""Times that fact and hallucination are exchanged in whole groups at random: mean and spread of the AUROC where there
is nothing to learn."""
LOOK: Final = 9
"""Exchanges after which nothing more is expected of a p value above `HOPELESS`."""
HOPELESS: Final = 0.15
CERTAIN: Final = 1e-4
"""The same below it: far from every level that a p value is compared with."""
SAMPLE_PAIRS: Final = 4000
"""Most pairs of a scope that are looked at: the AUROC's standard error is then below 0.01."""
ALL_DOMAINS: Final = 5
"""The domains share a sample of this many times `SAMPLE_PAIRS`, the largest first."""
MOST_DOMAINS: Final = 40
"""Domains that are judged, the largest: each takes up to a second, however small it is."""
SAMPLE_CHARACTERS: Final = 4_000_000
"""Most characters of a scope's completions, prolix data sets being no better judged than terse ones."""
TELLING_PAIRS: Final = 10
CUES: Final = 4
RARE: Final = 0.005
"""Words in fewer texts than this share are no cues to name, whatever weight chance gave them."""

NOT_JUDGED: Final = (
    "Whether completion text alone gives the label away could not be judged for {}; at least "
    f"{FEWEST_GROUPS} groups of pairs with different prompts and completions are needed."
)


@dataclass(frozen=True)
class Sample:
    """The pairs that the classifier is shown."""

    scopes: Mapping[str, np.ndarray]
    """Positions of the pairs (ascending), by scope."""
    unjudged: Mapping[str, str]
    """Why a scope is not judged, by scope."""

    @property
    def domains(self) -> int:
        """How many are judged."""
        return len(self.scopes) - ("pooled" in self.scopes)

    @property
    def level(self) -> float:
        """Confidence of each scope's interval."""
        return 1 - (1 - CONFIDENCE) / max(1, len(self.scopes))

    def positions(self) -> np.ndarray:
        """Of all scopes, ascending."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self.scopes.values()]))


class Sampled(Protocol):
    """What a sample is drawn from: a profile."""

    @property
    def groups(self) -> np.ndarray:
        """(item,) int64: number of each item's group."""
        ...

    @property
    def characters(self) -> np.ndarray:
        """(item,) int64: how much the classifier would read of it."""
        ...

    def scopes(self) -> Iterator[tuple[str, np.ndarray]]:
        """The positions of each scope's items."""
        ...


def draw_sample(profile: Sampled, most: int, seed: int, barred: Mapping[str, str] | None = None) -> Sample:
    """Choose the pairs (or texts) of each scope: all, or whole groups at random up to the limits.

    Groups stay together, so that a counterbalanced set keeps its balance in the sample.

    Args:
        profile: what is known of the pairs.
        most: most pairs of a scope.
        seed: of the choice.
        barred: scopes that cannot be judged, and why.
    """
    scopes = list(profile.scopes())
    chosen: dict[str, np.ndarray] = {}
    unjudged: dict[str, str] = dict(barred or {})
    scopes = [scope for scope in scopes if scope[0] not in unjudged]
    left = most + ALL_DOMAINS * most
    shuffled = np.random.default_rng(seed).permutation(int(profile.groups.max()) + 1)
    for place in sorted(range(len(scopes)), key=lambda i: -len(scopes[i][1])):
        scope, positions = scopes[place]
        groups = profile.groups[positions]
        if (number := len(np.unique(groups))) < FEWEST_GROUPS:
            unjudged[scope] = f"{number} independent groups"
            continue
        order = positions[np.argsort(shuffled[groups], kind="stable")]
        characters = np.cumsum(profile.characters[order])
        taken = order[: max(1, min(most, int(np.searchsorted(characters, SAMPLE_CHARACTERS, side="right"))))]
        if len(taken) > left or len(chosen) > MOST_DOMAINS or len(np.unique(profile.groups[taken])) < FEWEST_GROUPS:
            used_up = len(taken) > left or len(chosen) > MOST_DOMAINS
            unjudged[scope] = "sample used up by larger domains" if used_up else "too long texts"
            continue
        left -= len(taken)
        chosen[scope] = np.sort(taken)
    return Sample(chosen, unjudged)


@dataclass(frozen=True)
class Judgement:
    """How well text tells facts from hallucinations in one scope."""

    auroc: float
    lo: float
    hi: float
    p: float | None
    """`_exchange_p`; None where the AUROC is too small to matter."""
    telling: np.ndarray
    """Positions (within the sample) of the pairs whose label it gives away most clearly, ascending."""
    fact_cues: tuple[str, ...]
    """Words that speak for a fact, the strongest first."""
    hall_cues: tuple[str, ...]


def judge(facts: Sequence[str], halls: Sequence[str], groups: np.ndarray, level: float, seed: int) -> Judgement:
    """Cross-validate TF-IDF with logistic regression by group; the interval resamples groups.

    Args:
        facts: of each pair.
        halls: of each pair.
        groups: (pair,) int64; at least `FOLDS` different ones.
        level: confidence of the interval.
        seed: of the bootstrap.
    """
    total = len(facts)
    labels = np.repeat([0, 1], total)
    groups = numbered(groups)
    # Counting needs no labels and no other text, so it is done once; weights and idf are learnt inside each fold.
    counts, names = counted([*facts, *halls])
    held_out = Folds(counts, np.tile(groups, 2))
    scores = held_out.scores(labels).reshape(2, -1)
    clear = np.argsort(scores[0] - scores[1], kind="stable")[:TELLING_PAIRS]
    fact_cues, hall_cues = cues(counts, labels, names)
    whole = ordering(*scores).area
    lo, hi = ends(area_draws([scores], groups, RESAMPLES, np.random.default_rng(seed)), level)[:, 0].tolist()
    lo, hi = widened(whole, lo, hi)
    number = int(groups.max()) + 1

    def exchanged_area(generator: np.random.Generator) -> float:
        exchanged = generator.integers(2, size=number)[groups]  # (pair,)
        refitted = number < REFITTED
        labels = np.concatenate([exchanged, 1 - exchanged])
        fitted = held_out.scores(labels, EXCHANGED).reshape(2, -1) if refitted else scores
        return ordering(*np.where(exchanged, fitted[::-1], fitted)).area

    p = exchange_p(exchanged_area, whole, number, seed) if whole >= 0.5 + MARGIN else None
    return Judgement(whole, lo, hi, p, np.sort(clear), fact_cues, hall_cues)


def widened(whole: float, lo: float, hi: float) -> tuple[float, float]:
    """The ends of an interval about an AUROC, `WIDENED`."""
    return max(0.0, whole - WIDENED * (whole - lo)), min(1.0, whole + WIDENED * (hi - whole))


class Folds:
    """The folds of cross-validation by group, their TF-IDF weights learnt: these need no labels."""

    def __init__(self, counts: Any, groups: np.ndarray) -> None:
        from sklearn.model_selection import GroupKFold  # a second to import: only when a linter runs

        self._folds: list[tuple[np.ndarray, np.ndarray, Any, Any]] = []
        for train, test in GroupKFold(FOLDS).split(counts, groups=groups):
            weights = bag_classifier()[0].fit(counts[train])
            self._folds.append((train, test, weights.transform(counts[train]), weights.transform(counts[test])))

    def scores(self, labels: np.ndarray, solver: str = "lbfgs") -> np.ndarray:
        """(text,) float64: each text's score by a model fitted to the other folds; 0 if those have one label only.

        Args:
            labels: (text,) 0 or 1.
            solver: `EXCHANGED`, where the fit is one of many to labels drawn at random.
        """
        found = np.zeros(len(labels))
        for train, test, known, held_out in self._folds:
            if len(np.unique(labels[train])) > 1:
                model = bag_classifier()[1].set_params(solver=solver)
                found[test] = model.fit(known, labels[train]).decision_function(held_out)
        return found


def exchange_p(exchanged_area: Callable[[np.random.Generator], float], found: float, groups: int, seed: int) -> float:
    """How likely an AUROC as high as the one found is where whole groups exchange their labels at random.

    The tail of a t distribution with mean and spread of `EXCHANGES`. With few groups the classifier is fitted to each
    exchange; with many its scores stay as they are, and their spread is `WIDENED`.

    Args:
        exchanged_area: the AUROC of one exchange; fitted to it below `REFITTED` groups.
        found: the AUROC.
        groups: how many there are.
        seed: of the exchanges.
    """
    refitted = groups < REFITTED
    generator = np.random.default_rng(seed)
    values: list[float] = []
    for times in range(1, EXCHANGES + 1):
        values.append(exchanged_area(generator))
        if times in (LOOK, EXCHANGES):
            spread = float(np.std(values, ddof=1)) * (1 if refitted else WIDENED) * (1 + 1 / times) ** 0.5
            beyond = found - (float(np.mean(values)) if refitted else 0.5)
            p = float(student.sf(beyond / spread, times - 1)) if spread > 0 else float(beyond <= 0)
            if not CERTAIN < p <= HOPELESS or times == EXCHANGES:
                return p
    raise AssertionError("the last exchange returns")


def cues(counts: Any, labels: np.ndarray, names: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The features that speak loudest for a fact and for a hallucination, in a fit to all texts."""
    model = bag_classifier().fit(counts, labels)
    weighted = model[0].transform(counts)
    balance = np.asarray(weighted[labels == 1].mean(axis=0) - weighted[labels == 0].mean(axis=0)).ravel()
    frequent = np.asarray((counts > 0).sum(axis=0)).ravel() >= max(3, RARE * len(labels))
    pull = model[1].coef_[0] * np.abs(balance) * frequent
    order = np.argsort(pull, kind="stable")
    return (
        tuple(str(names[i]) for i in order[:CUES] if pull[i] < 0),
        tuple(str(names[i]) for i in order[::-1][:CUES] if pull[i] > 0),
    )


def classify(
    profile: Profile, scopes: Sequence[ScopeMeasures], sample: Sample, pairs: Mapping[int, Pair], seed: int
) -> tuple[tuple[ScopeMeasures, ...], list[Finding]]:
    """Judge every scope of the sample.

    Args:
        profile: what is known of the pairs.
        scopes: the measures so far.
        sample: the pairs to be looked at.
        pairs: those, by position.
        seed: of the bootstrap.

    Returns:
        The measures with AUROC and interval filled in, and the findings.
    """
    level = sample.level
    domains = sample.domains
    measured: list[ScopeMeasures] = []
    findings: list[Finding] = []
    for scope in scopes:
        positions = sample.scopes.get(scope.scope)
        if positions is not None:
            shown = [pairs[position] for position in positions.tolist()]
            facts, halls = [pair.fact for pair in shown], [pair.hallucination for pair in shown]
            found = judge(facts, halls, profile.groups[positions], level, seed)
            scope = replace(
                scope,
                auroc=found.auroc,
                auroc_lo=found.lo,
                auroc_hi=found.hi,
                auroc_p=found.p,
                auroc_pairs=len(positions),
            )
            if found.p is not None and found.p <= allowed(scope.scope, domains):
                ids, rows = zip(*((shown[place].id, shown[place].index) for place in found.telling), strict=True)
                findings.append(Finding("text-tells", _told(found, scope), ids, rows, scope.scope))
        measured.append(scope)
    return tuple(measured), [*findings, *not_judged(sample.unjudged, NOT_JUDGED)]


def allowed(scope: str, domains: int) -> float:
    """The level of a scope's test."""
    return FALSE_ALARMS / (1 if not domains else 2 if scope == "pooled" else 2 * domains)


def _told(found: Judgement, scope: ScopeMeasures) -> str:
    return (
        f"The text of a completion alone, without its prompt, tells hallucinations from facts{where(scope.scope)}: "
        f"AUROC {found.auroc:.2f}, interval {found.lo:.2f} to {found.hi:.2f}, {p_value(found.p or 0.0)}, "
        f"{count(scope.auroc_pairs)}; {loudest(found, 'a hallucination', 'a fact')}. "
        f"Named are the {TELLING_PAIRS} pairs it is surest of."
    )


def loudest(found: Judgement, hall: str, fact: str) -> str:
    """The words that the classifier goes by, as a part of a sentence, given what each label is called."""
    said = " and ".join(
        f"{', '.join(map(short, words))} for {label}"
        for words, label in ((found.hall_cues, hall), (found.fact_cues, fact))
        if words
    )
    return f"what speaks loudest: {said}" if said else "by many rare words"


def not_judged(unjudged: Mapping[str, str], sentence: str) -> Iterator[Finding]:
    """A finding that says which scopes are not judged, if there are any: a sentence with {} in their place."""
    if unjudged:
        named = [f"{quoted(scope)} ({why})" for scope, why in unjudged.items()]
        shown = ", ".join(named[:5]) + (f" and {len(named) - 5:,} more" if len(named) > 5 else "")
        yield Finding("not-judged", sentence.format(shown))
