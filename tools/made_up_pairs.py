"""Tables of pairs and of labelled texts whose truth is known: what `simulate_verdicts.py` tries the statistics on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bluffscope.stats import Resampling
from bluffscope.stats.analysis import judge_study
from bluffscope.stats.labelled import judge_texts
from bluffscope.stats.study import build_study
from bluffscope.stats.text_study import build_text_study

FAMILY = 20
"""Metrics of a table, independent of each other; their lengths and groups are the same."""
NOTHING_DRAWN = Resampling(flips=0)
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda length: length,
    "log": np.log,
    "sqrt": np.sqrt,
    "quadratic": np.square,
    "threshold": lambda length: (length > np.median(length)).astype(float),
    "saturating": lambda length: 1 - np.exp(-length / 4),
    "1/L": lambda length: 1 / length,
}


@dataclass(frozen=True)
class Data:
    """One made-up table: differences of all metrics and what belongs to its pairs."""

    differences: np.ndarray
    """(pair, metric)"""
    lengths: np.ndarray
    """(pair, 2) of fact and hallucination."""
    groups: np.ndarray | None = None
    answers: np.ndarray | None = None
    """(pair, 2) of closed completions."""

    def rows(self) -> pl.DataFrame:
        """The statistics of the metrics over all pairs."""
        pairs, metrics = self.differences.shape
        table = {f"m{metric}_fact": np.zeros(pairs) for metric in range(metrics)}
        table |= {f"m{metric}_hall": self.differences[:, metric] for metric in range(metrics)}
        table |= {"fact_tokens": self.lengths[:, 0], "hall_tokens": self.lengths[:, 1], "pair_id": np.arange(pairs)}
        texts = None
        if self.groups is not None:
            table["group"] = self.groups
        if self.answers is not None:
            prompts = [f"question {pair}" for pair in range(pairs)]
            texts = pl.DataFrame({"pair_id": table["pair_id"], "prompt": prompts})
            texts = texts.with_columns(fact=self.answers[:, 0], hallucination=self.answers[:, 1])
        study = build_study(pl.DataFrame(table), texts, carried=False)
        return judge_study(study, "scope", NOTHING_DRAWN)[0]


def lengths(rng: np.random.Generator, pairs: int, mean: float, sd: float = 2, longest: int = 8) -> np.ndarray:
    """(pair, 2): facts of 3 tokens and more, hallucinations longer by a rounded normal."""
    fact = rng.integers(3, longest + 1, pairs)
    return np.column_stack([fact, np.maximum(1, fact + rng.normal(mean, sd, pairs).round().astype(int))])


def noise(rng: np.random.Generator, pairs: int, kind: str = "normal") -> np.ndarray:
    """(pair, metric) with mean 0."""
    size = (pairs, FAMILY)
    if kind == "t2":
        return rng.standard_t(2, size)
    if kind == "skew":
        return rng.exponential(size=size) - 1
    found = rng.normal(size=size)
    return found.round() if kind == "ties" else found


def effect(
    rng: np.random.Generator, *, pairs: int, dz: float, mean: float, kind: str = "normal", longest: int = 8
) -> Data:
    """The same effect everywhere, and lengths that do not matter."""
    return Data(dz + noise(rng, pairs, kind), lengths(rng, pairs, mean, longest=longest))


def unequal_spread(rng: np.random.Generator, *, pairs: int) -> Data:
    """No effect; differences spread the more the more lengths differ."""
    both = lengths(rng, pairs, 0)
    return Data(noise(rng, pairs) * (1 + np.abs(both[:, 1] - both[:, 0]))[:, None], both)


def clustered(rng: np.random.Generator, *, pairs: int, groups: np.ndarray, dz: float = 0) -> Data:
    """Pairs of a group share half of their variance, and half of that of their lengths."""
    shared = noise(rng, int(groups.max()) + 1)[groups]
    fact = rng.integers(3, 9, pairs)
    differences = rng.normal(0, np.sqrt(2), int(groups.max()) + 1)[groups] + rng.normal(0, np.sqrt(2), pairs)
    both = np.column_stack([fact, np.maximum(1, fact + differences.round().astype(int))])
    return Data(dz * np.sqrt(2) + shared + noise(rng, pairs), both, groups)


def mirrors(rng: np.random.Generator, *, pairs: int, dz: float = 0) -> Data:
    """Counterbalanced: each pair's mirror has its fact for a hallucination; what texts do cancels, truth does not."""
    half = pairs // 2
    text, both = noise(rng, half), lengths(rng, half, 0)
    differences = np.concatenate([text, -text]) + noise(rng, pairs)
    return Data(dz * np.sqrt(2) + differences, np.concatenate([both, both[:, ::-1]]), np.tile(np.arange(half), 2))


