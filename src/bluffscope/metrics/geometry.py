"""Weighted inertia of the active decoder directions (docs/definitions.md).

With weights w_i = a_i / sum a and positions r_i = W_dec[i], the inertia tensor is
C = sum w_i (r_i - c)(r_i - c)^T around the centroid c = sum w_i r_i. C is d x d, but its non-zero
eigenvalues are those of the n x n Gram matrix Y Y^T, Y = diag(sqrt w)(R - 1 c^T), so the smaller of
the two is decomposed. Reads with about as many active features are done together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from bluffscope.metrics.angles import line_angle
from bluffscope.records import Features

ZERO_SPREAD = 1e-24
"""l1 counts as zero at or below this share of sum w_i |r_i|^2: what rounding leaves of equal directions."""
DEGENERATE_GAP = 1e-6
"""The principal axis is undefined where l1 - l2 is below this share of l1."""
_SHIFT = 1e-10
"""Distance of the inverse iteration's shift from l1, as a share of it: far above rounding, far below any gap."""
_STEPS = 4
_BLOCK_CELLS = 1 << 20
"""Cells of the stacked Y matrices held at once: 8 MB."""


class Geometry(NamedTuple):
    """Geometry of every read, float64; NaN where a quantity is undefined."""

    centroid: Float[np.ndarray, "read d_model"]
    """c: weighted mean of the active decoder rows (not of the residual)."""
    axis: Float[np.ndarray, "read d_model"]
    """Unit eigenvector of l1; its sign is arbitrary."""
    sphericity: Float[np.ndarray, " read"]
    """sqrt(l3 / l1), 0 to 1."""
    elongation: Float[np.ndarray, " read"]
    """sqrt(l2 / l1), 0 to 1."""
    dimensionality: Float[np.ndarray, " read"]
    """Participation ratio (sum l)^2 / sum l^2, from 1."""
    eigenvalue_entropy: Float[np.ndarray, " read"]
    """-sum p ln p of p = l / sum l, in nats."""
    misalignment: Float[np.ndarray, " read"]
    """Angle in degrees, 0 to 90, between the line of the axis and c."""


def measure_geometry(features: Features, decoder: Float[torch.Tensor, "d_sae d_model"]) -> Geometry:
    """Geometry of the active directions of every read."""
    counts = features.counts.cpu().numpy()
    reads, d_model = len(counts), decoder.shape[1]
    centroid = np.full((reads, d_model), np.nan)
    axis = np.full((reads, d_model), np.nan)
    shape = np.full((4, reads), np.nan)  # sphericity, elongation, dimensionality, eigenvalue entropy
    for block in _blocks(counts, d_model):
        weights, positions = _gather(features, decoder, block, int(counts[block].max()))
        centre = torch.bmm(weights[:, None], positions).squeeze(1)  # (b, 1, n) x (b, n, d) to (b, d)
        centroid[block] = centre.numpy()
        if counts[block[0]] >= 2:
            shape[:, block], axis[block] = _spectrum(weights, positions, centre, counts[block])
    sphericity, elongation, dimensionality, entropy = shape
    return Geometry(centroid, axis, sphericity, elongation, dimensionality, entropy, line_angle(axis, centroid))


def _blocks(counts: np.ndarray, d_model: int) -> Iterator[np.ndarray]:
    """Indices of reads with similar n > 0, as many as fit into a block; those with n = 1 by themselves."""
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    start = 0
    while start < len(order):
        smallest = counts[order[start]]
        stop = start + 1
        while stop < len(order):
            width = counts[order[stop]]
            if (
                smallest == 1 < width
                or width > 1.25 * smallest + 4
                or (stop + 1 - start) * width * d_model > _BLOCK_CELLS
            ):
                break
            stop += 1
        yield order[start:stop]
        start = stop


