"""Angles and cosines between vectors, read by read, where the vectors are. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float

if TYPE_CHECKING:
    import torch


def angle(left: Float[torch.Tensor, "*n d"], right: Float[torch.Tensor, "*n d"]) -> Float[torch.Tensor, "*n"]:
    """Angle in degrees, 0 to 180, between vectors; NaN with a zero or undefined vector.

    2 atan2(|u - v|, |u + v|) of the unit vectors (Kahan) stays exact near 0 and 180, where the arccos
    of a rounded cosine does not.
    """
    u, v = _unit(left), _unit(right)
    return 2 * (u - v).norm(dim=-1).atan2((u + v).norm(dim=-1)).rad2deg()


def line_angle(left: Float[torch.Tensor, "*n d"], right: Float[torch.Tensor, "*n d"]) -> Float[torch.Tensor, "*n"]:
    """Angle in degrees, 0 to 90, between the lines of two vectors: their signs do not matter."""
    u, v = _unit(left), _unit(right)
    apart, together = (u - v).norm(dim=-1), (u + v).norm(dim=-1)
    return 2 * apart.minimum(together).atan2(apart.maximum(together)).rad2deg()


def cosine(left: Float[torch.Tensor, "*n d"], right: Float[torch.Tensor, "*n d"]) -> Float[torch.Tensor, "*n"]:
    """Cosine, -1 to 1; NaN with a zero vector."""
    return (_unit(left) * _unit(right)).sum(-1).clamp(-1, 1)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
