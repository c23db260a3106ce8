"""The tool tested on the table itself: how often it finds what is not there, and how often what was put there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import binomtest

from bluffscope.pairs.links import FEWEST_CLUSTERS
from bluffscope.stats.effects import ALPHA, varies
from bluffscope.stats.held_constant import fit, hold_constant, one_sided, too_wide
from bluffscope.stats.linear_model import Estimate, design
from bluffscope.stats.multiplicity import Family, by_family
from bluffscope.stats.scopes import Scope
from bluffscope.stats.study import Block, Study
from bluffscope.stats.text_study import TextStudy
from bluffscope.stats.verdicts import EQUIVALENT_DZ, MIN_PAIRS

NULL_DRAWS: Final = 1000
PLANTED_DRAWS: Final = 200
PLANTED: Final = (0.2, 0.5, 0.8)
"""Effects, in standard deviations."""

_NULL_STREAM, _PLANTED_STREAM = 101, 102


class Tests(NamedTuple):
    """What decides `separates`, for each draw and metric of a scope."""

    p: np.ndarray
    """(test, draw, metric) the larger p of the raw and the adjusted effect, plain, with an allowance for skewness, and
    of equivalence; NaN where there is no test."""
    same_sign: np.ndarray
    """(draw, metric) whether the raw effect and the adjusted one point the same way."""


def null_control(study: Study, family: Family, seed: int, draws: int = NULL_DRAWS) -> pl.DataFrame:
    """How often a family has a false `separates` when the labels of pairs are flipped at random.

    d of a pair and what is held constant change their signs together: no effect is left, but lengths and answers keep
    their meaning. Where
    groups hold several pairs, a second set of rows flips whole groups: dependence between pairs, which the flips of
    single pairs break up, is kept there.

    Returns:
        family, flipped ("pair" or "group"), draws, found, rate, rate_lo, rate_hi (exact 95 % bounds of Clopper and
        Pearson): found counts draws with at least one `separates` in the family.
    """
    rng = np.random.default_rng([seed, _NULL_STREAM])
    rows: list[dict[str, object]] = []
    grouped = len(np.unique(study.groups)) < len(study.groups)
    for unit in ("pair", "group") if grouped else ("pair",):
        signs = _signs(study, unit, draws, rng)
        tests = [flipped_tests(study, scope, signs[:, scope.rows]) for scope in study.scopes]
        rows += null_shares(study, family, unit, tests)
    return pl.DataFrame(rows)


def null_shares(study: Study | TextStudy, family: Family, unit: str, tests: Sequence[Tests]) -> list[dict[str, object]]:
    """Rows of the null control: how many draws have a `separates`, by family; the tests are those of each scope."""
    false = [found.any(axis=-1) for found in separating(tests, family)]
    named = {scope.name: found for scope, found in zip(study.scopes, false, strict=True)}
    draws = len(tests[0].same_sign)
    if family == "all":
        named = {"all scopes": np.any(false, axis=0)}
    return [{"family": name, "flipped": unit} | _share(int(found.sum()), draws) for name, found in named.items()]


def planted_control(study: Study, family: Family, seed: int, draws: int = PLANTED_DRAWS) -> pl.DataFrame:
    """How often `separates` finds an effect of a known size in one metric, while no other metric has any.

    Labels are flipped as in `null_control`, by pair; then d_z times the metric's sd is added to its differences.
    Each metric has its turn; the others of its family stay flipped, as in a search for one real effect among many.

    Returns:
        metric, scope, planted_dz, draws, found, rate, rate_lo, rate_hi.
    """
    rng = np.random.default_rng([seed, _PLANTED_STREAM])
    signs = _signs(study, "pair", draws, rng)
    return planted_shares(
        study, family, "planted_dz", lambda scope, dz: flipped_tests(study, scope, signs[:, scope.rows], dz)
    )


def planted_shares(
    study: Study | TextStudy, family: Family, name: str, tests: Callable[[Scope, float], Tests]
) -> pl.DataFrame:
    """The planted control: how many draws find an effect in one metric at a time.

    Args:
        study: the table.
        family: what is corrected together.
        name: of the column that holds the effect.
        tests: those of a scope where every metric has an effect of this size; 0 for none.
    """
    null = [tests(scope, 0.0) for scope in study.scopes]
    rows: list[dict[str, object]] = []
    for place, scope in enumerate(study.scopes):
        for size in PLANTED:
            planted = tests(scope, size)
            for metric in np.flatnonzero(study.counted).tolist():
                turn = np.arange(len(study.metrics)) == metric
                mixed = Tests(*(np.where(turn, b, a) for a, b in zip(null[place], planted, strict=True)))
                family_tests = [mixed] if family == "scope" else [*null[:place], mixed, *null[place + 1 :]]
                found = separating(family_tests, family)[0 if family == "scope" else place][:, metric]
                rows.append(
                    {"metric": study.metrics[metric], "scope": scope.name, name: size}
                    | _share(int(found.sum()), len(found))
                )
    return pl.DataFrame(rows)


def separating(tests: Sequence[Tests], family: Family) -> list[np.ndarray]:
    """(draw, metric) for each scope: where the verdict would be `separates`."""
    plain, skewed, equivalent = (by_family([scope.p[test] for scope in tests], family) for test in range(3))
    return [
        scope.same_sign & (q < ALPHA) & (skew_q < ALPHA) & ~(equivalence_q < ALPHA)
        for scope, q, skew_q, equivalence_q in zip(tests, plain, skewed, equivalent, strict=True)
    ]


def flipped_tests(study: Study, scope: Scope, signs: np.ndarray, planted_dz: float = 0.0) -> Tests:
    """The tests of a scope under flips of its pairs, with an effect added to every metric.

    Args:
        study: the table.
        scope: one of its scopes.
        signs: (draw, pair of the scope) of 1 and -1.
        planted_dz: the effect that is added after flipping, in standard deviations of the differences.
    """
    tests = no_tests(len(signs), len(study.metrics))
    for block in study.blocks(scope):
        usable = varies(block.fact, block.hall) & study.counted[block.metrics]
        if len(block.rows) < MIN_PAIRS or int(block.groups.max()) + 1 < FEWEST_CLUSTERS or not usable.any():
            continue
        found = _block_tests(block, signs[:, np.searchsorted(scope.rows, block.rows)], planted_dz)
        metrics = block.metrics[usable]
        for whole, part in zip(tests, found, strict=True):
            whole[..., metrics] = part[..., usable]
    return tests


def _block_tests(block: Block, signs: np.ndarray, planted_dz: float) -> Tests:
    differences, ones = block.differences, np.ones(len(block.rows))
    # Flipped differences have mean 0: their spread is the root mean square.
    shift = planted_dz * np.sqrt((differences**2).mean(axis=0))
    held = hold_constant(block)
    mean = design(ones, np.empty((len(ones), 0)), block.groups)
    tests = no_tests(len(signs), len(shift))
    for draw, sign in enumerate(signs):
        # What is held constant changes its sign with the pair: the columns stay orthonormal.
        turned = replace(held, columns=sign[:, None] * held.columns)
        fitted = fit(ones, turned, block.groups)
        if isinstance(mean, str) or isinstance(fitted, str) or one_sided(sign * block.length_differences):
            continue
        drawn = sign[:, None] * differences + shift
        raw = mean.estimate(drawn)
        note_draw(tests, draw, raw, fitted.estimate(drawn))
    return tests


def note_draw(tests: Tests, draw: int, raw: Estimate, adjusted: Estimate) -> None:
    """Enter the tests of one draw."""
    adjusted = adjusted.where(~too_wide(adjusted, raw))
    tests.p[0, draw] = np.maximum(raw.p, adjusted.p)
    tests.p[1, draw] = np.maximum(raw.skew_p, adjusted.skew_p)
    tests.p[2, draw] = np.maximum(raw.equivalence_p(EQUIVALENT_DZ), adjusted.equivalence_p(EQUIVALENT_DZ))
    tests.same_sign[draw] = raw.effect * adjusted.effect > 0


def no_tests(draws: int, metrics: int) -> Tests:
    """Nothing tested yet."""
    return Tests(np.full((3, draws, metrics), np.nan), np.zeros((draws, metrics), dtype=bool))


def _signs(study: Study, unit: Literal["pair", "group"], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draw, row) of 1 and -1, the same for all pairs of a group where groups are flipped."""
    if unit == "pair":
        return 2.0 * rng.integers(0, 2, (draws, len(study.groups)), dtype=np.int8) - 1.0
    return (2.0 * rng.integers(0, 2, (draws, int(study.groups.max()) + 1), dtype=np.int8) - 1.0)[:, study.groups]


def _share(found: int, draws: int) -> dict[str, object]:
    bounds = binomtest(found, draws).proportion_ci(0.95, method="exact")
    return {
        "draws": draws,
        "found": found,
        "rate": found / draws,
        "rate_lo": float(bounds.low),
        "rate_hi": float(bounds.high),
    }