def closed(rng: np.random.Generator, *, pairs: int, answers: Sequence[str], dz: float = 0, fixed: bool = False) -> Data:
    """Answers of a closed set, each with an effect of its own of 1 sd; `fixed`: the first is always the fact."""
    number = len(answers)
    fact = np.zeros(pairs, dtype=int) if fixed else rng.integers(0, number, pairs)
    hall = (fact + rng.integers(1, number, pairs)) % number
    wording = noise(rng, number)
    names = np.array(answers)[np.column_stack([fact, hall])]
    return Data(dz + wording[hall] - wording[fact] + noise(rng, pairs), np.ones((pairs, 2), dtype=int), answers=names)


def length_alone(rng: np.random.Generator, *, pairs: int, shape: str, mean: float, size: float) -> Data:
    """Length does everything: f(L_hall) - f(L_fact) with `size` times the noise's sd."""
    both = lengths(rng, pairs, mean)
    values = SHAPES[shape](both.astype(float))
    acts = values[:, 1] - values[:, 0]
    return Data(size * (acts / acts.std())[:, None] + noise(rng, pairs), both)


def slope(rng: np.random.Generator, *, pairs: int, by: float) -> Data:
    """Differences of slope x dL + noise of sd 1."""
    both = lengths(rng, pairs, 1)
    return Data(by * (both[:, 1] - both[:, 0])[:, None] + noise(rng, pairs)[:, :1], both)


@dataclass(frozen=True)
class Texts:
    """One made-up table of labelled texts."""

    values: np.ndarray
    """(text, metric)"""
    false: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray | None = None

    def rows(self) -> pl.DataFrame:
        """The statistics of the metrics over all texts."""
        table = {f"m{metric}": self.values[:, metric] for metric in range(self.values.shape[1])}
        table |= {"label": ~self.false, "text_tokens": self.lengths}
        if self.groups is not None:
            table["group"] = self.groups
        return judge_texts(build_text_study(pl.DataFrame(table), carried=False), "scope")[0]


def _labelled(rng: np.random.Generator, texts: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """(text,) labels, half of them false, and lengths of 3 to 10, the false ones longer by a rounded normal."""
    false = rng.permutation(np.arange(texts) % 2 == 0)
    longer = np.where(false, rng.normal(mean, 2, texts).round(), 0).astype(int)
    return false, np.maximum(1, rng.integers(3, 11, texts) + longer)


def text_effect(rng: np.random.Generator, *, texts: int, g: float, mean: float, kind: str = "normal") -> Texts:
    """The same effect everywhere, and lengths that do not matter."""
    false, both = _labelled(rng, texts, mean)
    spread = 1 + np.abs(both - 6)[:, None] / 2 if kind == "spread by length" else 1
    return Texts(g * false[:, None] + noise(rng, texts, kind) * spread, false, both)


def text_groups(rng: np.random.Generator, *, texts: int, mixed: bool, g: float = 0) -> Texts:
    """Four texts of a group share half of their variance; all have one label, or two have each."""
    groups = np.arange(texts) // 4
    false = np.arange(texts) % 2 == 0 if mixed else rng.permutation(np.arange(texts // 4) % 2 == 0)[groups]
    shared = noise(rng, texts // 4)[groups] + noise(rng, texts)
    both = rng.integers(3, 11, texts // 4)[groups] + rng.integers(0, 3, texts) + false
    return Texts(g * np.sqrt(2) * false[:, None] + shared, false, both, groups)


def text_length(rng: np.random.Generator, *, texts: int, shape: str, mean: float, size: float) -> Texts:
    """Length does everything: f(L) with `size` times the noise's sd."""
    false, both = _labelled(rng, texts, mean)
    acts = SHAPES[shape](both.astype(float))
    return Texts(size * ((acts - acts.mean()) / acts.std())[:, None] + noise(rng, texts), false, both)
