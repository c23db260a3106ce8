"""Weighted inertia of the active decoder directions (docs/definitions.md).

With weights w_i = a_i / sum a and positions r_i = W_dec[i], the inertia tensor is
C = sum w_i (r_i - c)(r_i - c)^T around the centroid c = sum w_i r_i. C is d x d, but its non-zero
eigenvalues are those of the n x n Gram matrix Y Y^T, Y = diag(sqrt w)(R - 1 c^T), so the smaller of
the two is decomposed. Reads with about as many active features are done together, where the features are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from bluffscope.metrics import spectrum
from bluffscope.metrics.angles import line_angle
from bluffscope.records import Features

ZERO_SPREAD: Final = 1e-24
"""l1 counts as zero at or below this share of sum w_i |r_i|^2: what rounding leaves of equal directions."""
DEGENERATE_GAP: Final = 1e-6
"""The principal axis is undefined where l1 - l2 is below this share of l1."""
STACKED_CELLS: Final = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Cells of the stacked Y matrices held at once, by layout: 8 MB on a CPU, whose caches should hold them."""
GROUPED_CELLS: Final = 1 << 25
"""Cells of the matrices that are decomposed together on CUDA, where the number of operations is what takes time: reads
of any number of features, in as many stacks of Y as they fill. On a CPU each stack is a group."""


class Geometry(NamedTuple):
    """Geometry of every read, float64, where it was computed; NaN where a quantity is undefined."""

    centroid: Float[torch.Tensor, "read d_model"]
    """c: weighted mean of the active decoder rows (not of the residual)."""
    axis: Float[torch.Tensor, "read d_model"]
    """Unit eigenvector of l1; its sign is arbitrary."""
    sphericity: Float[torch.Tensor, " read"]
    """sqrt(l3 / l1), 0 to 1."""
    elongation: Float[torch.Tensor, " read"]
    """sqrt(l2 / l1), 0 to 1."""
    dimensionality: Float[torch.Tensor, " read"]
    """Participation ratio (sum l)^2 / sum l^2, from 1."""
    eigenvalue_entropy: Float[torch.Tensor, " read"]
    """-sum p ln p of p = l / sum l, in nats."""
    misalignment: Float[torch.Tensor, " read"]
    """Angle in degrees, 0 to 90, between the line of the axis and c."""


def measure_geometry(features: Features, decoder: Float[torch.Tensor, "d_sae d_model"]) -> Geometry:
    """Geometry of the active directions of every read."""
    counts, device, d_model = features.counts.cpu().numpy(), features.values.device, decoder.shape[1]
    centroid = torch.full((len(counts), d_model), torch.nan, dtype=torch.float64, device=device)
    axis, shape = torch.full_like(centroid, torch.nan), centroid.new_full((4, len(counts)), torch.nan)
    layout = spectrum.layout(device)
    for group in _groups(counts, d_model, layout):
        width = int(counts[group].max())
        stacks = [torch.from_numpy(stack).to(device) for stack in _stacks(group, width * d_model, layout)]
        tensors, spread = list[torch.Tensor](), centroid
        for reads in stacks:
            centroid[reads], spread = _cloud(features, decoder, reads, width)
            tensors.append(spread @ spread.mT if width <= d_model else spread.mT @ spread)
        if width == 1:
            continue
        values, tops = spectrum.eigenvalues_and_top(torch.cat(tensors))
        for reads, top in zip(stacks, tops.split([len(reads) for reads in stacks]), strict=True):
            if width <= d_model:  # by the Gram matrix: Y^T top; the only stack's Y is still at hand
                rows = spread if len(stacks) == 1 else _cloud(features, decoder, reads, width)[1]
                top = torch.bmm(top[:, None], rows).squeeze(1)  # (b, 1, n) x (b, n, d) to (b, d)
            axis[reads] = top / top.norm(dim=1, keepdim=True)
        reads = torch.cat(stacks)
        shape[:, reads], undefined = _numbers(values, centroid[reads], features.counts[reads], d_model)
        axis[reads[undefined]] = torch.nan
    sphericity, elongation, dimensionality, entropy = shape
    return Geometry(centroid, axis, sphericity, elongation, dimensionality, entropy, line_angle(axis, centroid))


def _groups(counts: np.ndarray, d_model: int, layout: str) -> Iterator[np.ndarray]:
    """Indices of reads that are decomposed together: n > 0, similar ones on a CPU; those with n = 1 by themselves."""
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    start = 0
    while start < len(order):
        smallest = counts[order[start]]
        stop = start + 1
        while stop < len(order):
            width, rows = int(counts[order[stop]]), stop + 1 - start
            if layout == "cpu":
                full = width > 1.25 * smallest + 4 or rows * width * d_model > STACKED_CELLS[layout]
            else:
                full = rows * min(width, d_model) ** 2 > GROUPED_CELLS
            if full or smallest == 1 < width:
                break
            stop += 1
        yield order[start:stop]
        start = stop


def _stacks(group: np.ndarray, cells: int, layout: str) -> Iterator[np.ndarray]:
    """A group in parts whose Y matrices, of so many cells each, are held at once."""
    size = max(1, STACKED_CELLS[layout] // cells)
    return (group[start : start + size] for start in range(0, len(group), size))


def _cloud(
    features: Features, decoder: torch.Tensor, reads: torch.Tensor, width: int
) -> tuple[Float[torch.Tensor, "b d"], Float[torch.Tensor, "b n d"]]:
    """Centroids c and matrices Y of some reads in float64; the rows of missing features are 0."""
    starts, counts = features.indptr[reads], features.counts[reads]
    slot = torch.arange(width, device=starts.device)
    there = slot < counts[:, None]  # (b, n)
    source = torch.where(there, starts[:, None] + slot, starts[:, None])
    values = torch.where(there, features.values[source], 0).double()
    weights = values / values.sum(1, keepdim=True)
    # the decoder may be where there is no float64
    positions = decoder[features.indices[source].to(decoder.device)].to(weights.device).double()
    centre = torch.bmm(weights[:, None], positions).squeeze(1)  # (b, 1, n) x (b, n, d) to (b, d)
    return centre, positions.sub_(centre[:, None]).mul_(weights.sqrt()[..., None])


def _numbers(
    values: Float[torch.Tensor, "b k"], centre: Float[torch.Tensor, "b d"], counts: torch.Tensor, d_model: int
) -> tuple[Float[torch.Tensor, "4 b"], torch.Tensor]:
    """Shape numbers of eigenvalues, largest first, and (b,) whether there is no principal axis."""
    values = torch.nn.functional.pad(values, (0, max(0, 3 - values.shape[1])))
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
    )
    numbers[0, (counts < 4) | (d_model < 3)] = torch.nan
    numbers[1, (counts < 3) | (d_model < 2)] = torch.nan
    flat = l1 <= ZERO_SPREAD * scale
    numbers[:, flat] = torch.nan
    return numbers, flat | (l1 - l2 < DEGENERATE_GAP * l1)
