"""Analysis 5, cross-layer consistency: do the middle and the last measured layer agree?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bluffscope.metrics.angles import cosine
from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import AtReads, Measurement
from bluffscope.records import Features

if TYPE_CHECKING:
    import torch


def compared_layers(layers: tuple[int, ...]) -> tuple[int, int] | None:
    """The two layers compared: layers[len // 2] and the last; of two layers, both; None for one.

    (Of two layers, layers[len // 2] is the last itself: a cosine of 1 by construction.)
    """
    if len(layers) < 2:
        return None
    return (layers[0] if len(layers) == 2 else layers[len(layers) // 2]), layers[-1]


def cross_layer(measurement: Measurement) -> dict[str, Values]:
    """Cosine of the feature vectors, index by index, and of the reconstructions.

    Two dictionaries share no index, so `cross_layer_consistency` is kept only for comparison with
    earlier work; reconstructions share the residual basis, so `cross_layer_alignment` has a meaning.
    """
    undefined = np.full(len(measurement.read_view), np.nan)
    consistency: AtReads = undefined
    alignment: AtReads = undefined
    if layers := compared_layers(measurement.layers):
        middle, last = (measurement.states[layer] for layer in layers)
        if middle.features.d_sae == last.features.d_sae:
            consistency = _feature_cosine(middle.features, last.features)
        if middle.reconstruction.shape == last.reconstruction.shape:
            alignment = cosine(middle.reconstruction.double(), last.reconstruction.double())
    return measurement.fact_hall_diff("cross_layer_consistency", consistency) | measurement.fact_hall_diff(
        "cross_layer_alignment", alignment
    )


def _feature_cosine(left: Features, right: Features) -> torch.Tensor:
    """Cosine of two sparse vectors for every read; NaN where either has no active feature."""
    import torch  # seconds that reading a declaration should not take

    from bluffscope.metrics.active import rectangle

    # one ascending number for each read and feature
    here, there = (torch.repeat_interleave(of.counts) * of.d_sae + of.indices for of in (left, right))
    place = torch.searchsorted(there, here).clamp_max(len(there) - 1)
    values, others = left.values.double(), right.values.double()
    common = (values * others[place]).where(there[place] == here, 0) if len(there) else torch.zeros_like(values)
    lengths = rectangle(left, values, 0).norm(dim=1) * rectangle(right, others, 0).norm(dim=1)
    return (rectangle(left, common, 0).sum(1) / lengths).where(lengths > 0, math.nan)


_NOTE = """**`cross_layer_consistency` is not interpretable**: it compares two dictionaries index by index, and
they share no index. It is kept for comparison with earlier work; read `cross_layer_alignment`. Both are null in a run
over one layer.
"""

ANALYSIS = Analysis(
    "cross_layer",
    cross_layer,
    title="Cross-layer",
    metrics=(
        Metric(
            "cross_layer_consistency",
            "dimensionless",
            # Features are never negative, so neither is the cosine of two feature vectors.
            0,
            1,
            "Cosine, index by index, of {view}'s feature vectors at the middle and the last layer; "
            "not interpretable (two dictionaries share no index), kept for comparison with earlier work",
            label="Cross-layer consistency",
            higher="features more alike across layers",
            lower="features less alike across layers",
            not_interpretable="two dictionaries share no index",
        ),
        Metric(
            "cross_layer_alignment",
            "dimensionless",
            -1,
            1,
            "Cosine of {view}'s SAE reconstructions at the middle and the last layer, which share the residual basis",
            label="Cross-layer alignment",
            higher="reconstructions more alike across layers",
            lower="reconstructions less alike across layers",
        ),
    ),
    note=_NOTE,
)
