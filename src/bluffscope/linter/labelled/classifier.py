"""Whether the words of completions, or of prompts, alone tell false texts from true ones: a bag of words decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bluffscope.host.terminal import count
from bluffscope.linter.classifier import (
    EXCHANGED,
    FEWEST_GROUPS,
    MARGIN,
    REFITTED,
    TELLING_PAIRS,
    Folds,
    Judgement,
    Sample,
    allowed,
    cues,
    draw_sample,
    exchange_p,
    loudest,
    not_judged,
    widened,
)
from bluffscope.linter.draft import p_value, where
from bluffscope.linter.findings import Finding, TextMeasures
from bluffscope.linter.labelled.profile import TextProfile
from bluffscope.pairs.wordbag import counted
from bluffscope.records import LabelledText
from bluffscope.stats.auroc import areas
from bluffscope.stats.labelled import FEWEST_OF_A_LABEL
from bluffscope.stats.study import numbered

ALIKE: Final = 10
"""Groups of a size that exchange labels among themselves; groups of rarer sizes do so together."""


@dataclass(frozen=True)
class Reader:
    """What a classifier is shown of a text."""

    code: str
    """Of its finding."""
    field: str
    """Of `LabelledText`."""
    prefix: str
    """Of its fields in `TextMeasures`."""
    tells: str
    """Beginning of its sentence."""
    remedy: str


PROMPTS: Final = Reader(
    "prompt-tells",
    "prompt",
    "prompt_",
    "The text of a prompt alone, without any completion, tells",
    "What is asked gives the label away: give each prompt true and false completions",
)
COMPLETIONS: Final = Reader(
    "text-tells",
    "completion",
    "",
    "The text of a completion alone, without its prompt, tells",
    "Word true and false texts alike, or compare every result with the text-only baseline",
)
STATEMENTS: Final = replace(COMPLETIONS, tells="The words of a text alone, without any knowledge, tell")


def readers(profile: TextProfile) -> tuple[Reader, ...]:
    """Those that there is something to read for: prompts where they are there, and not all with the same labels."""
    if not profile.prompted.any():
        return (STATEMENTS,)
    prompts = numbered(profile.prompts)
    shares = np.bincount(prompts, profile.false) / np.bincount(prompts)
    return (COMPLETIONS,) if np.ptp(shares) == 0 else (COMPLETIONS, PROMPTS)


def draw_texts(profile: TextProfile, most: int, seed: int) -> Sample:
    """The texts that the classifiers are shown: whole groups, of scopes in which both labels are in enough groups."""
    barred: dict[str, str] = {}
    for scope, positions in profile.scopes():
        groups, false = profile.groups[positions], profile.false[positions]
        having = {name: len(np.unique(groups[false == label])) for name, label in (("true", False), ("false", True))}
        rarest = min(having, key=having.__getitem__)
        if having[rarest] < FEWEST_OF_A_LABEL:
            barred[scope] = f"{count(having[rarest], 'group')} with {rarest} texts"
    return draw_sample(profile, most, seed, barred)


def judge_texts(texts: Sequence[str], false: np.ndarray, groups: np.ndarray, level: float, seed: int) -> Judgement:
    """Cross-validate TF-IDF with logistic regression by group; error of the AUROC over groups.

    Args:
        texts: what is read.
        false: (text,) bool, of both labels.
        groups: (text,) int64; at least `FOLDS` different ones.
        level: confidence of the interval.
        seed: of the exchanges of labels.
    """
    labels, groups = false.astype(int), numbered(groups)
    number = int(groups.max()) + 1
    counts, names = counted(texts)
    held_out = Folds(counts, groups)
    scores = held_out.scores(labels)
    whole, lo, hi = _area(scores, false, groups, level)
    lo, hi = widened(whole, lo, hi)
    deal = dealer(labels, groups)

    def exchanged_area(generator: np.random.Generator) -> float:
        dealt = deal(generator)
        fitted = held_out.scores(dealt, EXCHANGED) if number < REFITTED else scores
        return _area(fitted, dealt == 1, groups, level)[0]

    p = exchange_p(exchanged_area, whole, number, seed) if whole >= 0.5 + MARGIN else None
    middle = (scores[false].mean() + scores[~false].mean()) / 2
    clear = np.argsort(np.where(false, -1, 1) * (scores - middle), kind="stable")[:TELLING_PAIRS]
    true_cues, false_cues = cues(counts, labels, names)
    return Judgement(whole, lo, hi, p, np.sort(clear), true_cues, false_cues)


def _area(scores: np.ndarray, false: np.ndarray, groups: np.ndarray, level: float) -> tuple[float, float, float]:
    found = areas(scores[~false, None], scores[false, None], groups[~false], groups[false], level)
    return float(found.area[0]), float(found.lo[0]), float(found.hi[0])


def dealer(labels: np.ndarray, groups: np.ndarray) -> Callable[[np.random.Generator], np.ndarray]:
    """Deals labels out again: groups of a size exchange theirs, in any order inside.

    What is alike in a group (both labels, or one alone) stays alike: labels of a group never count as independent.

    Args:
        labels: (text,).
        groups: (text,) numbered from 0 without gaps.
    """
    sizes = np.bincount(groups)
    kinds = np.where(np.bincount(sizes)[sizes] >= ALIKE, sizes, 0)

    def deal(generator: np.random.Generator) -> np.ndarray:
        given, taken = generator.random((2, len(sizes)))
        inside = generator.random(len(labels))
        dealt = np.empty_like(labels)
        dealt[np.lexsort((taken[groups], kinds[groups]))] = labels[np.lexsort((inside, given[groups], kinds[groups]))]
        return dealt

    return deal


def classify_texts(
    profile: TextProfile, scopes: Sequence[TextMeasures], sample: Sample, texts: Mapping[int, LabelledText], seed: int
) -> tuple[tuple[TextMeasures, ...], list[Finding]]:
    """Judge every scope of the sample, by completions and by prompts.

    Args:
        profile: what is known of the texts.
        scopes: the measures so far.
        sample: the texts to be looked at.
        texts: those, by position.
        seed: of the exchanges.

    Returns:
        The measures with AUROC and interval filled in, and the findings.
    """
    findings: list[Finding] = []
    for reader in readers(profile):
        measured: list[TextMeasures] = []
        for scope in scopes:
            positions = sample.scopes.get(scope.scope)
            if positions is not None:
                shown = [texts[position] for position in positions.tolist()]
                read = [getattr(text, reader.field) for text in shown]
                found = judge_texts(read, profile.false[positions], profile.groups[positions], sample.level, seed)
                named = {"auroc": found.auroc, "auroc_lo": found.lo, "auroc_hi": found.hi, "auroc_p": found.p}
                scope = replace(
                    scope,
                    **{f"{reader.prefix}{name}": value for name, value in named.items()},
                    auroc_texts=len(positions),
                )
                if found.p is not None and found.p <= allowed(scope.scope, sample.domains):
                    ids, rows = zip(*((shown[place].id, shown[place].index) for place in found.telling), strict=True)
                    said = _told(reader, found, scope.scope, len(positions))
                    findings.append(Finding(reader.code, said, ids, rows, scope.scope))
            measured.append(scope)
        scopes = measured
    sentence = (
        "Whether words alone give the label away could not be judged for {}; at least "
        f"{FEWEST_GROUPS} groups of different texts are needed, {FEWEST_OF_A_LABEL} with either label."
    )
    return tuple(scopes), [*findings, *not_judged(sample.unjudged, sentence)]


def _told(reader: Reader, found: Judgement, scope: str, texts: int) -> str:
    return (
        f"{reader.tells} false texts from true ones{where(scope)}: AUROC {found.auroc:.2f}, interval {found.lo:.2f} to "
        f"{found.hi:.2f}, {p_value(found.p or 0.0)}, {count(texts, 'text')}; "
        f"{loudest(found, 'a false text', 'a true one')}. {reader.remedy}. Named are the {len(found.telling)} texts it "
        "is surest of."
    )
