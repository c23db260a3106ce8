"""Analysis 4, entropy: how evenly the strongest features share the activation."""

from __future__ import annotations

import math

from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement

TOP = 50
"""Active features that enter, strongest first."""


def entropy(measurement: Measurement) -> dict[str, Values]:
    """-sum p ln p of the top-50 active magnitudes, in nats (0 to ln 50), at the first layer."""
    from bluffscope.metrics.active import padded  # torch: seconds that reading a declaration should not take

    features = measurement.states[measurement.layers[0]].features
    values, _ = padded(features)
    values = values[:, :TOP]
    share = values / values.sum(1, keepdim=True)  # 0/0 where nothing is active: NaN, as it should be
    entropies = -share.xlogy(share).sum(1)
    return measurement.fact_hall_diff("entropy", entropies.where(features.counts > 0, math.nan))


ANALYSIS = Analysis(
    "entropy",
    entropy,
    title="Entropy",
    metrics=(
        Metric(
            "entropy",
            "nats",
            0,
            math.log(TOP),
            "Entropy of the top-50 active magnitudes of {view}, first layer",
            label="Entropy",
            higher="strongest features more even",
            lower="strongest features less even",
        ),
    ),
)
