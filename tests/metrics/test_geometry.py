"""Batched geometry equals the d x d eigendecomposition of each read, and the slow reference, at every awkward size."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bluffscope.metrics import angles, spectrum
from bluffscope.metrics import geometry as fast
from bluffscope.metrics.geometry import Geometry
from bluffscope.metrics.sensitivity import shape_class
from bluffscope.records import Features
from bluffscope.reference import geometry as slow
from by_hand import sparse

SHAPE = ("sphericity", "elongation", "dimensionality", "eigenvalue_entropy")


def features(reads, d_sae):
    """Features from one {index: activation} a read."""
    counts = [len(read) for read in reads]
    ordered = [sorted(read.items()) for read in reads]
    return Features(
        indptr=torch.tensor([0, *np.cumsum(counts)], dtype=torch.int64),
        indices=torch.tensor([i for read in ordered for i, _ in read], dtype=torch.int64),
        values=torch.tensor([a for read in ordered for _, a in read], dtype=torch.float64),
        d_sae=d_sae,
    )


def measure_geometry(features, decoder):
    """What is measured, as arrays."""
    return Geometry(*(part.numpy() for part in fast.measure_geometry(features, decoder)))


def d_by_d(read, decoder):
    """Eigenvalues, descending, and the top eigenvector of C, formed as the definition says; with c and the scale."""
    index = sorted(read)
    rows = decoder[index]
    masses = np.array([read[i] for i in index])
    weights = masses / masses.sum()
    centroid = weights @ rows
    inertia = sum(w * np.outer(r - centroid, r - centroid) for w, r in zip(weights, rows, strict=True))
    values, vectors = np.linalg.eigh(inertia)
    return np.maximum(values[::-1], 0), vectors[:, -1], centroid, weights @ (rows**2).sum(1)


def check(read, decoder, found, at):
    """One read against numpy's eigendecomposition, definition by definition."""
    n, d = len(read), decoder.shape[1]
    got = {name: getattr(found, name)[at] for name in SHAPE}
    axis, centroid, misalignment = found.axis[at], found.centroid[at], found.misalignment[at]
    if n == 0:
        assert np.isnan([*got.values(), *axis, *centroid, misalignment]).all()
        return
    values, vector, expected_centroid, scale = d_by_d(read, decoder)
    np.testing.assert_allclose(centroid, expected_centroid, rtol=1e-9, atol=1e-12 * math.sqrt(scale))
    if n < 2 or values[0] <= 1e-24 * scale:
        assert np.isnan([*got.values(), *axis, misalignment]).all()
        return
    l1, l2, l3 = (*values, 0.0, 0.0)[:3]
    share = values[values > 0] / values.sum()
    expected = {
        "sphericity": math.sqrt(l3 / l1) if n >= 4 and d >= 3 else math.nan,
        "elongation": math.sqrt(l2 / l1) if n >= 3 and d >= 2 else math.nan,
        "dimensionality": values.sum() ** 2 / (values**2).sum(),
        "eigenvalue_entropy": -(share * np.log(share)).sum(),
    }
    for name in SHAPE:
        assert got[name] == pytest.approx(expected[name], abs=1e-6, nan_ok=True), name
    if l1 - l2 < 1e-6 * l1:
        assert np.isnan([*axis, misalignment]).all()
        return
    assert np.linalg.norm(axis) == pytest.approx(1)
    turned = 2 * math.asin(min(1, min(np.linalg.norm(axis - vector), np.linalg.norm(axis + vector)) / 2))
    assert turned < 1e-7 * l1 / (l1 - l2) + 1e-7
    length = np.linalg.norm(expected_centroid)
    if length == 0:
        assert np.isnan(misalignment)
    elif length > 1e-6 * math.sqrt(scale):
        cosine = min(1.0, abs(vector @ expected_centroid) / length)
        assert misalignment == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-4 + math.degrees(turned) * 2)


def borderline(read, decoder):
    """Whether rounding decides if something is defined."""
    if len(read) < 2:
        return False
    values, _, centroid, scale = d_by_d(read, decoder)
    l1, l2 = (*values, 0.0)[:2]
    gap = (l1 - l2) / l1 if l1 > 0 else 1.0
    zero_centroid = 0 < np.linalg.norm(centroid) < 1e-14 * math.sqrt(scale)
    return 1e-29 * scale < l1 < 1e-20 * scale or 1e-8 < gap < 1e-5 or zero_centroid


@st.composite
def dictionaries(draw, widths=(1, 2, 3, 4, 7)):
    """Decoder rows with repeats, opposites, zeros and near-equal ones among them."""
    d = draw(st.sampled_from(widths))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    rows = rng.normal(size=(12, d))
    for row in range(1, 12):
        kind = draw(st.sampled_from(["own", "own", "own", "repeat", "opposite", "zero", "near", "long"]))
        other = rows[draw(st.integers(0, row - 1))]
        if kind == "repeat":
            rows[row] = other
        elif kind == "opposite":
            rows[row] = -other
        elif kind == "zero":
            rows[row] = 0
        elif kind == "near":
            rows[row] = other + 1e-6 * rng.normal(size=d)
        elif kind == "long":
            rows[row] *= 1e3
    return rows


