"""The active features of reads, in forms that one line of code can work with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from bluffscope.records import Features


@dataclass(frozen=True)
class ActiveFeatures:
    """The SAE features of all reads at one layer; its methods return one value or one row a read, float64."""

    sparse: Features
    """The features as they are held: compressed rows (see `bluffscope.records.Features`)."""

    def count(self) -> Float[np.ndarray, " read"]:
        """Number of active features (L0)."""
        return self.sparse.counts.cpu().double().numpy()

    def sum(self) -> Float[np.ndarray, " read"]:
        """Sum of the activations, in the SAE's units; 0 where no feature is active."""
        return np.bincount(self.read, weights=self.activations, minlength=len(self.sparse.counts))

    def mean(self) -> Float[np.ndarray, " read"]:
        """Mean of the active features' activations; NaN where none is active."""
        with np.errstate(invalid="ignore"):
            return self.sum() / self.count()

    def max(self) -> Float[np.ndarray, " read"]:
        """Largest activation; NaN where no feature is active."""
        largest = np.full(len(self.sparse.counts), np.nan)
        np.fmax.at(largest, self.read, self.activations)
        return largest

    def dense(self) -> Float[np.ndarray, "read d_sae"]:
        """Every feature's activation, 0 where it is not active: 8 bytes for each feature of the SAE and read."""
        everything = np.zeros((len(self.sparse.counts), self.sparse.d_sae))
        everything[self.read, self.indices] = self.activations
        return everything

    @property
    def read(self) -> Int[np.ndarray, " active"]:
        """The read of each active feature: with `indices` and `activations` the features one by one."""
        counts = self.sparse.counts.cpu().numpy()
        return np.repeat(np.arange(len(counts)), counts)

    @property
    def indices(self) -> Int[np.ndarray, " active"]:
        """The index of each active feature in the SAE, ascending within a read."""
        return self.sparse.indices.cpu().numpy()

    @property
    def activations(self) -> Float[np.ndarray, " active"]:
        """The activation of each, > 0, in the SAE's units."""
        return self.sparse.values.cpu().double().numpy()


def padded(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """The sparse features as rectangles, strongest first: values (read, active) float64 and indices (read, active).

    Equal activations keep the order of their indices; slots beyond a read's own features hold 0 and -1.
    """
    values, order = rectangle(features, features.values.double(), 0).sort(dim=1, descending=True, stable=True)
    return values, rectangle(features, features.indices, -1).gather(1, order)


def rectangle(features: Features, values: Float[torch.Tensor, " active"], empty: float) -> torch.Tensor:
    """What belongs to each active feature as a rectangle (read, active), in the order of the indices.

    Args:
        features: of the reads.
        values: one for each active feature.
        empty: what fills the slots beyond a read's own features.
    """
    counts = features.counts
    row = torch.repeat_interleave(counts)
    column = torch.arange(len(row), device=row.device) - features.indptr[:-1][row]
    filled = values.new_full((len(counts), int(counts.max()) if len(counts) else 0), empty)
    filled[row, column] = values
    return filled
