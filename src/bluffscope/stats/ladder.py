"""The confound ladder: what is left of each effect, rung by rung, as more of what is not meaning is held constant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from bluffscope.stats.effects import varies
from bluffscope.stats.held_constant import MIN_EACH_SIDE, Held, completion_columns, fit, hold_constant, one_sided
from bluffscope.stats.leave_one_domain_out import FEWEST_OTHERS, slopes_known, transferred
from bluffscope.stats.linear_model import Estimate, span
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.study import Block, Study, numbered
from bluffscope.stats.verdicts import MIN_PAIRS, NO_VARIANCE, NO_VARIANCE_BETWEEN, few_pairs

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
    ("length", "spline"),
    ("length", "linear"),
    ("length", "log"),
    ("length_logprob", "spline"),
    ("length_logprob", "linear"),
    ("length_logprob", "log"),
    ("equal_length", "none"),
    (_HELD_OUT, "linear"),
    (_HELD_OUT, "log"),
)
"""Rung and form of length, from the bottom up."""

NO_LOGPROB: Final = "the table has no log-probabilities: analyze with --logprob"


class _Rung(NamedTuple):
    """One rung of the metrics of a block, or why there is none."""

    n: int
    estimate: Estimate | None = None
    reason: str | None = None
    spread: np.ndarray | None = None
    """(metric,) whether the differences that were fitted vary; None: those of the whole block."""


def confound_ladder(study: Study) -> pl.DataFrame:
    """Every metric in every scope on every rung (docs/statistics.md).

    Args:
        study: the table.

    Returns:
        `LADDER_SCHEMA`: scopes in order, in each the metrics, in each the rungs; d_z and p null with a reason where a
        rung cannot be computed.
    """
    return pl.concat([pl.DataFrame(schema=LADDER_SCHEMA), *(_of_scope(study, scope) for scope in study.scopes)])


def _of_scope(study: Study, scope: Scope) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for block in study.blocks(scope):
        held = hold_constant(block, study.closed_names)
        for key in RUNGS:
            if key[0] != _HELD_OUT:
                rows += _rows(block, key, _fitted_here(study, block, held, *key), scope)
    # A domain's slope comes from pairs that its own scope does not hold.
    whole = Scope(POOLED, np.arange(len(study.groups))) if scope.column == "domain" else scope
    domains = np.unique(study.domains[scope.rows]).tolist()
    for block in study.blocks(whole):
        for key in RUNGS:
            if key[0] == _HELD_OUT:
                rows += _rows(block, key, _fitted_elsewhere(block, domains, key[1]), scope)
    rows.sort(key=lambda row: (row[0], RUNGS.index(row[2:4])))
    named = [(study.metrics[metric], *rest) for metric, *rest in rows]
    return pl.DataFrame(named, schema=LADDER_SCHEMA, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


def _rows(block: Block, key: tuple[str, str], rung: _Rung, scope: Scope) -> Iterator[tuple[Any, ...]]:
    """Rows of `LADDER_SCHEMA`, with a metric's place for its name."""
    found, spread = rung.estimate, varies(block.fact, block.hall) if rung.spread is None else rung.spread
    columns = None if found is None else (found.standardised, *found.interval(), found.p)
    for column, metric in enumerate(block.metrics.tolist()):
        why = rung.reason or _undefined(found, column, key[0], varying=bool(spread[column]))
        numbers: tuple[float | None, ...] = (None,) * 4
        if why is None and columns is not None:
            dz, lo, hi, p = (values[column] for values in columns)
            numbers = (dz, lo, hi, p)
        yield metric, scope.name, *key, rung.n, *numbers, why