def _gather(
    features: Features, decoder: torch.Tensor, block: np.ndarray, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (b, n) and positions (b, n, d) of a block in float64 on the CPU; missing features weigh 0."""
    reads = torch.from_numpy(block).to(features.indptr.device)
    starts, counts = features.indptr[reads], features.counts[reads]
    slot = torch.arange(width, device=starts.device)
    there = slot < counts[:, None]  # (b, n)
    source = torch.where(there, starts[:, None] + slot, starts[:, None])
    values = torch.where(there, features.values[source], 0).cpu().double()
    positions = decoder[features.indices[source]].cpu().double()
    return values / values.sum(1, keepdim=True), positions


def _spectrum(
    weights: torch.Tensor, positions: torch.Tensor, centre: torch.Tensor, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shape numbers (4, b) and principal axes (b, d) of reads with at least two active features.

    The positions are overwritten.
    """
    spread = positions.sub_(centre[:, None]).mul_(weights.sqrt()[..., None])  # Y: (b, n, d), in place of R
    by_gram = spread.shape[1] <= spread.shape[2]
    tensor = spread @ spread.mT if by_gram else spread.mT @ spread
    values, top = _eigenvalues_and_top(tensor)
    values = torch.nn.functional.pad(values, (0, max(0, 3 - values.shape[1])))
    axes = torch.bmm(top[:, None], spread).squeeze(1) if by_gram else top  # (b, 1, n) x (b, n, d) to (b, d)
    axes = axes / axes.norm(dim=1, keepdim=True)

    l1, l2, l3 = values[:, :3].unbind(1)
    trace = values.sum(1)
    scale = trace + centre.square().sum(1)  # sum w |r|^2 = sum w |r - c|^2 + |c|^2
    share = values / trace[:, None]
    numbers = torch.stack(
        [
            (l3 / l1).sqrt(),
            (l2 / l1).sqrt(),
            trace**2 / (values**2).sum(1),
            -torch.xlogy(share, share).sum(1),
        ]
    ).numpy()
    d_model = spread.shape[2]
    numbers[0, (counts < 4) | (d_model < 3)] = np.nan
    numbers[1, (counts < 3) | (d_model < 2)] = np.nan
    flat = (l1 <= ZERO_SPREAD * scale).numpy()
    numbers[:, flat] = np.nan
    result = axes.numpy()
    result[flat | (l1 - l2 < DEGENERATE_GAP * l1).numpy()] = np.nan
    return numbers, result


def _eigenvalues(tensor: torch.Tensor) -> torch.Tensor:
    """Eigenvalues (b, n), ascending; NaN for matrices that LAPACK cannot decompose (SAEs of extreme weights)."""
    try:
        return torch.linalg.eigvalsh(tensor)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        if len(tensor) == 1:
            return torch.full(tensor.shape[:2], torch.nan, dtype=tensor.dtype, device=tensor.device)
        return torch.cat([_eigenvalues(one) for one in tensor.split(1)])


def _eigenvalues_and_top(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (b, n), largest first, and the first's unit eigenvector (b, n), of positive matrices (b, n, n).

    The other eigenvectors, which nobody asks for, are most of the work of a full decomposition. Inverse iteration
    with a shift of 1e-10 l1 gains a factor 1e-10 l1 / (l1 - l2) a step, so four steps reach rounding at any gap above
    `DEGENERATE_GAP`; the shifted matrix is positive definite, so that its Cholesky factor exists. Where it does not
    (a matrix of zeros, say), all eigenvectors are computed after all.
    """
    values = _eigenvalues(tensor).clamp_min(0).flip(1)
    shifted = -tensor
    shifted.diagonal(dim1=1, dim2=2).add_(values[:, :1] * (1 + _SHIFT))
    factor, failed = torch.linalg.cholesky_ex(shifted)
    # Any start that is not orthogonal to the axis will do; sums of rows are: Y^T sqrt(w) = 0.
    start = torch.arange(1, tensor.shape[1] + 1, dtype=tensor.dtype).cos()
    top = start[None, :, None].expand(len(tensor), -1, 1)
    for _ in range(_STEPS):
        top = torch.cholesky_solve(top / top.norm(dim=1, keepdim=True), factor)
    top = (top / top.norm(dim=1, keepdim=True)).squeeze(2)
    missed = (failed != 0) | ~top.isfinite().all(1)
    if bool(missed.any()):
        top[missed] = torch.nan
        missed &= values.isfinite().all(1)
        top[missed] = torch.linalg.eigh(tensor[missed]).eigenvectors[..., -1]
    return values, top
