"""The steps of the ladder that the engine has left behind: each stands in for the piece that replaced it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bluffscope.metrics.geometry import Geometry
from bluffscope.model import ResidualReader
from bluffscope.records import Activations, Features, PackedBatch
from bluffscope.reference.geometry import geometry
from bluffscope.sae import Coder


@dataclass(frozen=True)
class TextByText(ResidualReader):
    """Reads every text in a forward of its own, all layers at once."""

    def read(self, batch: PackedBatch) -> Activations:
        """One forward for each row of a padded batch, cut to the row's own length."""
        rows = [np.array([row]) for row in range(len(batch.input_ids))]
        parts = [super(TextByText, self).read(batch.rows(row)) for row in rows]
        order = torch.from_numpy(np.argsort(np.concatenate([np.flatnonzero(batch.read_row == row) for row in rows])))
        return Activations(
            {layer: torch.cat([part.residuals[layer] for part in parts])[order] for layer in self.points}
        )


@dataclass(frozen=True)
class OneByOne(Coder):
    """Encodes and decodes every residual in a call of its own, all features dense."""

    def encode(self, residual: torch.Tensor) -> Features:
        """Active features of every residual."""
        return self.encode_decode(residual)[0]

    def encode_decode(self, residual: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """Features and reconstruction of every residual."""
        rows = [self._one(x) for x in residual.to(self.decoder.dtype).split(1)]
        counts = torch.tensor([0, *(len(found) for found, _, _ in rows)])
        features = Features(
            indptr=counts.cumsum(0),
            indices=torch.cat([found for found, _, _ in rows]),
            values=torch.cat([values for _, values, _ in rows]),
            d_sae=self.d_sae,
        )
        return features, torch.cat([decoded for _, _, decoded in rows])

    def _one(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dense = self.sae.encode(residual)
        found = dense[0].nonzero()[:, 0]
        return found, dense[0, found], self.sae.decode(dense)


def dense_geometry(features: Features, decoder: torch.Tensor) -> Geometry:
    """Geometry by one eigendecomposition of the d x d inertia tensor for each read."""
    counts = features.counts.tolist()
    reads = zip(features.values.split(counts), features.indices.split(counts), strict=True)
    shapes = [geometry(values.double().numpy(), decoder[indices].double().numpy()) for values, indices in reads]

    nowhere = np.full(decoder.shape[1], np.nan)

    def numbers(name: str) -> torch.Tensor:
        nothing = nowhere if name in ("centroid", "axis") else np.nan
        found = (getattr(shape, "misalignment_angle" if name == "misalignment" else name) for shape in shapes)
        return torch.from_numpy(np.array([nothing if one is None else one for one in found]))

    return Geometry(*map(numbers, Geometry._fields))
