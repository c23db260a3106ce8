"""Analysis 1, layer sensitivity: sparsity, reconstruction error and shape, at each layer and view."""

from __future__ import annotations

import numpy as np
import torch

from bluffscope.metrics.geometry import shape_class
from bluffscope.metrics.measurement import Measurement, Values, padded
from bluffscope.records import VIEWS, Features, LayerState


def layer_sensitivity(measurement: Measurement) -> dict[str, Values]:
    """The ten columns `l{layer}_{view}_{metric}` of every layer and view."""
    columns: dict[str, Values] = {}
    for layer, state in measurement.states.items():
        geometry = measurement.geometry(layer)
        absolute, relative = _errors(state)
        metrics = {
            "l0_norm": state.features.counts.cpu().double().numpy(),
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
        for index, view in enumerate(VIEWS):
            columns |= {f"l{layer}_{view}_{name}": values[:, index] for name, values in by_view.items()}
            columns[f"l{layer}_{view}_shape_class"] = [
                shape_class(elongation, sphericity)
                for elongation, sphericity in zip(
                    by_view["elongation"][:, index], by_view["sphericity"][:, index], strict=True
                )
            ]
    return columns


def _errors(state: LayerState) -> tuple[np.ndarray, np.ndarray]:
    """||x - y|| and ||x - y||^2 / ||x||^2 (NaN for a zero residual)."""
    x = state.residual.cpu().double().numpy()
    error = np.linalg.norm(x - state.reconstruction.cpu().double().numpy(), axis=1)
    square = (x**2).sum(1)
    return error, np.divide(error**2, square, out=np.full_like(error, np.nan), where=square > 0)


def gini(features: Features) -> np.ndarray:
    """Gini coefficient of the active magnitudes, 0 (all equal) to 1 - 1/n; NaN where none is active.

    Sorted ascending v_1..v_n: 2 sum(i v_i) / (n sum v) - (n + 1) / n.
    """
    values, _ = padded(features)  # (read, active), strongest first, then zeros
    n = features.counts.cpu().double()
    rank = n[:, None] - torch.arange(values.shape[1])  # ascending rank of each slot; the zeros behind add nothing
    total = values.sum(1)
    result = 2 * (rank * values).sum(1) / (n * total) - (n + 1) / n
    return torch.where(n > 0, result, torch.nan).numpy()
