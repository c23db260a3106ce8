"""Analysis 5, cross-layer consistency: do the middle and the last measured layer agree?"""

from __future__ import annotations

import numpy as np

from bluffscope.metrics.angles import cosine
from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement
from bluffscope.records import Features


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
    consistency = np.full(len(measurement.read_view), np.nan)
    alignment = consistency.copy()
    if layers := compared_layers(measurement.layers):
        middle, last = (measurement.states[layer] for layer in layers)
        if middle.features.d_sae == last.features.d_sae:
            consistency = _feature_cosine(middle.features, last.features)
        if middle.reconstruction.shape == last.reconstruction.shape:
            alignment = cosine(middle.reconstruction.cpu().double().numpy(), last.reconstruction.cpu().double().numpy())
    return measurement.fact_hall_diff("cross_layer_consistency", consistency) | measurement.fact_hall_diff(
        "cross_layer_alignment", alignment
    )


def _feature_cosine(left: Features, right: Features) -> np.ndarray:
    """Cosine of two sparse vectors for every read; NaN where either has no active feature."""
    reads = len(left.counts)
    keys, values, norms = [], [], []
    for features in (left, right):
        row = np.repeat(np.arange(reads), features.counts.cpu().numpy())
        value = features.values.cpu().double().numpy()
        keys.append(row * features.d_sae + features.indices.cpu().numpy())
        values.append(value)
        norms.append(np.sqrt(np.bincount(row, weights=value**2, minlength=reads)))
    _, at_left, at_right = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    dot = np.bincount(keys[0][at_left] // left.d_sae, weights=values[0][at_left] * values[1][at_right], minlength=reads)
    product = norms[0] * norms[1]
    return np.divide(dot, product, out=np.full(reads, np.nan), where=product > 0)


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
            not_interpretable="two dictionaries share no index",
        ),
        Metric(
            "cross_layer_alignment",
            "dimensionless",
            -1,
            1,
            "Cosine of {view}'s SAE reconstructions at the middle and the last layer, which share the residual basis",
            label="Cross-layer alignment",
        ),
    ),
    note=_NOTE,
)
