"""Analysis 4, entropy: how evenly the strongest features share the activation."""

from __future__ import annotations

import torch

from bluffscope.metrics.measurement import Measurement, Values, padded

TOP = 50
"""Active features that enter, strongest first."""


def entropy(measurement: Measurement) -> dict[str, Values]:
    """-sum p ln p of the top-50 active magnitudes, in nats (0 to ln 50), at the first layer."""
    features = measurement.states[measurement.layers[0]].features
    values, _ = padded(features)
    values = values[:, :TOP]
    share = values / values.sum(1, keepdim=True)  # 0/0 where nothing is active: NaN, as it should be
    return measurement.fact_hall_diff(
        "entropy", (-torch.xlogy(share, share).sum(1)).where(features.counts.cpu() > 0, torch.nan).numpy()
    )
