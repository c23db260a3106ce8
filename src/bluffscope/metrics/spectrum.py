"""Eigenvalues of many small symmetric matrices, and the eigenvector of the largest, on whatever device they are.

On a CPU LAPACK is called. The solvers that torch has for CUDA take matrices of more than 32 rows one after the other,
milliseconds each, so there all of them are reduced to tridiagonal form together and their eigenvalues found by
bisection: the same few operations on the whole stack, whose number grows with the rows but not with the matrices.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

import torch
from jaxtyping import Float

_SHIFT: Final = 1e-10
"""Distance of the inverse iteration's shift from l1, as a share of it: far above rounding, far below any gap."""
_STEPS: Final = 4
BITS: Final = 54
"""Of an eigenvalue: how often an interval that holds all is halved, until it is as short as the rounding of its end."""
_POINTS: Final = 1 << 20
"""Points that are tried at once; on a GPU an operation on so many takes little longer than one on few."""


def eigenvalues_and_top(
    tensor: Float[torch.Tensor, "matrix n n"],
) -> tuple[Float[torch.Tensor, "matrix n"], Float[torch.Tensor, "matrix n"]]:
    """Eigenvalues, largest first, and the first's unit eigenvector, of positive semi-definite matrices in float64.

    The other eigenvectors, which nobody asks for, are most of the work of a full decomposition. Inverse iteration
    with a shift of 1e-10 l1 gains a factor 1e-10 l1 / (l1 - l2) a step, so four steps reach rounding at any gap above
    the one below which the axis is undefined; the shifted matrix is positive definite, so that its Cholesky factor
    exists. Where it does not (a matrix of zeros, say), all eigenvectors are computed after all.
    """
    values = eigenvalues(tensor).clamp_min(0).flip(1)
    shifted = -tensor
    shifted.diagonal(dim1=1, dim2=2).add_(values[:, :1] * (1 + _SHIFT))
    factor, failed = torch.linalg.cholesky_ex(shifted)
    # Any start that is not orthogonal to the axis will do; sums of rows are: Y^T sqrt(w) = 0.
    start = torch.arange(1, tensor.shape[1] + 1, dtype=tensor.dtype, device=tensor.device).cos()
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


def layout(device: torch.device) -> Literal["cpu", "cuda"]:
    """Which arrangement of the same work suits a device: many steps within its caches, or few over everything."""
    return "cpu" if device.type == "cpu" else "cuda"


def eigenvalues(tensor: Float[torch.Tensor, "matrix n n"]) -> Float[torch.Tensor, "matrix n"]:
    """Eigenvalues, ascending; NaN for matrices that cannot be decomposed (SAEs of extreme weights)."""
    if layout(tensor.device) == "cuda":
        return found_together(tensor)
    try:
        return torch.linalg.eigvalsh(tensor)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        if len(tensor) == 1:
            return torch.full(tensor.shape[:2], torch.nan, dtype=tensor.dtype, device=tensor.device)
        return torch.cat([eigenvalues(one) for one in tensor.split(1)])


def found_together(tensor: Float[torch.Tensor, "matrix n n"]) -> Float[torch.Tensor, "matrix n"]:
    """Eigenvalues, ascending, of symmetric matrices of any scale; NaN where one holds a number that is not finite."""
    scale = tensor.abs().amax(dim=(1, 2)).clamp_min(torch.finfo(tensor.dtype).tiny)
    return scale[:, None] * _bisected(*_tridiagonal(tensor / scale[:, None, None]))


def _tridiagonal(
    tensor: Float[torch.Tensor, "matrix n n"],
) -> tuple[Float[torch.Tensor, "matrix n"], Float[torch.Tensor, "matrix n-1"]]:
    """Diagonal and off-diagonal of tridiagonal matrices with the eigenvalues of these, by Householder reflections."""
    rest, diagonal, beside = tensor, [], []
    while (n := rest.shape[1]) > 1:
        diagonal.append(rest[:, 0, 0])
        column, rest = rest[:, 1:, 0], rest[:, 1:, 1:]
        length = column.norm(dim=1, keepdim=True)
        first = column[:, :1]
        image = -length.copysign(first)  # of the column, in its first place: far from what stands there
        beside.append(image[:, 0])
        if n > 2:
            normal = torch.cat([first - image, column[:, 1:]], dim=1)
            normal = normal / normal.norm(dim=1, keepdim=True)
            normal = normal.nan_to_num(0, 0, 0)  # of nothing, or of what squares to nothing: all stays as it is
            moved = 2 * torch.bmm(rest, normal[..., None])
            moved -= normal[..., None] * (normal[:, None] @ moved)
            pair = torch.cat([normal[..., None], moved], dim=2)  # (matrix, n - 1, 2)
            rest = torch.baddbmm(rest, pair, pair.flip(2).mT, alpha=-1)
    return torch.stack([*diagonal, rest[:, 0, 0]], dim=1), _stacked(beside, tensor)


def _stacked(columns: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return torch.stack(columns, dim=1) if columns else like.new_zeros(len(like), 0)


def _bisected(
    diagonal: Float[torch.Tensor, "matrix n"], beside: Float[torch.Tensor, "matrix n-1"]
) -> Float[torch.Tensor, "matrix n"]:
    """Eigenvalues, ascending, of symmetric tridiagonal matrices, the intervals of all of them divided together.

    How many are below x is the number of negative pivots of T - x (Sylvester); a pivot of 0 is left to the arithmetic
    of infinities, which counts it right.
    """
    side = torch.nn.functional.pad(beside.abs(), (1, 1))
    reach = (diagonal.abs() + side[:, 1:] + side[:, :-1]).amax(1, keepdim=True)  # Gershgorin's
    tiny = torch.finfo(diagonal.dtype).tiny
    square = (beside / reach.clamp_min(tiny)).square().clamp_min(tiny)  # (matrix, n - 1); 0/0 would be NaN
    scaled = diagonal / reach.clamp_min(tiny)
    rank = torch.arange(diagonal.shape[1], device=diagonal.device)[:, None]
    parts = 2 ** bits_a_pass(diagonal.numel())
    inner = torch.arange(1, parts, dtype=diagonal.dtype, device=diagonal.device)
    low, width = -torch.ones_like(scaled), 2.0
    for _ in range(ceil(BITS / bits_a_pass(diagonal.numel()))):
        width /= parts
        points = low[..., None] + width * inner  # (matrix, n, parts - 1): n intervals, divided
        pivot = scaled[:, :1, None] - points
        below = pivot.signbit().long()
        for place in range(1, diagonal.shape[1]):
            at = scaled[:, place, None, None] - points
            pivot = torch.addcdiv(at, square[:, place - 1, None, None], pivot, value=-1)
            below += pivot.signbit()
        low = low + width * (below <= rank).sum(2)
    return ((low + width / 2) * reach).where(reach.isfinite(), torch.nan)


def bits_a_pass(eigenvalues: int) -> int:
    """How many bits of so many eigenvalues a pass over the matrices finds: more of few, which leave a GPU idle."""
    return min(3, max(1, (_POINTS // eigenvalues + 1).bit_length() - 1))
