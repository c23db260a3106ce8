"""The steps of the ladder that the engine has left behind: each stands in for the piece that replaced it."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        parts = [super(TextByText, self).read(row) for row in _rows(batch)]
        order = torch.from_numpy(
            np.argsort(np.concatenate([np.flatnonzero(batch.read_row == row) for row in _all(batch)]))
        )
        return Activations(
            {layer: torch.cat([part.residuals[layer] for part in parts])[order] for layer in self.points}
        )


def _all(batch: PackedBatch) -> range:
    return range(len(batch.input_ids))


def _rows(batch: PackedBatch) -> list[PackedBatch]:
    rows: list[PackedBatch] = []
    for row in _all(batch):
        length, reads = int(batch.row_lengths[row]), batch.read_row == row
        rows.append(
            replace(
                batch,
                input_ids=batch.input_ids[row : row + 1, :length],
                position_ids=batch.position_ids[row : row + 1, :length],
                subtree_end=batch.subtree_end[row : row + 1, :length],
                read_row=np.zeros(int(reads.sum()), dtype=np.int64),
                read_slot=batch.read_slot[reads],
                read_pair=batch.read_pair[reads],
                read_view=batch.read_view[reads],
                row_lengths=batch.row_lengths[row : row + 1],
            )
        )
    return rows


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
    shapes = [
        geometry(values.double().numpy(), decoder[indices].double().numpy())
        for values, indices in zip(
            features.values.split(features.counts.tolist()),
            features.indices.split(features.counts.tolist()),
            strict=True,
        )
    ]
    nothing = np.full(decoder.shape[1], np.nan)

    def numbers(name: str) -> np.ndarray:
        return np.array([np.nan if (value := getattr(shape, name)) is None else value for shape in shapes])

    return Geometry(
        centroid=np.array([nothing if shape.centroid is None else shape.centroid for shape in shapes]),
        axis=np.array([nothing if shape.axis is None else shape.axis for shape in shapes]),
        sphericity=numbers("sphericity"),
        elongation=numbers("elongation"),
        dimensionality=numbers("dimensionality"),
        eigenvalue_entropy=numbers("eigenvalue_entropy"),
        misalignment=numbers("misalignment_angle"),
    )
