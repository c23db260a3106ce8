"""The confound ladder: what is left of each effect, rung by rung, as more of what is not meaning is held constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.stats.cells import Resampling
from bluffscope.stats.effects import varies
from bluffscope.stats.intercepts import Moments, intercepts
from bluffscope.stats.leave_one_domain_out import FEWEST_OTHERS, resampled, slopes_known, transferred
from bluffscope.stats.length_control import MIN_EACH_SIDE, length_state
from bluffscope.stats.resampling import draws, ends, units
from bluffscope.stats.signed_rank import wilcoxon
from bluffscope.stats.study import POOLED, Block, Scope, Study
from bluffscope.stats.verdicts import MIN_PAIRS, few_pairs

LADDER_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("metric", "scope", "rung", "form"), pl.String())
    | {"n": pl.Int64()}
    | dict.fromkeys(("dz", "lo", "hi", "p"), pl.Float64())
    | {"reason": pl.String()}
)
"""One row a metric, scope, rung and form; docs/statistics.md says what each is."""

_HELD_OUT: Final = "held_out_domain"
RUNGS: Final = (
    ("raw", "none"),
    ("length", "linear"),
    ("length", "log"),
    ("length_logprob", "linear"),
    ("length_logprob", "log"),
    ("equal_length", "none"),
    (_HELD_OUT, "linear"),
    (_HELD_OUT, "log"),
)
"""Rung and form of length, from the bottom up."""

NO_LOGPROB: Final = "the table has no log-probabilities: analyze with --logprob"
_STREAM: Final = 3

Draw = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Rung:
    """One rung of the metrics of a block, or why there is none."""

    n: int
    dz: np.ndarray | None = None
    """(metric,)"""
    p: np.ndarray | None = None
    """(metric,)"""
    draw: Draw | None = None
    """(resample, metric) d_z, given (resample, group) counts."""
    reason: str | None = None


@dataclass(frozen=True)
class _Pairs:
    """What the rungs of one block are computed from."""

    metrics: np.ndarray
    """(metric,) their places in the study."""
    differences: np.ndarray
    """(pair, metric)"""
    spread: np.ndarray
    """(metric,) whether the differences vary."""
    lengths: np.ndarray
    """(pair, 2)"""
    logprobs: np.ndarray
    """(pair, 2)"""
    domains: np.ndarray
    """(pair,)"""
    groups: np.ndarray
    """(pair,) what is resampled whole."""

    @classmethod
    def of(cls, study: Study, block: Block) -> _Pairs:
        spread, rows = varies(block.fact, block.hall), block.rows
        logprobs, domains = study.logprobs[rows], study.domains[rows]
        return cls(block.metrics, block.differences, spread, block.lengths, logprobs, domains, units(block.groups))

    def length(self, form: str) -> np.ndarray | str:
        """(pair,) the difference of lengths, or of their logarithms; a sentence where it cannot be had."""
        if not np.isfinite(self.lengths).all():
            return "lengths unknown"
        if form == "log" and (self.lengths <= 0).any():
            return "a completion of length 0 has no logarithm"
        lengths = np.log(self.lengths) if form == "log" else self.lengths
        return lengths[:, 1] - lengths[:, 0]


def confound_ladder(study: Study, resampling: Resampling) -> pl.DataFrame:
    """Every metric in every scope on every rung (docs/statistics.md).

    Args:
        study: the table.
        resampling: seed and number of resamples of groups.

    Returns:
        `LADDER_SCHEMA`: scopes in order, in each the metrics, in each the rungs; d_z and p null with a reason where a
        rung cannot be computed.
    """
    return pl.concat([pl.DataFrame(schema=LADDER_SCHEMA), *(_of_scope(study, s, resampling) for s in study.scopes)])


def _of_scope(study: Study, scope: Scope, resampling: Resampling) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for block in study.blocks(scope):
        pairs = _Pairs.of(study, block)
        rungs = {key: _fitted_here(pairs, *key) for key in RUNGS if key[0] != _HELD_OUT}
        rows += _rows(pairs, rungs, scope, resampling)
    # A domain's slope comes from pairs that its own scope does not hold.
    whole = Scope(POOLED, np.arange(len(study.groups))) if scope.column == "domain" else scope
    held = np.unique(study.domains[scope.rows]).tolist()
    for block in study.blocks(whole):
        pairs = _Pairs.of(study, block)
        rungs = {key: _fitted_elsewhere(pairs, held, key[1]) for key in RUNGS if key[0] == _HELD_OUT}
        rows += _rows(pairs, rungs, scope, resampling)
    rows.sort(key=lambda row: (row[0], RUNGS.index(row[2:4])))
    named = [(study.metrics[metric], *rest) for metric, *rest in rows]
    return pl.DataFrame(named, schema=LADDER_SCHEMA, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


def _rows(
    pairs: _Pairs, rungs: dict[tuple[str, str], _Rung], scope: Scope, resampling: Resampling
) -> Iterator[tuple[Any, ...]]:
    """Rows of `LADDER_SCHEMA`, with a metric's place for its name."""
    intervals = _intervals(list(rungs.values()), int(pairs.groups.max(initial=-1)) + 1, scope, resampling)
    for (key, rung), (lo, hi) in zip(rungs.items(), intervals, strict=True):
        for column, metric in enumerate(pairs.metrics.tolist()):
            why = rung.reason or _undefined(rung, pairs, column)
            numbers: tuple[float | None, ...] = (None,) * 4
            if why is None and rung.dz is not None and rung.p is not None:
                numbers = (rung.dz[column], lo[column], hi[column], rung.p[column])
            yield metric, scope.name, *key, rung.n, *numbers, why


