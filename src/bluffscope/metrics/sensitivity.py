"""Analysis 1, layer sensitivity: sparsity, reconstruction error and shape, at each layer and view."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement
from bluffscope.records import Features, LayerState

if TYPE_CHECKING:
    import torch


def layer_sensitivity(measurement: Measurement) -> dict[str, Values]:
    """The ten columns `l{layer}_{view}_{metric}` of every layer and view."""
    columns: dict[str, Values] = {}
    for layer, state in measurement.states.items():
        geometry = measurement.geometry(layer)
        absolute, relative = _errors(state)
        metrics = {
            "l0_norm": state.features.counts.double(),
            "reconstruction_error": absolute,
            "relative_error": relative,
            "gini": gini(state.features),
            "sphericity": geometry.sphericity,
            "elongation": geometry.elongation,
            "dimensionality": geometry.dimensionality,
            "eigenvalue_entropy": geometry.eigenvalue_entropy,
            "misalignment_angle": geometry.misalignment,
        }
        by_view = {name: measurement.by_view(values) for name, values in metrics.items()}
        for index, view in enumerate(measurement.arrangement.views):
            named = partial(measurement.arrangement.at_layer, layer, view)
            columns |= {named(name): values[:, index] for name, values in by_view.items()}
            columns[named("shape_class")] = [
                shape_class(elongation, sphericity)
                for elongation, sphericity in zip(
                    by_view["elongation"][:, index], by_view["sphericity"][:, index], strict=True
                )
            ]
    return columns


def _errors(state: LayerState) -> tuple[torch.Tensor, torch.Tensor]:
    """||x - y|| and ||x - y||^2 / ||x||^2 (NaN for a zero residual)."""
    x = state.residual.double()
    error, square = (x - state.reconstruction.double()).norm(dim=1), x.square().sum(1)
    return error, (error.square() / square).where(square > 0, math.nan)


def gini(features: Features) -> torch.Tensor:
    """Gini coefficient of the active magnitudes, 0 (all equal) to 1 - 1/n; NaN where none is active.

    Sorted ascending v_1..v_n: 2 sum(i v_i) / (n sum v) - (n + 1) / n.
    """
    from bluffscope.metrics.active import padded  # torch: seconds that reading a declaration should not take

    values, _ = padded(features)  # (read, active), strongest first, then zeros
    n = features.counts.double()
    # ascending rank of each slot; the zeros behind add nothing
    rank = n[:, None] - n.new_ones(values.shape[1]).cumsum(0) + 1
    total = values.sum(1)
    result = 2 * (rank * values).sum(1) / (n * total) - (n + 1) / n
    return result.where(n > 0, math.nan)


def shape_class(elongation: float, sphericity: float) -> str | None:
    """The shape's name from its two ratios; None where either is undefined."""
    if np.isnan(elongation) or np.isnan(sphericity):
        return None
    if elongation > 0.9 and sphericity > 0.9:
        return "Spherical"
    if elongation > 0.8 and sphericity < 0.6:
        return "Oblate"
    if elongation < 0.6 and sphericity < 0.6:
        return "Prolate"
    return "Triaxial"


_HEAD = """For each layer k and each view `prompt`, `fact`, `hall`: `l5_fact_gini`. x is the residual, y the SAE's
reconstruction, l1 >= l2 >= ... the eigenvalues of the weighted cloud of active decoder directions.
"""

ANALYSIS = Analysis(
    "layer_sensitivity",
    layer_sensitivity,
    title="Layer sensitivity",
    metrics=(
        # l0_norm is not an integer: with position "completion-mean" it is a mean over tokens.
        Metric(
            "l0_norm",
            "features",
            0,
            None,
            "Active SAE features of {view}",
            label="Active features",
            higher="more active features",
            lower="fewer active features",
        ),
        Metric(
            "reconstruction_error",
            "activation units",
            0,
            None,
            "Length of the residual of {view} less the SAE's reconstruction, ||x - y||",
            label="Reconstruction error of the SAE",
            higher="larger reconstruction error",
            lower="smaller reconstruction error",
        ),
        Metric(
            "relative_error",
            "dimensionless",
            0,
            None,
            "Share of the squared length of {view}'s residual that the SAE misses, ||x - y||^2 / ||x||^2",
            label="Relative reconstruction error",
            higher="larger share that the SAE misses",
            lower="smaller share that the SAE misses",
        ),
        Metric(
            "gini",
            "dimensionless",
            0,
            1,
            "Gini coefficient of the active magnitudes of {view}: 0 when all are equal, near 1 when one dominates",
            label="Gini coefficient of the active features",
            higher="activation in fewer features",
            lower="activation spread over more features",
        ),
        Metric(
            "sphericity",
            "dimensionless",
            0,
            1,
            "Third over first axis of the cloud of active decoder directions of {view}, sqrt(l3 / l1); "
            "null below 4 active features",
            label="Sphericity of the active features",
            ends="0 flat, 1 round",
            higher="feature cloud more spherical",
            lower="feature cloud less spherical",
        ),
        Metric(
            "elongation",
            "dimensionless",
            0,
            1,
            "Second over first axis of the cloud of active decoder directions of {view}, sqrt(l2 / l1); "
            "null below 3 active features",
            label="Elongation of the active features",
            ends="0 a line, 1 round",
            higher="feature cloud rounder",
            lower="feature cloud less round",
        ),
        Metric(
            "dimensionality",
            "dimensionless",
            1,
            None,
            "Participation ratio of the cloud's eigenvalues, (sum l)^2 / sum l^2, of {view}",
            label="Dimensionality of the active features",
            higher="feature cloud of more dimensions",
            lower="feature cloud of fewer dimensions",
        ),
        Metric(
            "eigenvalue_entropy",
            "nats",
            0,
            None,
            "Entropy of the normalised eigenvalues of {view}'s cloud",
            label="Entropy of the eigenvalues",
            higher="feature cloud more even along its axes",
            lower="feature cloud less even along its axes",
        ),
        Metric(
            "misalignment_angle",
            "degrees",
            0,
            90,
            "Angle between the line of the principal axis of {view}'s cloud and the cloud's centroid",
            label="Angle of axis and centroid",
            higher="feature cloud's axis further from its centre",
            lower="feature cloud's axis closer to its centre",
        ),
        Metric(
            "shape_class",
            "",
            None,
            None,
            "Spherical, Oblate, Prolate or Triaxial, from the elongation and sphericity of {view}",
            label="Shape class",
            kind="category",
        ),
    ),
    per_layer=True,
    head=_HEAD,
    note="With `--position completion-mean` each number is the mean over the completion's tokens.\n",
)
