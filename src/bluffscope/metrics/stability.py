"""Analysis 3, stability: do the strongest features survive noise on the residual?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bluffscope.host.noise import unit_noise
from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement
from bluffscope.records import Features, View

if TYPE_CHECKING:
    import torch

TOP = 10
"""Features compared."""


def stability(measurement: Measurement) -> dict[str, Values]:
    """Jaccard similarity, 0 to 1, of the top-10 active features with and without noise, at the first layer.

    The mean over draws in which both sets hold a feature; undefined where there is none.
    """
    import torch  # seconds that reading a declaration should not take

    options = measurement.options
    layer = measurement.layers[0]
    state = measurement.states[layer]
    reads = np.flatnonzero(np.isin(measurement.read_view, measurement.arrangement.completed))
    device = state.residual.device
    chosen = torch.from_numpy(reads).to(device)
    residual, clean = state.residual[chosen], _top(state.features)[chosen]
    rms = residual.double().square().mean(1, keepdim=True).sqrt()  # (read, 1)
    strengths = {"stability": options.noise_std} | {f"stability_s{s:g}": s for s in options.noise_sweep}
    overlaps: dict[str, list[torch.Tensor]] = {name: [] for name in strengths}
    noise = np.empty(residual.shape)  # of one draw at a time
    texts = _texts(measurement, reads)
    with ThreadPoolExecutor(threads := torch.get_num_threads()) as pool:  # NumPy draws without holding the interpreter
        for draw in range(options.noise_draws):
            fill = partial(_fill, noise, measurement, layer, draw)
            deque(pool.map(fill, (texts[start::threads] for start in range(threads))), maxlen=0)
            unit = torch.from_numpy(noise).to(device)
            for name, strength in strengths.items():
                scale = strength * rms if options.noise_mode == "relative" else strength
                noisy = residual + (scale * unit).to(residual.dtype)
                overlaps[name].append(_overlap(clean, _top(measurement.encode(layer, noisy))))
    columns: dict[str, Values] = {}
    for name, of_draws in overlaps.items():
        values = np.full(len(measurement.read_view), np.nan)
        values[reads] = torch.stack(of_draws).nanmean(0).cpu().numpy()  # (draw, read) to (read,)
        columns |= measurement.fact_hall_diff(name, values)
    return columns


def _texts(measurement: Measurement, reads: np.ndarray) -> list[tuple[slice, str, View]]:
    """The reads of each item's view, which draw their noise together: where they are among `reads`, and whose."""
    views = measurement.arrangement.views
    item, view = measurement.read_item[reads], measurement.read_view[reads]
    starts: list[int] = np.flatnonzero(np.diff(item * len(views) + view, prepend=-1)).tolist()
    return [
        (slice(start, stop), measurement.item_ids[int(item[start])], views[view[start]])
        for start, stop in zip(starts, [*starts[1:], len(reads)], strict=True)
    ]


def _fill(
    noise: np.ndarray, measurement: Measurement, layer: int, draw: int, texts: Sequence[tuple[slice, str, View]]
) -> None:
    """Fill noise (read, d_model) of some texts: a function of (seed, item id, view, layer, draw) only."""
    seed, d_model = measurement.options.seed, noise.shape[1]
    for place, item_id, view in texts:
        tokens = place.stop - place.start
        noise[place] = unit_noise(seed, item_id, view, layer, draw, tokens=tokens, d_model=d_model)


def _top(features: Features) -> torch.Tensor:
    """Indices of the strongest active features, (read, TOP), -1 where a read has fewer."""
    from bluffscope.metrics.active import padded  # torch, as above

    _, indices = padded(features)
    top = indices.new_full((len(indices), TOP), -1)
    top[:, : indices.shape[1]] = indices[:, :TOP]
    return top


def _overlap(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Jaccard similarity of index sets (read, TOP); NaN where either is empty."""
    same = (left[:, :, None] == right[:, None, :]) & (left[:, :, None] >= 0)
    common = same.sum((1, 2)).double()
    sizes = (left >= 0).sum(1), (right >= 0).sum(1)
    empty = (sizes[0] == 0) | (sizes[1] == 0)
    return (common / (sizes[0] + sizes[1] - common)).where(~empty, math.nan)


_NOTE = """`--noise-sweep S ...` adds `stability_s{S}_{fact|hall|diff}` for each noise level, after all others:
`stability_s0.3_fact`.
"""

ANALYSIS = Analysis(
    "stability",
    stability,
    title="Stability",
    metrics=(
        Metric(
            "stability",
            "dimensionless",
            0,
            1,
            "Mean Jaccard similarity of the top-10 features of {view} with and without noise on the residual, "
            "first layer",
            label="Stability under noise",
            higher="features more stable under noise",
            lower="features less stable under noise",
            swept=True,
        ),
    ),
    note=_NOTE,
)
