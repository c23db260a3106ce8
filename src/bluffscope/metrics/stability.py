"""Analysis 3, stability: do the strongest features survive noise on the residual?"""

from __future__ import annotations

import numpy as np
import torch

from bluffscope.metrics.measurement import Measurement, Values, padded
from bluffscope.noise import unit_noise
from bluffscope.records import VIEWS, Features

TOP = 10
"""Features compared."""


def stability(measurement: Measurement) -> dict[str, Values]:
    """Jaccard similarity, 0 to 1, of the top-10 active features with and without noise, at the first layer.

    The mean over draws in which both sets hold a feature; undefined where there is none.
    """
    options = measurement.options
    layer = measurement.layers[0]
    state = measurement.states[layer]
    reads = np.flatnonzero(measurement.read_view != VIEWS.index("prompt"))
    residual = state.residual[torch.from_numpy(reads).to(state.residual.device)]
    clean = _top(state.features)[torch.from_numpy(reads)]
    noise = _noise(measurement, layer, reads, residual.shape[1])  # (draw, read, d_model)
    scale = residual.double().cpu().square().mean(1).sqrt() if options.noise_mode == "relative" else torch.ones(())
    columns: dict[str, Values] = {}
    names = {"stability": options.noise_std} | {f"stability_s{s:g}": s for s in options.noise_sweep}
    for name, strength in names.items():
        values = np.full(len(measurement.read_view), np.nan)
        values[reads] = _mean_overlap(
            measurement, layer, residual, noise * (strength * scale).reshape(-1, 1).numpy(), clean
        )
        columns |= measurement.fact_hall_diff(name, values)
    return columns


def _mean_overlap(
    measurement: Measurement, layer: int, residual: torch.Tensor, noise: np.ndarray, clean: torch.Tensor
) -> np.ndarray:
    """Mean overlap over draws; noise (draw, read, d_model), clean (read, TOP) to (read,)."""
    draws = [
        _overlap(clean, _top(measurement.encode(layer, residual + torch.from_numpy(draw).to(residual))))
        for draw in noise
    ]
    overlap = torch.stack(draws)  # (draw, read)
    return overlap.nanmean(0).numpy()


def _noise(measurement: Measurement, layer: int, reads: np.ndarray, d_model: int) -> np.ndarray:
    """Unit noise (draw, read, d_model): each draw a function of (seed, pair id, view, layer, draw) only."""
    options = measurement.options
    noise = np.empty((options.noise_draws, len(reads), d_model))
    key = measurement.read_pair[reads] * len(VIEWS) + measurement.read_view[reads]
    starts: list[int] = np.flatnonzero(np.diff(key, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(reads)], strict=True):
        pair_id = measurement.pair_ids[int(measurement.read_pair[reads[start]])]
        view = VIEWS[measurement.read_view[reads[start]]]
        for draw in range(options.noise_draws):
            noise[draw, start:stop] = unit_noise(
                options.seed, pair_id, view, layer, draw, tokens=stop - start, d_model=d_model
            )
    return noise


def _top(features: Features) -> torch.Tensor:
    """Indices of the strongest active features, (read, TOP), -1 where a read has fewer."""
    _, indices = padded(features)
    indices = indices[:, :TOP]
    return torch.nn.functional.pad(indices, (0, TOP - indices.shape[1]), value=-1)


def _overlap(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Jaccard similarity of index sets (read, TOP); NaN where either is empty."""
    same = (left[:, :, None] == right[:, None, :]) & (left[:, :, None] >= 0)
    common = same.sum((1, 2)).double()
    sizes = (left >= 0).sum(1), (right >= 0).sum(1)
    empty = (sizes[0] == 0) | (sizes[1] == 0)
    return torch.where(empty, torch.nan, common / (sizes[0] + sizes[1] - common))