MASSES = st.sampled_from([1.0, 2.5, 0.3, 1e-3, 1e-6, 1e-12])
READS = st.lists(st.dictionaries(st.integers(0, 11), MASSES, max_size=12), min_size=1, max_size=6)


@settings(deadline=None, max_examples=300)
@given(dictionaries(), READS, st.sampled_from(["cpu", "cuda"]))
@pytest.mark.thorough
def test_geometry_equals_the_eigendecomposition_of_the_d_by_d_matrix(decoder, reads, layout):
    assume(not any(borderline(read, decoder) for read in reads))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "layout", lambda _: layout)
        found = measure_geometry(features(reads, 12), torch.from_numpy(decoder))
    for at, read in enumerate(reads):
        check(read, decoder, found, at)


@settings(deadline=None, max_examples=150)
@given(dictionaries(), READS)
def test_geometry_equals_the_slow_reference(decoder, reads):
    assume(not any(borderline(read, decoder) for read in reads))
    found = measure_geometry(features(reads, 12), torch.from_numpy(decoder))
    for at, read in enumerate(reads):
        index = sorted(read)
        expected = slow.geometry(np.array([read[i] for i in index]), decoder[index])
        for name, ours in zip((*SHAPE, "misalignment_angle"), (*SHAPE, "misalignment"), strict=True):
            value, got = getattr(expected, name), getattr(found, ours)[at]
            gap = 1 - (expected.elongation or 0) ** 2
            loose = 1e-2 if name == "misalignment_angle" and gap < 1e-3 else 1e-6 if name in SHAPE else 1e-4
            if name == "misalignment_angle" and np.linalg.norm(expected.centroid if read else [0]) < 1e-6:
                continue  # the direction of what rounding left of a centroid
            assert got == pytest.approx(math.nan if value is None else value, abs=loose, nan_ok=True), name
        assert (expected.axis is None) == np.isnan(found.axis[at]).all()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 15, 16, 17, 24, 60, 300])
def test_more_and_fewer_features_than_dimensions(n):
    rng = np.random.default_rng(n)
    decoder = rng.normal(size=(400, 16))
    read = dict(zip(rng.choice(400, n, replace=False).tolist(), rng.exponential(size=n).tolist(), strict=True))
    check(read, decoder, measure_geometry(features([read], 400), torch.from_numpy(decoder)), 0)


def mixed_reads(rng, count=70):
    sizes = [0, 1, 2, 3, 4, 5, 6, 9, 12, 40, 41, 100, *rng.integers(0, 100, size=count - 12).tolist()]
    return [
        dict(zip(rng.choice(120, n, replace=False).tolist(), rng.exponential(size=n).tolist(), strict=True))
        for n in sizes
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("layout", ["cpu", "cuda"])
@pytest.mark.parametrize("cells", [1, 2000, 1 << 22])
def test_reads_of_mixed_sizes_do_not_touch_each_other(cells, layout, monkeypatch):
    monkeypatch.setattr(spectrum, "layout", lambda _: layout)
    monkeypatch.setitem(fast.STACKED_CELLS, layout, cells)
    monkeypatch.setattr(fast, "GROUPED_CELLS", cells)
    rng = np.random.default_rng(0)
    reads, decoder = mixed_reads(rng), rng.normal(size=(120, 16))
    found = measure_geometry(features(reads, 120), torch.from_numpy(decoder))
    for at, read in enumerate(reads):
        check(read, decoder, found, at)
        single = measure_geometry(features([read], 120), torch.from_numpy(decoder))
        for name in SHAPE:
            assert getattr(found, name)[at] == pytest.approx(getattr(single, name)[0], rel=1e-9, nan_ok=True)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=30),
    st.integers(1, 9),
    st.sampled_from([1, 100, 1000, 10**6]),
    st.sampled_from(["cpu", "cuda"]),
)
def test_groups_hold_every_read_with_a_feature_once_and_fit_into_memory(counts, d_model, cells, layout):
    counts = np.array(counts, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fast.STACKED_CELLS, layout, cells)
        patch.setattr(fast, "GROUPED_CELLS", cells)
        groups = list(fast._groups(counts, d_model, layout))
        stacks = [[*fast._stacks(group, int(counts[group].max()) * d_model, layout)] for group in groups]
    assert sorted(read for group in groups for read in group.tolist()) == np.flatnonzero(counts).tolist()
    for group, parts in zip(groups, stacks, strict=True):
        assert np.concatenate(parts).tolist() == group.tolist()
        for part in parts:
            assert len(part) == 1 or len(part) * counts[group].max() * d_model <= cells
        assert counts[group].min() > 1 or counts[group].max() == 1  # one feature has no shape
        if layout == "cpu":
            assert len(parts) == 1
            assert counts[group].max() <= 1.25 * counts[group].min() + 4
        else:
            assert len(group) == 1 or len(group) * min(d_model, counts[group].max()) ** 2 <= cells
    assert all(counts[one].max() <= counts[other].min() for one, other in pairwise(groups))


