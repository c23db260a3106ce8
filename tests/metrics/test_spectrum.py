"""Eigenvalues found together, as on a GPU, equal LAPACK's, whatever the matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.metrics.spectrum import found_together


def matrices(seed, n, rank, decades):
    """Five positive semi-definite matrices, some of them special."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -decades, rank, dtype=torch.float64)
    rows = torch.randn(5, n, rank, generator=generator, dtype=torch.float64) * scales
    made = rows @ rows.mT
    made[1] = 0
    made[2] = torch.eye(n)
    made[3] = rows[3, :, :1] @ rows[3, :, :1].mT  # of rank 1: what is left after a step is nothing but rounding
    return made


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.integers(1, 60),
    st.sampled_from([0, 3, 12, 30]),
    st.sampled_from([1e-280, 1e-3, 1.0, 1e30]),
)
def test_eigenvalues_equal_lapack_s_to_rounding(seed, n, rank, decades, scale):
    tensor = matrices(seed, n, rank, decades) * scale
    expected = torch.linalg.eigvalsh(tensor)
    found = found_together(tensor)
    assert bool((found.diff(dim=1) >= 0).all())
    assert bool(((found - expected).abs() <= 1e-14 * n**0.5 * expected[:, -1:].abs() + 1e-300).all())


def test_the_largest_matrices_of_wide_saes_lose_nothing():
    tensor = matrices(0, 200, 300, 4)
    expected = torch.linalg.eigvalsh(tensor)
    torch.testing.assert_close(found_together(tensor), expected, rtol=0, atol=1e-14 * float(expected.max()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_numbers_that_are_not_finite_spoil_their_own_matrix_alone(bad):
    tensor = matrices(1, 7, 9, 1)
    expected = torch.linalg.eigvalsh(tensor)
    tensor[4, 2, 3] = tensor[4, 3, 2] = bad
    found = found_together(tensor)
    assert found[4].isnan().all()
    torch.testing.assert_close(found[:4], expected[:4], rtol=0, atol=1e-12)
