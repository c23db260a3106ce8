"""The tool tested on a table of labelled texts itself: with labels drawn at random, and with effects planted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import polars as pl

from bluffscope.pairs.links import FEWEST_CLUSTERS
from bluffscope.stats.controls import (
    NULL_DRAWS,
    PLANTED_DRAWS,
    Tests,
    no_tests,
    note_draw,
    null_shares,
    planted_shares,
)
from bluffscope.stats.held_texts import FEWEST_OF_A_LABEL, nothing_held, text_columns, texts_vary
from bluffscope.stats.linear_model import design
from bluffscope.stats.multiplicity import Family
from bluffscope.stats.scopes import Scope
from bluffscope.stats.text_study import TextBlock, TextStudy

_NULL_STREAM: Final = 111
_PLANTED_STREAM: Final = 112


def null_control(study: TextStudy, family: Family, seed: int, draws: int = NULL_DRAWS) -> pl.DataFrame:
    """How often a family has a false `separates` when the texts' labels change places at random.

    Values, lengths and answers stay where they are. Where groups hold several texts, a second set of rows moves the
    labels of whole groups to others of the same size, in any order within them: dependence between texts is kept there.

    Returns:
        family, flipped ("text" or "group"), draws, found, rate, rate_lo, rate_hi: see `bluffscope.stats.controls`.
    """
    rng = np.random.default_rng([seed, _NULL_STREAM])
    rows: list[dict[str, object]] = []
    grouped = len(np.unique(study.groups)) < len(study.groups)
    for unit in ("text", "group") if grouped else ("text",):
        labels = _labels(study, rng, draws, by_group=unit == "group")
        tests = [drawn_tests(study, scope, labels[:, scope.rows]) for scope in study.scopes]
        rows += null_shares(study, family, unit, tests)
    return pl.DataFrame(rows)


def planted_control(study: TextStudy, family: Family, seed: int, draws: int = PLANTED_DRAWS) -> pl.DataFrame:
    """How often `separates` finds an effect of a known size in one metric, while no other metric has any.

    Labels change places as in `null_control`, text by text; then g times the metric's sd is added to false texts.

    Returns:
        metric, scope, planted_g, draws, found, rate, rate_lo, rate_hi.
    """
    labels = _labels(study, np.random.default_rng([seed, _PLANTED_STREAM]), draws, by_group=False)
    return planted_shares(
        study, family, "planted_g", lambda scope, size: drawn_tests(study, scope, labels[:, scope.rows], size)
    )


def drawn_tests(study: TextStudy, scope: Scope, labels: np.ndarray, planted: float = 0.0) -> Tests:
    """The tests of a scope under drawn labels, with an effect added to every metric.

    Args:
        study: the table.
        scope: one of its scopes.
        labels: (draw, text of the scope) whether it is false.
        planted: the effect that is added to false texts, in standard deviations of the values.
    """
    tests = no_tests(len(labels), len(study.metrics))
    for block in study.blocks(scope):
        usable = texts_vary(block.values) & study.counted[block.metrics]
        known = np.isfinite(block.lengths).all()
        if not known or int(block.groups.max(initial=-1)) + 1 < FEWEST_CLUSTERS or not usable.any():
            continue
        found = _block_tests(block, labels[:, np.searchsorted(scope.rows, block.rows)], planted)
        for whole, part in zip(tests, found, strict=True):
            whole[..., block.metrics[usable]] = part[..., usable]
    return tests


def _block_tests(block: TextBlock, labels: np.ndarray, planted: float) -> Tests:
    shift = planted * block.values.std(axis=0)
    level, held = nothing_held(len(block.rows)).columns, text_columns(block).together
    tests = no_tests(len(labels), len(shift))
    for draw, false in enumerate(labels):
        if min(false.sum(), (~false).sum()) < FEWEST_OF_A_LABEL:
            continue
        target = false.astype(float)
        mean, fitted = (design(target, columns, block.groups) for columns in (level, held))
        if isinstance(mean, str) or isinstance(fitted, str):
            continue
        drawn = block.values + target[:, None] * shift
        note_draw(tests, draw, mean.estimate(drawn), fitted.estimate(drawn))
    return tests


def _labels(study: TextStudy, rng: np.random.Generator, draws: int, *, by_group: bool) -> np.ndarray:
    """(draw, row) whether each text is false."""
    if not by_group:
        return rng.permuted(np.tile(study.false, (draws, 1)), axis=1)
    found = np.empty((draws, len(study.false)), dtype=bool)
    for rows in _of_a_size(study.groups):
        for draw in found:
            draw[rows] = rng.permuted(study.false[rows[rng.permutation(len(rows))]], axis=1)
    return found


def _of_a_size(groups: np.ndarray) -> Iterator[np.ndarray]:
    """(group, text) rows of all groups of one size, size by size."""
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes[sizes > 0]):
        yield order[starts[sizes == size][:, None] + np.arange(size)]
