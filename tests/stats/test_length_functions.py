"""Functions of length: what a spline is, how flexible, and that no effect within its span is left or added."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from bluffscope.stats import analyse_table
from bluffscope.stats.length_functions import OWN_FUNCTION, length_basis, length_columns, natural_spline
from studies import QUICK, random_table

seeds = st.integers(0, 2**32 - 1)
ADJUSTED = ("adj_mean_diff", "adj_dz", "adj_lo", "adj_hi", "adj_p")


def rank(columns) -> int:
    columns = columns / np.maximum(1e-300, np.abs(columns).max(axis=0))
    return int(np.linalg.matrix_rank(columns, tol=1e-8))


def spanned(columns: np.ndarray, values: np.ndarray) -> bool:
    """Whether the values are a sum of the columns and a constant."""
    everything = np.column_stack([np.ones(len(values)), columns / np.abs(columns).max(axis=0)])
    rest = values - everything @ np.linalg.lstsq(everything, values, rcond=None)[0]
    return bool(np.abs(rest).max() < 1e-8 * max(1.0, np.abs(values).max()))


def by_scipy(knots: np.ndarray, heights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The natural cubic spline through these points, straight beyond them."""
    spline = CubicSpline(knots, heights, bc_type="natural")
    inside = spline(np.clip(x, knots[0], knots[-1]))
    below, above = np.minimum(x - knots[0], 0), np.maximum(x - knots[-1], 0)
    return inside + spline(knots[0], 1) * below + spline(knots[-1], 1) * above


knots_of_a_spline = st.lists(st.integers(1, 60), min_size=3, max_size=8, unique=True).map(sorted).map(np.array)


@given(knots_of_a_spline)
def test_a_spline_has_a_column_fewer_than_knots_and_is_straight_beyond_them(knots):
    knots = knots.astype(float)
    grid = np.linspace(knots[0] - 40, knots[-1] + 40, 4000)
    columns = natural_spline(grid, knots)
    assert columns.shape == (4000, len(knots) - 1)
    assert spanned(columns, grid)
    bend = np.diff(columns, 2, axis=0) / np.abs(columns).max(axis=0)
    outside = (grid[2:] < knots[0]) | (grid[:-2] > knots[-1])
    assert np.abs(bend[outside]).max() < 1e-11


@given(knots_of_a_spline)
def test_value_slope_and_bend_go_on_through_every_knot(knots):
    knots = knots.astype(float)
    step = 1e-3 * np.diff(knots).min()
    for knot in knots:
        left = natural_spline(knot + step * np.arange(-4, 1), knots)
        right = natural_spline(knot + step * np.arange(5), knots)[::-1]
        scale = np.abs(natural_spline(knots, knots)).max(axis=0)
        slopes = [(3 * side[4] - 4 * side[3] + side[2]) / 2 for side in (left, right)]
        bends = [2 * side[4] - 5 * side[3] + 4 * side[2] - side[1] for side in (left, right)]
        assert (np.abs(slopes[0] + slopes[1]) < 1e-6 * scale).all()
        assert (np.abs(bends[0] - bends[1]) < 1e-6 * scale).all()


@given(knots_of_a_spline, seeds)
def test_every_natural_spline_on_the_knots_is_in_the_span(knots, seed):
    knots, rng = knots.astype(float), np.random.default_rng(seed)
    x = rng.uniform(knots[0] - 20, knots[-1] + 20, 300)
    columns = natural_spline(x, knots)
    assert spanned(columns, by_scipy(knots, rng.normal(size=len(knots)), x))
    assert not spanned(columns, x**2)


@given(knots_of_a_spline, seeds, st.floats(0.1, 50), st.floats(-100, 100))
def test_a_spline_does_not_care_for_the_unit_of_length_or_where_it_starts(knots, seed, unit, start):
    x = np.random.default_rng(seed).uniform(0, 70, 50)
    moved = natural_spline(unit * x + start, unit * knots.astype(float) + start)
    plain = natural_spline(x, knots.astype(float))
    assert moved[:, 1:] == pytest.approx(plain[:, 1:], rel=1e-6, abs=1e-9)
    assert spanned(plain[:, :1], moved[:, 0])


def test_two_knots_or_fewer_leave_a_straight_line():
    x = np.array([1.0, 2.0, 7.0])
    for knots in (np.array([]), np.array([2.0]), np.array([1.0, 2.0])):
        assert (natural_spline(x, knots) == x[:, None]).all()


@pytest.mark.parametrize(
    ("pairs", "degrees"), [(10, 1), (39, 1), (40, 2), (99, 2), (100, 4), (499, 4), (500, 8), (3000, 8)]
)
def test_the_more_pairs_the_more_flexible(pairs, degrees):
    lengths = np.random.default_rng(pairs).integers(3, 60, (pairs, 2)).astype(float)
    found = length_columns(lengths, np.zeros(pairs, dtype=int))
    assert found.shape[1] == rank(found) == degrees