def _fitted_here(study: Study, block: Block, held: Held, rung: str, form: str) -> _Rung:
    """A rung whose fit, if any, is to the scope's own pairs."""
    number = len(block.rows)
    everything = np.ones(number, dtype=bool)
    if number < MIN_PAIRS:
        return _Rung(number, reason=few_pairs(number))
    if rung == "raw":
        return _measured(block, everything, replace(held, columns=np.empty((number, 0)), barred=None))
    if rung == "equal_length":
        if not np.isfinite(block.lengths).all():
            return _Rung(0, reason="lengths unknown")
        equal = block.length_differences == 0
        if equal.sum() < MIN_PAIRS:
            return _Rung(int(equal.sum()), reason=f"{equal.sum()} pairs of equal length, fewer than {MIN_PAIRS}")
        return _measured(block, equal, replace(held, columns=np.empty((int(equal.sum()), 0)), barred=None))
    if held.barred is not None:
        return _Rung(number, reason=held.barred)
    if isinstance(length := _length(block.lengths, form), str):
        return _Rung(number, reason=length)
    columns = held.columns if form == "spline" else np.column_stack([length, completion_columns(block.closed)[0]])
    if rung == "length":
        return _measured(block, everything, replace(held, columns=columns if form == "spline" else span(columns)))
    surprise = study.logprobs[block.rows, 1] - study.logprobs[block.rows, 0]
    known = np.isfinite(surprise)
    if known.sum() < MIN_PAIRS:
        return _Rung(int(known.sum()), reason=NO_LOGPROB)
    if one_sided(surprise[known]):
        sides = "a hallucination no more probable than the fact", "one no less probable"
        return _Rung(int(known.sum()), reason=_one_sided(*sides))
    both = span(np.column_stack([columns, surprise])[known])
    return _measured(block, known, replace(held, columns=both))


def _measured(block: Block, chosen: np.ndarray, held: Held) -> _Rung:
    """The chosen pairs' effect with columns held constant."""
    fitted = fit(np.ones(int(chosen.sum())), held, numbered(block.groups[chosen]))
    if isinstance(fitted, str):
        return _Rung(int(chosen.sum()), reason=fitted)
    spread = varies(block.fact[chosen], block.hall[chosen])
    return _Rung(int(chosen.sum()), fitted.estimate(block.differences[chosen]), spread=spread)


def _length(lengths: np.ndarray, form: str) -> np.ndarray | str:
    """(pair,) the difference of lengths, or of their logarithms; a sentence where it cannot be had."""
    if form == "log" and (lengths <= 0).any():
        return "a completion of length 0 has no logarithm"
    known = np.log(lengths) if form == "log" else lengths
    return known[:, 1] - known[:, 0]


def _fitted_elsewhere(block: Block, held: Sequence[int], form: str) -> _Rung:
    """The rung whose slopes come from other domains than those that they are applied to."""
    number = int(np.isin(block.domains, held).sum())
    if number < MIN_PAIRS:
        return _Rung(number, reason=few_pairs(number))
    if not np.isfinite(block.lengths).all():
        return _Rung(number, reason="lengths unknown")
    if isinstance(length := _length(block.lengths, form), str):
        return _Rung(number, reason=length)
    if len(np.unique(block.domains)) < 2:
        return _Rung(number, reason="there is no other domain")
    if not slopes_known(length, block.domains, held):
        few = f"the other domains have fewer than {FEWEST_OTHERS} pairs, or no differences in length"
        return _Rung(number, reason=few)
    return _Rung(number, transferred(block.differences, length, block.domains, held, block.groups))


def _undefined(found: Estimate | None, column: int, rung: str, *, varying: bool) -> str | None:
    """Why one metric has no value on a rung that others have."""
    if not varying:
        return NO_VARIANCE
    if found is None or not np.isfinite([found.effect[column], found.error[column]]).all():
        free = rung in ("raw", "equal_length")
        return NO_VARIANCE_BETWEEN if free else "what is held constant explains every difference"
    return None


def _one_sided(one: str, other: str) -> str:
    return f"an extrapolation: fewer than {MIN_EACH_SIDE} pairs have {one}, or fewer than {MIN_EACH_SIDE} {other}"
