"""The five analyses on features made by hand, against the definitions and the slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bluffscope.host.noise import unit_noise
from bluffscope.metrics import ANALYSES, ON_REQUEST
from bluffscope.metrics import consistency as CONSISTENCY  # noqa: N812
from bluffscope.metrics import stability as STABILITY  # noqa: N812
from bluffscope.metrics.active import padded
from bluffscope.metrics.consistency import compared_layers, cross_layer
from bluffscope.metrics.entropy import entropy
from bluffscope.metrics.misalignment import semantic_misalignment
from bluffscope.metrics.sensitivity import gini, layer_sensitivity
from bluffscope.metrics.stability import stability
from bluffscope.reference import geometry as slow
from bluffscope.table.schema import measured_columns
from by_hand import measurement, sparse, state

ACTIVATIONS = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.just(60)),
    elements=st.one_of(st.just(0.0), st.floats(1e-6, 1e6)),
    fill=st.just(0.0),
)


def same(ours, theirs, **tolerance):
    expected = math.nan if theirs is None else theirs
    assert float(ours) == pytest.approx(expected, nan_ok=True, **(tolerance or {"abs": 1e-9}))


# --- gini, entropy, padded --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(ACTIVATIONS)
def test_gini_is_the_reference_s_and_keeps_its_range(dense):
    found = gini(sparse(dense))
    for ours, row in zip(found, dense, strict=True):
        active = row[row > 0]
        same(ours, slow.gini(active))
        assert math.isnan(ours) or -1e-12 <= ours <= 1 - 1 / len(active) + 1e-12


@settings(deadline=None)
@given(ACTIVATIONS, st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_gini_and_entropy_know_no_scale_and_no_order(dense, scale, shuffler):
    order = list(range(dense.shape[1]))
    shuffler.shuffle(order)
    moved = scale * dense[:, order]
    np.testing.assert_allclose(gini(sparse(moved)), gini(sparse(dense)), atol=1e-9)
    np.testing.assert_allclose(entropies(moved), entropies(dense), atol=1e-9)


def entropies(dense):
    """The entropy at each read, each as the fact of a pair of its own."""
    rows = np.repeat(dense, 3, axis=0)
    return entropy(measurement(state(0, rows)))["entropy_fact"]


@settings(deadline=None)
@given(ACTIVATIONS)
def test_entropy_is_that_of_the_fifty_strongest_and_at_most_ln_fifty(dense):
    for ours, row in zip(entropies(dense), dense, strict=True):
        same(ours, slow.magnitude_entropy(row[row > 0]))
        assert math.isnan(ours) or -1e-12 <= ours <= math.log(50) + 1e-12


def test_equal_activations_have_gini_zero_and_the_entropy_of_their_number():
    dense = np.zeros((4, 60))
    for row, n in enumerate((1, 2, 50, 60)):
        dense[row, :n] = 0.7
    np.testing.assert_allclose(gini(sparse(dense)), 0, atol=1e-12)
    np.testing.assert_allclose(entropies(dense), np.log([1, 2, 50, 50]), atol=1e-12)


@settings(deadline=None)
@given(arrays(np.float64, (3, 12), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0])))
def test_the_strongest_come_first_and_of_equal_ones_the_lower_index(dense):
    values, indices = padded(sparse(dense))
    top = STABILITY._top(sparse(dense))
    assert top.shape == (3, 10)
    for row in range(3):
        active = sorted(np.flatnonzero(dense[row]).tolist(), key=lambda index: (-dense[row, index], index))
        n = len(active)
        assert indices[row, :n].tolist() == active
        assert values[row, :n].tolist() == dense[row, active].tolist()
        assert not values[row, n:].any()
        assert (indices[row, n:] == -1).all()
        assert set(top[row].tolist()) - {-1} == slow.top_features(dense[row]) == set(active[:10])


# --- stability --------------------------------------------------------------------------------------------------------

SETS = st.lists(st.sets(st.integers(0, 15), max_size=10), min_size=1, max_size=4)


@settings(deadline=None)
@given(SETS, st.randoms(use_true_random=False))
def test_jaccard_is_that_of_sets_whatever_their_order(sets, shuffler):
    def table(members):
        rows = [shuffler.sample(sorted(one), len(one)) for one in members]
        return torch.tensor([row + [-1] * (10 - len(row)) for row in rows])

    others = sets[1:] + sets[:1]
    found = STABILITY._overlap(table(sets), table(others))
    assert torch.equal(found.nan_to_num(-1), STABILITY._overlap(table(others), table(sets)).nan_to_num(-1))
    for ours, one, other in zip(found, sets, others, strict=True):
        same(ours, slow.jaccard(frozenset(one), frozenset(other)))
    for ours, one in zip(STABILITY._overlap(table(sets), table(sets)), sets, strict=True):
        same(ours, 1.0 if one else None)


def stability_by_hand(residual, pair, view, layer, s, draws, seed):
    """The definition: mean over draws of the Jaccard similarity of the ten strongest; the features are relu(x)."""
    clean = slow.top_features(residual)
    noise = [unit_noise(seed, pair, view, layer, draw, tokens=1, d_model=len(residual))[0] for draw in range(draws)]
    return slow.mean(slow.jaccard(clean, slow.top_features(np.maximum(residual + s * e, 0))) for e in noise)


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_stability_is_the_mean_over_draws_of_noise_that_belongs_to_pair_view_and_layer(mode):
    rng = np.random.default_rng(0)
    residual = rng.normal(size=(6, 40)) * np.array([1, 1, 3, 1, 0.3, 1])[:, None]
    measured = measurement(
        state(7, np.maximum(residual, 0), residual=residual, reconstruction=residual),
        noise_std=0.4,
        noise_mode=mode,
        noise_draws=5,
        noise_sweep=(0.0, 2.0),
        seed=3,
    )
    columns = stability(measured)
    for read, (pair, view) in enumerate((pair, view) for pair in range(2) for view in ("prompt", "fact", "hall")):
        if view == "prompt":
            continue
        size = math.sqrt((residual[read] ** 2).mean()) if mode == "relative" else 1.0
        for name, s in (("stability", 0.4), ("stability_s0", 0.0), ("stability_s2", 2.0)):
            expected = stability_by_hand(residual[read], f"p{pair}", view, 7, s * size, 5, 3)
            same(columns[f"{name}_{view}"][pair], expected)
    assert columns["stability_s0_fact"].tolist() == [1, 1]
    assert (columns["stability_s2_fact"] < columns["stability_fact"]).all()


def test_stability_is_the_mean_of_the_draws_in_which_both_sets_hold_a_feature():
    clean = [[1, 1], [0, 0], [1, 1]]  # the fact is silent

    def hall_after(*draws):
        answers = iter(draws)
        measured = measurement(
            state(0, clean, residual=clean, reconstruction=clean),
            encode=lambda layer, noisy: sparse([[1.0, 0.0], next(answers)]),
            noise_draws=len(draws),
        )
        columns = stability(measured)
        assert np.isnan([columns["stability_fact"][0], columns["stability_diff"][0]]).all()
        return columns["stability_hall"][0]

    assert hall_after([1.0, 0.0], [0.0, 0.0]) == 0.5
    assert hall_after([1.0, 0.0], [2.0, 3.0]) == 0.75
    assert math.isnan(hall_after([0.0, 0.0], [0.0, 0.0]))


# --- cross-layer consistency ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(*[arrays(np.float64, (3, 9), elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.0]))] * 2)
def test_the_sparse_cosine_is_the_dense_one(left, right):
    found = CONSISTENCY._feature_cosine(sparse(left), sparse(right))
    for ours, one, other in zip(found, left, right, strict=True):
        same(ours, slow.cosine(one, other))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [((4,), None), ((4, 9), (4, 9)), ((4, 9, 11), (9, 11)), ((1, 2, 3, 4), (3, 4)), ((9, 4, 2), (4, 2))],
)
def test_the_middle_and_the_last_layer_are_compared(layers, expected):
    assert compared_layers(layers) == expected


def test_alignment_is_that_of_reconstructions_and_consistency_needs_equal_widths():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 4))
    states = state(0, np.ones((3, 5)), reconstruction=one), state(2, np.ones((3, 7)), reconstruction=other)
    columns = cross_layer(measurement(*states))
    same(columns["cross_layer_alignment_fact"][0], slow.cosine(one[1], other[1]))
    same(columns["cross_layer_alignment_hall"][0], slow.cosine(one[2], other[2]))
    assert np.isnan(columns["cross_layer_consistency_fact"]).all()
    alone = cross_layer(measurement(states[0]))
    assert all(np.isnan(values).all() for values in alone.values())
    equal = cross_layer(measurement(states[0], state(2, np.ones((3, 5)), reconstruction=np.zeros((3, 4)))))
    same(equal["cross_layer_consistency_fact"][0], 1.0)
    assert np.isnan(equal["cross_layer_alignment_fact"]).all()


# --- reads into pairs -------------------------------------------------------------------------------------------------


def test_a_view_s_value_is_the_mean_over_the_reads_where_it_is_defined():
    reads = [(0, 0), (0, 1), (0, 1), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 2)]
    measured = measurement(state(0, np.ones((9, 3))), reads=reads)
    values = np.array([1, 2, np.nan, 6, np.nan, 5, 7, 8, 10.0])
    np.testing.assert_array_equal(measured.by_view(values), [[1, 4, np.nan], [5, 7, 9]])
    columns = measured.fact_hall_diff("x", values)
    np.testing.assert_array_equal(columns["x_fact"], [4, 7])
    np.testing.assert_array_equal(columns["x_hall"], [np.nan, 9])
    np.testing.assert_array_equal(columns["x_diff"], [np.nan, 2])
    assert measured.prompt_read.tolist() == [0] * 5 + [5] * 4


def test_each_read_of_a_completion_is_compared_with_its_own_prompt():
    rng = np.random.default_rng(3)
    reads = [(0, 0), (0, 1), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 2)]
    dense, decoder = rng.exponential(size=(8, 12)), rng.normal(size=(12, 4))
    columns = semantic_misalignment(measurement(state(0, dense, decoder=decoder), reads=reads))
    shapes = [slow.geometry(row, decoder) for row in dense]
    for pair, view, name in ((0, 1, "fact"), (0, 2, "hall"), (1, 1, "fact"), (1, 2, "hall")):
        prompt = shapes[reads.index((pair, 0))]
        own = [shape for shape, read in zip(shapes, reads, strict=True) if read == (pair, view)]
        drift = slow.mean(slow.angle(prompt.centroid, shape.centroid) for shape in own)
        same(columns[f"centroid_drift_{name}"][pair], drift, abs=1e-6)
        same(
            columns[f"axis_twist_{name}"][pair], slow.mean(slow.line_angle(prompt.axis, s.axis) for s in own), abs=1e-6
        )


def test_layer_sensitivity_is_the_reference_s_for_several_reads_and_silent_ones():
    rng = np.random.default_rng(4)
    reads = [(0, 0), (0, 1), (0, 1), (0, 1), (0, 2), (0, 2)]
    dense = rng.exponential(size=(6, 12)) * (rng.random((6, 12)) < 0.6)
    dense[2], dense[4], dense[5] = 0, 0, 0  # one of three reads is silent; the whole of the other completion
    x, y, decoder = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)), rng.normal(size=(12, 4))
    x[3] = 0
    columns = layer_sensitivity(measurement(state(5, dense, x, y, decoder), reads=reads))
    shapes = [slow.geometry(row[row > 0], decoder[row > 0]) for row in dense]
    for view, name in enumerate(("prompt", "fact", "hall")):
        chosen = [index for index, read in enumerate(reads) if read == (0, view)]
        expected = slow.layer_metrics(x[chosen], y[chosen], dense[chosen], [shapes[index] for index in chosen])
        for metric, value in expected.items():
            ours = columns[f"l5_{name}_{metric}"][0]
            if metric == "shape_class":
                assert ours == value
            else:
                same(ours, value, abs=1e-6)
    assert columns["l5_hall_l0_norm"][0] == 0
    assert math.isnan(columns["l5_hall_gini"][0])


def test_the_analyses_give_the_columns_that_the_schema_declares():
    rng = np.random.default_rng(5)
    states = [state(layer, rng.exponential(size=(6, 4)), rng.normal(size=(6, 4))) for layer in (3, 1, 2)]
    measured = measurement(*states, noise_sweep=(0.5,), noise_draws=1)
    given_names = {name for analysis in ANALYSES for name in analysis.function(measured)}
    assert given_names == {
        column.name
        for column in measured_columns((3, 1, 2), (0.5,))
        if column.section not in {analysis.name for analysis in ON_REQUEST}
    }