def test_masses_scale_out_and_the_order_of_features_means_nothing():
    rng = np.random.default_rng(1)
    decoder, read = rng.normal(size=(20, 6)), {3: 0.5, 7: 2.0, 9: 1.0, 15: 0.1, 19: 4.0}
    order = rng.permutation(20)
    moved = {int(np.flatnonzero(order == index)[0]): mass for index, mass in read.items()}
    one = measure_geometry(features([read], 20), torch.from_numpy(decoder))
    for other in (
        measure_geometry(features([{i: 1e-9 * a for i, a in read.items()}], 20), torch.from_numpy(decoder)),
        measure_geometry(features([moved], 20), torch.from_numpy(decoder[order])),
    ):
        for name in (*SHAPE, "misalignment"):
            assert getattr(one, name)[0] == pytest.approx(getattr(other, name)[0], rel=1e-9)


def test_a_float32_decoder_is_measured_in_float64():
    rng = np.random.default_rng(2)
    decoder, reads = torch.from_numpy(rng.normal(size=(120, 16))).float(), mixed_reads(rng, 20)
    found = measure_geometry(features(reads, 120), decoder)
    assert {value.dtype for value in found} == {np.dtype("float64")}
    for at, read in enumerate(reads):
        check(read, decoder.double().numpy(), found, at)


vectors = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3).map(np.array)


@settings(deadline=None)
@given(vectors, vectors)
def test_angles_and_cosines_are_the_reference_s_and_keep_their_ranges(left, right):
    for ours, theirs, low, high in (
        (angles.angle, slow.angle, 0, 180),
        (angles.line_angle, slow.line_angle, 0, 90),
        (angles.cosine, slow.cosine, -1, 1),
    ):
        one, other = (torch.from_numpy(side)[None] for side in (left, right))
        got, expected = float(ours(one, other)[0]), theirs(left, right)
        assert got == pytest.approx(math.nan if expected is None else expected, abs=1e-9, nan_ok=True)
        assert math.isnan(got) or low <= got <= high + 1e-9
        assert got == pytest.approx(float(ours(other, one)[0]), abs=1e-9, nan_ok=True)


def test_angles_stay_exact_where_an_arccos_would_say_zero():
    u, v = torch.tensor([[[1.0, 0.0]], [[1.0, 1e-10]]], dtype=torch.float64)
    assert angles.angle(u, v)[0] == pytest.approx(math.degrees(1e-10), rel=1e-6)
    assert angles.line_angle(u, -v)[0] == pytest.approx(math.degrees(1e-10), rel=1e-6)
    assert angles.angle(u, u)[0] == 0


@pytest.mark.parametrize("elongation", [0.3, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, math.nan])
@pytest.mark.parametrize("sphericity", [0.3, 0.6, 0.7, 0.9, 0.95, math.nan])
def test_shape_classes_are_the_reference_s(elongation, sphericity):
    arguments = [None if math.isnan(value) else value for value in (elongation, sphericity)]
    assert shape_class(elongation, sphericity) == slow.shape_class(*arguments)


@pytest.mark.parametrize("layout", ["cpu", "cuda"])
def test_a_matrix_that_cannot_be_decomposed_is_undefined_and_its_neighbours_are_not(layout, monkeypatch):
    """Decoders of an SAE with weights at the end of the range: LAPACK does not converge."""
    monkeypatch.setattr(spectrum, "layout", lambda _: layout)
    good = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    values, top = spectrum.eigenvalues_and_top(torch.stack([good, torch.full_like(good, torch.nan), good]))
    assert values[1].isnan().all() and top[1].isnan().all()
    for place in (0, 2):
        torch.testing.assert_close(values[place], torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
        torch.testing.assert_close(top[place].abs(), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


def test_features_of_chosen_reads_come_in_their_order_and_as_often_as_asked():
    dense = torch.tensor([[0.0, 2, 3], [0, 0, 0], [1, 0, 0], [0, 5, 0]])
    chosen = torch.tensor([3, 0, 1, 0, 2])
    taken, expected = sparse(dense).take(chosen), sparse(dense[chosen])
    assert taken.indptr.tolist() == expected.indptr.tolist()
    assert taken.indices.tolist() == expected.indices.tolist()
    assert taken.values.tolist() == expected.values.tolist()
    assert sparse(dense).take(chosen[:0]).counts.tolist() == []
