"""The one linear model: against refits without each cluster, and against its own formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bluffscope.stats.linear_model import Design, Estimate, by_group, design, span
from studies import jackknife, regression

EXACT = {"rel": 1e-9, "abs": 1e-12}
seeds = st.integers(0, 2**32 - 1)


def prepared(target, columns, clusters) -> Design:
    found = design(np.asarray(target, dtype=float), span(columns), np.asarray(clusters))
    assert isinstance(found, Design), found
    return found


def estimated(values, columns, clusters, target=None) -> Estimate:
    target = np.ones(len(values)) if target is None else target
    return prepared(target, columns, clusters).estimate(np.asarray(values, dtype=float))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 5), st.integers(1, 9), st.sampled_from(["many", "one large", "sparse"]))
def test_the_error_over_clusters_is_that_of_fits_without_each_of_them(seed, columns, most, kind):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, 12 + columns)
    if kind == "one large":
        sizes[0] = 40  # more rows than columns
    clusters = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    values, held = regression(seed, len(clusters), columns)
    if kind == "sparse" and columns:
        # A column that only two clusters have: without either there is less of it, and the mean is still known.
        held[:, 0] = np.where(np.isin(clusters, (0, 1)), rng.choice([-1.0, 1.0], len(clusters)), 0.0)
    values = values + rng.normal(size=(len(sizes), 3))[clusters]
    target = np.ones(len(clusters))
    found = estimated(values, held, clusters, target)
    effect, error = jackknife(values, held / np.maximum(1e-300, np.abs(held).max(axis=0)), clusters, target)
    assert found.effect == pytest.approx(effect, rel=1e-8, abs=1e-10)
    assert found.error == pytest.approx(error, rel=1e-8, abs=1e-10)
    assert found.freedom == (len(sizes) - 1 if len(sizes) < len(clusters) else len(clusters) - 1 - columns)


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_a_column_that_one_cluster_alone_has_leaves_the_mean_of_the_others(size):
    rng = np.random.default_rng(size)
    clusters = np.concatenate([np.zeros(size, dtype=int), 1 + np.arange(24) // 2])
    values, held = regression(size, len(clusters), 2)
    held[:, 0] = np.where(clusters == 0, rng.normal(size=len(clusters)), 0.0)
    target = np.ones(len(clusters))
    found = estimated(values, held, clusters, target)
    effect, error = jackknife(values, held, clusters, target)
    assert found.effect == pytest.approx(effect, **EXACT)
    assert found.error == pytest.approx(error, **EXACT)


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_where_one_cluster_alone_tells_the_mean_from_the_columns_there_is_no_design(size):
    clusters = np.concatenate([np.zeros(size, dtype=int), 1 + np.arange(24) // 2])
    # All others have a 1 there: without the first cluster the column is the mean.
    held = np.where(clusters == 0, 0.0, 1.0)[:, None]
    assert design(np.ones(len(clusters)), span(held), clusters) == "one cluster"


def test_what_cannot_be_told_apart_or_leaves_nothing_over_has_no_design():
    rng = np.random.default_rng(0)
    held, ones = rng.normal(size=(30, 3)), np.ones(30)
    alone = np.arange(30)
    assert design(ones, span(np.column_stack([held, 2 - held[:, 0], held[:, 0]])), alone) == "unidentified"
    assert design(ones[:4], span(held[:4]), alone[:4]) == "no freedom"
    assert design(ones, span(held), np.zeros(30, dtype=int)) == "no freedom"
    assert isinstance(design(ones, span(held), alone), Design)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 20), st.integers(1, 6), st.integers(0, 3))
def test_a_span_is_orthonormal_and_holds_every_column_however_scaled(seed, rows, columns, repeats):
    rng = np.random.default_rng(seed)
    given_columns = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-6, 6, columns)
    given_columns = np.column_stack([given_columns, given_columns[:, :repeats], np.zeros((rows, 1))])
    found = span(given_columns)
    assert found.shape == (rows, min(rows, columns))
    assert found.T @ found == pytest.approx(np.eye(found.shape[1]), abs=1e-12)
    scale = np.abs(given_columns).max(axis=0)
    assert np.abs(given_columns - found @ (found.T @ given_columns)).max(axis=0) == pytest.approx(
        np.zeros(len(scale)), abs=1e-9 * scale.max()
    )


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(6, 200), st.floats(-0.8, 0.8), st.integers(1, 4))
def test_the_interval_holds_the_effects_between_whose_tails_the_found_t_lies(seed, rows, effect, size):
    clusters = np.arange(rows) // size
    values = np.random.default_rng(seed).normal(effect, 1, (rows, 20))
    found = estimated(values, np.empty((rows, 0)), clusters)
    lo, hi = found.interval()
    unit = found.error / found.sd
    assert stats.nct.cdf(found.t, found.freedom, lo / unit) == pytest.approx(0.975, abs=1e-6)
    assert stats.nct.cdf(found.t, found.freedom, hi / unit) == pytest.approx(0.025, abs=1e-6)
    assert ((lo < found.standardised) & (found.standardised < hi)).all()
    clear = np.abs(found.p - 0.05) > 1e-7
    assert (((lo <= 0) & (hi >= 0)) == (found.p > 0.05))[clear].all()
    narrow = found.interval(0.8)
    assert ((lo < narrow[0]) & (narrow[1] < hi)).all()
    assert (((narrow[0] <= 0) & (narrow[1] >= 0)) == (found.p > 0.2))[np.abs(found.p - 0.2) > 1e-7].all()


def test_an_interval_of_an_enormous_effect_is_still_one():
    values = np.random.default_rng(0).normal([0.5, 5, 50, 500], 1, (400, 4))
    lo, hi = estimated(values, np.empty((400, 0)), np.arange(400)).interval()
    middle = (lo + hi) / 2
    assert middle == pytest.approx(values.mean(axis=0) / values.std(axis=0, ddof=1), rel=0.01)
    assert (hi - lo > 0.15).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(5, 60))
def test_the_allowance_for_skewness_only_ever_takes_evidence_away(seed, rows):
    values = np.random.default_rng(seed).exponential(size=(rows, 20)) - np.linspace(0, 2, 20)
    found = estimated(values, np.empty((rows, 0)), np.arange(rows))
    assert (found.skew_p >= found.p).all()
    assert (found.skew_p <= 1).all()
    assert estimated(-values, np.empty((rows, 0)), np.arange(rows)).skew_p == pytest.approx(found.skew_p, rel=1e-9)


def test_the_allowance_for_skewness_by_hand():
    values = np.array([[1.0], [2], [3], [6]] * 5)
    found = estimated(values, np.empty((20, 0)), np.arange(20))
    residuals = np.array([-2.0, -1, 0, 3])
    error = np.sqrt(5 * 14) / 19  # HC3: each residual by 1 - 1/20, the mean weighs each by 1/20
    skewness = 5 * (residuals**3).sum() / (5 * 14) ** 1.5
    assert found.error[0] == pytest.approx(error, **EXACT)
    assert found.skewness[0] == pytest.approx(skewness, **EXACT)
    assert found.evenness == pytest.approx(20, **EXACT)
    # Skewness of 18 / 14^1.5 leans towards positive means; of 20 clusters, 180 / 20^2 may be hidden. To the other side
    # what was found adds to it.
    for shift, adverse in ((-2, 180 / 20**2 - skewness), (-4, 180 / 20**2 + skewness)):
        moved = estimated(values + shift, np.empty((20, 0)), np.arange(20))
        t = (3 + shift) / error
        assert moved.t[0] == pytest.approx(t, **EXACT)
        heavier = adverse * (2 * t**2 + 1) / 6 * stats.t.pdf(t, 19)
        assert moved.skew_p[0] == pytest.approx(2 * (stats.t.sf(abs(t), 19) + heavier), **EXACT)


def test_with_many_clusters_the_allowance_for_skewness_vanishes():
    gaps = []
    for clusters in (20, 200, 20_000):
        values = np.random.default_rng(0).normal(size=(2 * clusters, 1))
        values += 2.5 * np.sqrt(1 / (2 * clusters)) - values.mean()
        found = estimated(values, np.empty((2 * clusters, 0)), np.arange(2 * clusters) // 2)
        gaps.append(found.skew_p[0] / found.p[0] - 1)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.1


@pytest.mark.parametrize(("clusters", "size"), [(2, 1), (5, 1), (5, 4), (40, 3)])
def test_equal_clusters_of_a_mean_are_as_many_as_they_are(clusters, size):
    found = prepared(np.ones(clusters * size), np.empty((clusters * size, 0)), np.arange(clusters * size) % clusters)
    assert found.evenness == pytest.approx(clusters, **EXACT)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 4), st.integers(1, 6))
def test_evenness_is_satterthwaites_from_the_eigenvalues_of_what_makes_the_error(seed, columns, most):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, 10 + columns)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    held = rng.normal(size=(len(clusters), columns))
    found = prepared(np.ones(len(clusters)), held, clusters)
    everything = np.column_stack([np.ones(len(clusters)), held])
    left_over = np.eye(len(clusters)) - everything @ np.linalg.pinv(everything)
    # The error's square is the sum over clusters of (moves of the cluster . left_over . values)².
    rows = np.stack([left_over[clusters == one].T @ found.moves[clusters == one] for one in range(len(sizes))])
    values = np.linalg.eigvalsh(rows @ rows.T)
    assert found.evenness == pytest.approx(1 + values.sum() ** 2 / (values**2).sum(), rel=1e-8)
    assert found.evenness <= len(sizes) + 1e-9


def test_one_cluster_that_outweighs_the_others_counts_as_few():
    clusters = np.concatenate([np.zeros(100, dtype=int), np.arange(1, 101)])
    assert prepared(np.ones(200), np.empty((200, 0)), clusters).evenness < 4


def test_values_on_the_fit_have_an_effect_and_no_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1))
    values = np.column_stack([2 + 3 * x, np.full(20, 7.1), rng.normal(size=20)])
    found = estimated(values, x, np.arange(20))
    assert found.effect[:2] == pytest.approx([2, 7.1], **EXACT)
    for part in (found.error, found.sd, found.skewness, found.t, found.p, found.skew_p, *found.interval()):
        assert np.isnan(part[:2]).all()
        assert np.isfinite(part[2])


def test_clusters_whose_differences_cancel_leave_rounding_and_no_error():
    half = np.random.default_rng(0).normal(size=(60, 2))
    mirrors = np.concatenate([half, -half]) + [0, 0.3]
    found = estimated(mirrors, np.empty((120, 0)), np.arange(120) % 60)
    assert np.isnan(found.error).all()
    assert np.isnan(found.p).all()
    assert np.isnan(found.interval()).all()


def test_what_is_not_known_is_taken_out_of_an_estimate():
    values, held = regression(0, 30, 1)
    found = estimated(values, held, np.arange(30))
    known = found.where(np.array([True, False, True]))
    assert np.isnan([known.effect[1], known.p[1], known.skew_p[1]]).all()
    assert (known.p[[0, 2]] == found.p[[0, 2]]).all()


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_order_of_rows_and_the_numbers_of_clusters_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    clusters = np.unique(rng.integers(0, 20, 50), return_inverse=True)[1]
    values, held = regression(seed, 50, 3)
    found = estimated(values, held, clusters)
    order, names = rng.permutation(50), rng.permutation(clusters.max() + 1)
    other = estimated(values[order], held[order], names[clusters][order])
    for one, two in zip(found, other, strict=True):
        assert one == pytest.approx(two, rel=1e-9, abs=1e-11)
    assert by_group(values, clusters, 20)[3] == pytest.approx(values[clusters == 3].sum(axis=0))
