"""Measurements made by hand: features and residuals as the test says, no model and no SAE."""

from __future__ import annotations

import numpy as np
import torch

from bluffscope.config import MeasureOptions
from bluffscope.metrics import Measurement
from bluffscope.records import Encoded, Features, LayerState


def sparse(dense) -> Features:
    """Features from a (read, d_sae) array of activations; those above 0 are active."""
    dense = torch.as_tensor(np.asarray(dense), dtype=torch.float64)
    rows, columns = (dense > 0).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(dense))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Features(indptr=indptr, indices=columns, values=dense[rows, columns], d_sae=dense.shape[1])


def state(layer, features, residual=None, reconstruction=None, decoder=None) -> LayerState:
    """One layer; what is not given is noise."""
    generator = torch.Generator().manual_seed(layer)
    features = features if isinstance(features, Features) else sparse(features)
    reads = len(features.counts)

    def given(value, rows):
        if value is None:
            return torch.randn(rows, 4, generator=generator, dtype=torch.float64)
        return torch.as_tensor(np.asarray(value), dtype=torch.float64)

    residual = given(residual, reads)
    return LayerState(layer, residual, Encoded(features, given(reconstruction, reads), given(decoder, features.d_sae)))


def measurement(*states: LayerState, reads=None, encode=None, **options) -> Measurement:
    """A batch; `reads` are (pair, view) in order, by default one of each view for each three reads."""
    count = len(states[0].features.counts)
    reads = [(read // 3, read % 3) for read in range(count)] if reads is None else reads
    pairs = 1 + max(pair for pair, _ in reads)
    return Measurement(
        item_ids=[f"p{pair}" for pair in range(pairs)],
        read_item=np.array([pair for pair, _ in reads]),
        read_view=np.array([view for _, view in reads]),
        states={state.layer: state for state in states},
        encode=encode or (lambda layer, residual: sparse(residual.clamp_min(0))),
        options=MeasureOptions(**options),
    )