def _fitted_here(pairs: _Pairs, rung: str, form: str) -> _Rung:
    """A rung whose fit, if any, is to the scope's own pairs."""
    number = len(pairs.differences)
    if number < MIN_PAIRS:
        return _Rung(number, reason=few_pairs(number))
    if rung == "raw":
        return _tested(pairs, np.ones(number, dtype=bool))
    if isinstance(length := pairs.length("linear" if form == "none" else form), str):
        return _Rung(number if rung != "equal_length" else 0, reason=length)
    if rung == "equal_length":
        equal = np.equal(length, 0)
        if equal.sum() < MIN_PAIRS:
            return _Rung(int(equal.sum()), reason=f"{equal.sum()} pairs of equal length, fewer than {MIN_PAIRS}")
        return _tested(pairs, np.asarray(equal))
    if length_state(length) == "one-sided":
        return _Rung(number, reason=_one_sided("a hallucination no longer than the fact", "one no shorter"))
    if rung == "length":
        return _regressed(pairs, np.ones(number, dtype=bool), length[:, None])
    known = np.isfinite(pairs.logprobs.sum(axis=1))
    if known.sum() < MIN_PAIRS:
        return _Rung(int(known.sum()), reason=NO_LOGPROB)
    surprise = pairs.logprobs[:, 1] - pairs.logprobs[:, 0]
    if length_state(surprise[known]) == "one-sided":
        sides = "a hallucination no more probable than the fact", "one no less probable"
        return _Rung(int(known.sum()), reason=_one_sided(*sides))
    return _regressed(pairs, known, np.column_stack([length, surprise])[known])


def _tested(pairs: _Pairs, chosen: np.ndarray) -> _Rung:
    """The chosen pairs' own differences."""
    differences = pairs.differences[chosen]
    found = _regressed(pairs, chosen, np.empty((len(differences), 0)))
    return _Rung(found.n, found.dz, wilcoxon(differences), found.draw)


def _regressed(pairs: _Pairs, chosen: np.ndarray, regressors: np.ndarray) -> _Rung:
    # A regressor that is 0 everywhere is held constant already.
    regressors = regressors[:, (regressors != 0).any(axis=0)]
    differences = pairs.differences[chosen]
    fit = intercepts(differences, regressors)
    mean, number = differences.mean(axis=0), int(pairs.groups.max()) + 1
    moments = Moments.by_group(differences - mean, regressors, pairs.groups[chosen], number)
    p = fit.p if regressors.shape[1] else wilcoxon(differences)
    return _Rung(len(differences), fit.dz, p, lambda counts: moments.drawn(counts).dz(mean))


def _fitted_elsewhere(pairs: _Pairs, held: Sequence[int], form: str) -> _Rung:
    """The rung whose slopes come from other domains than those that they are applied to."""
    number = int(np.isin(pairs.domains, held).sum())
    if number < MIN_PAIRS:
        return _Rung(number, reason=few_pairs(number))
    if isinstance(length := pairs.length(form), str):
        return _Rung(number, reason=length)
    if len(np.unique(pairs.domains)) < 2:
        return _Rung(number, reason="there is no other domain")
    if not slopes_known(length, pairs.domains, held):
        few = f"the other domains have fewer than {FEWEST_OTHERS} pairs, or no differences in length"
        return _Rung(number, reason=few)
    found = transferred(pairs.differences, length, pairs.domains, held)
    draw = resampled(pairs.differences, length, pairs.domains, held, pairs.groups)
    return _Rung(number, found.dz, found.p, draw)


def _intervals(
    rungs: Sequence[_Rung], groups: int, scope: Scope, resampling: Resampling
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """95 % percentile intervals of each rung: all rungs see the same resamples of groups."""
    rng = resampling.generator(scope, _STREAM)
    drawn: list[list[np.ndarray]] = [[] for _ in rungs]
    for counts in draws(groups, resampling.resamples if groups > 1 else 0, rng, groups):
        for rung, parts in zip(rungs, drawn, strict=True):
            if rung.draw is not None:
                parts.append(rung.draw(counts))
    for rung, parts in zip(rungs, drawn, strict=True):
        none = np.full(0 if rung.dz is None else len(rung.dz), np.nan)
        lo, hi = ends(np.concatenate(parts)) if parts else (none, none)
        yield lo, hi


def _undefined(rung: _Rung, pairs: _Pairs, column: int) -> str | None:
    """Why one metric has no value on a rung that others have."""
    if not pairs.spread[column]:
        return "all differences are equal (zero variance)"
    if rung.dz is None or rung.p is None or not np.isfinite([rung.dz[column], rung.p[column]]).all():
        return "one pair alone sets a slope, or what is held constant explains every difference"
    return None


def _one_sided(one: str, other: str) -> str:
    return f"an extrapolation: fewer than {MIN_EACH_SIDE} pairs have {one}, or fewer than {MIN_EACH_SIDE} {other}"