@pytest.mark.parametrize(("most", "degrees"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_few_values_of_length_carry_few_degrees_of_freedom(most, degrees):
    lengths = np.random.default_rng(0).integers(1, most + 1, (600, 2)).astype(float)
    assert rank(length_columns(lengths, np.zeros(600, dtype=int))) == degrees


def test_equally_long_texts_have_nothing_held_constant():
    lengths = np.random.default_rng(0).integers(1, 30, 600).astype(float)
    assert not length_columns(np.stack([lengths, lengths], axis=1), np.zeros(600, dtype=int)).any()


def test_domains_of_a_hundred_pairs_have_functions_of_their_own_and_the_others_share_one():
    sizes = [OWN_FUNCTION, OWN_FUNCTION - 1, 500, 60]
    domains = np.repeat(np.arange(4), sizes)
    lengths = np.random.default_rng(0).integers(1, 40, (len(domains), 2)).astype(float)
    found = length_columns(lengths, domains)
    assert found.shape[1] == 4 + 8 + 4  # of domains 0 and 2, and of the 159 pairs that share
    for rows, columns in (
        (domains == 0, slice(0, 4)),
        (domains == 2, slice(4, 12)),
        (np.isin(domains, (1, 3)), slice(12, 16)),
    ):
        alone = length_columns(lengths[rows], np.zeros(rows.sum(), dtype=int))
        assert found[rows, columns] == pytest.approx(alone)
        assert not found[rows][:, np.setdiff1d(np.arange(16), np.arange(16)[columns])].any()
        assert not found[~rows, columns].any()
    basis = length_basis(lengths, domains)
    assert found == pytest.approx(basis[:, 1] - basis[:, 0])


def test_lengths_of_zero_have_a_logarithm_too():
    lengths = np.random.default_rng(0).integers(0, 9, (120, 2)).astype(float)
    assert np.isfinite(length_columns(lengths, np.zeros(120, dtype=int))).all()


def long_table(seed: int, pairs: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 30, (2, pairs))
    return random_table(seed, pairs, kinds=("normal", "nulls")).with_columns(
        fact_tokens=pl.Series(lengths[0]), hall_tokens=pl.Series(lengths[1])
    )


def adjusted(table: pl.DataFrame) -> np.ndarray:
    return (
        analyse_table(table, resampling=QUICK).rows.filter(metric="normal1").select(ADJUSTED).to_numpy().astype(float)
    )


@pytest.mark.thorough
@pytest.mark.parametrize(("shape", "pairs"), [("linear", 60), ("linear", 150), ("log", 150), ("spline", 320)])
def test_what_length_does_in_a_shape_of_the_span_changes_nothing_that_is_adjusted(shape, pairs):
    table, rng = long_table(pairs, pairs), np.random.default_rng(pairs)
    lengths = table.select("fact_tokens", "hall_tokens").to_numpy().astype(float)
    effects = np.zeros(lengths.shape)
    for domain in ("a", "b"):
        rows = (table["domain"] == domain).to_numpy()
        if shape == "spline":  # on the knots of the domain's own function, which pooled has too
            assert rows.sum() >= OWN_FUNCTION
            knots = np.unique(np.quantile(lengths[rows], np.linspace(0.05, 0.95, 4)))
            effects[rows] = 10 * by_scipy(knots, rng.normal(size=len(knots)), lengths[rows])
        else:
            effects[rows] = 3 * lengths[rows] if shape == "linear" else -20 * np.log(lengths[rows])
    sides = {f"normal1_{side}": pl.Series(effects[:, place]) for place, side in enumerate(("fact", "hall"))}
    moved = table.with_columns(pl.col(name) + effect for name, effect in sides.items())
    raw = [analyse_table(frame, resampling=QUICK).rows.filter(metric="normal1")["p"] for frame in (table, moved)]
    assert raw[0].to_numpy() != pytest.approx(raw[1].to_numpy(), rel=0.01)
    before = adjusted(table)
    assert np.isfinite(before[-1]).all()
    assert adjusted(moved) == pytest.approx(before, rel=1e-8, abs=1e-10, nan_ok=True)


@pytest.mark.thorough
@settings(max_examples=3, deadline=None)
@given(seeds, st.integers(60, 150))
def test_rows_names_units_and_signs_do_not_matter(seed, pairs):
    table, rng = long_table(seed, pairs), np.random.default_rng(seed)
    keys = ["metric", "scope", "n", "clusters", *("mean_diff", "dz", "dz_lo", "dz_hi", "p"), *ADJUSTED, "length_df"]
    keys += ["q", "raw_q", "adj_q", "skew_q", "equivalence_q", "verdict"]

    def found(frame):
        rows = analyse_table(frame, resampling=QUICK).rows.select(keys).sort("metric", "scope")
        return rows, rows.drop("metric", "scope", "verdict").to_numpy().astype(float)

    rows, numbers = found(table)
    names = {f"g{place}": f"h{other}" for place, other in enumerate(rng.permutation(pairs))}
    for other in (
        table[rng.permutation(pairs)],
        table.with_columns(pl.col("group").replace(names)),
        table.with_columns(pl.col("fact_tokens", "hall_tokens") * 3),
        table.with_columns(pl.col("^normal._(fact|hall)$") + 11),
    ):
        again, theirs = found(other)
        assert again["verdict"].equals(rows["verdict"])
        assert theirs == pytest.approx(numbers, rel=1e-6, abs=1e-8, nan_ok=True)
    negative, theirs = found(
        table.with_columns(-pl.col("^normal._fact$", "^normal._hall$", "^nulls._fact$", "^nulls._hall$"))
    )
    assert negative["verdict"].equals(rows["verdict"])
    order = [keys.index(name) - 2 for name in keys[2:-1]]
    for place, name in zip(order, keys[2:-1], strict=True):
        ours = numbers[:, place]
        if name in ("mean_diff", "dz", "adj_mean_diff", "adj_dz"):
            ours = -ours
        elif name.endswith(("_lo", "_hi")):
            twin = name[:-2] + {"lo": "hi", "hi": "lo"}[name[-2:]]
            ours = -numbers[:, keys.index(twin) - 2]
        assert theirs[:, place] == pytest.approx(ours, rel=1e-6, abs=1e-8, nan_ok=True), name
