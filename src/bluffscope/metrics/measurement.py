"""What an analysis is given, and how values at reads become values of a pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from bluffscope.config import MeasureOptions
from bluffscope.metrics.geometry import Geometry, measure_geometry
from bluffscope.records import VIEWS, Features, LayerState, Targets

Values = np.ndarray | list[str | None]
"""One value a pair: float64 with NaN where undefined, or text with None."""


@dataclass(frozen=True)
class Measurement:
    """One batch of pairs, encoded: everything an analysis may look at.

    Reads are ordered by pair, view and token. There is one for each pair and view; with
    ``position="completion-mean"`` one for each token of the completion (and one for the prompt).
    """

    pair_ids: Sequence[str]
    """Of the batch's pairs, in its order."""
    read_pair: np.ndarray
    """(read,) position of the pair in this batch."""
    read_view: np.ndarray
    """(read,) index into `VIEWS`."""
    states: Mapping[int, LayerState]
    """By layer, in the order the layers were asked for."""
    encode: Callable[[int, torch.Tensor], Features]
    """The SAE of a layer: (layer, residuals (read, d_model)) to features."""
    options: MeasureOptions
    """What the run was asked to measure: position, noise, seed."""
    decompose: Callable[[Features, torch.Tensor], Geometry] = measure_geometry
    """How the geometry of features over a decoder is computed."""
    targets: Targets | None = None
    """The completion tokens of the batch, with ``logprob`` only."""
    logprobs: np.ndarray | None = None
    """(target,) float64: log-probability of each of them, in nats."""
    _geometry: dict[int, Geometry] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers measured, in the user's order."""
        return tuple(self.states)

    def geometry(self, layer: int) -> Geometry:
        """Geometry of the active decoder directions of every read, computed once."""
        if layer not in self._geometry:
            state = self.states[layer]
            self._geometry[layer] = self.decompose(state.features, state.decoder)
        return self._geometry[layer]

    @cached_property
    def prompt_read(self) -> np.ndarray:
        """(read,) index of the read of the same pair's prompt."""
        of_pair = np.full(len(self.pair_ids), -1)
        prompts = np.flatnonzero(self.read_view == VIEWS.index("prompt"))
        of_pair[self.read_pair[prompts]] = prompts
        return of_pair[self.read_pair]

    def by_view(self, values: Float[np.ndarray, " read"]) -> Float[np.ndarray, "pair view"]:
        """Mean over the reads of each pair and view at which the value is defined; NaN where it is at none."""
        cell = self.read_pair * len(VIEWS) + self.read_view
        cells = len(self.pair_ids) * len(VIEWS)
        defined = ~np.isnan(values)
        sums = np.bincount(cell[defined], weights=values[defined], minlength=cells)
        counts = np.bincount(cell[defined], minlength=cells)
        with np.errstate(invalid="ignore"):
            return (sums / counts).reshape(-1, len(VIEWS))  # (pair, view)

    def fact_hall_diff(self, name: str, values: Float[np.ndarray, " read"]) -> dict[str, Values]:
        """The three columns `{name}_{fact|hall|diff}` of a metric known at every read; diff is hall - fact."""
        return compared(name, self.by_view(values))


def compared(name: str, views: Float[np.ndarray, "pair view"]) -> dict[str, Values]:
    """The three columns `{name}_{fact|hall|diff}` of a metric known for every view; diff is hall - fact."""
    fact, hall = views[:, VIEWS.index("fact")], views[:, VIEWS.index("hall")]
    return {f"{name}_fact": fact, f"{name}_hall": hall, f"{name}_diff": hall - fact}


AnalysisFunction = Callable[[Measurement], dict[str, Values]]
"""Gives the columns of an analysis for a batch: name to one value a pair."""


@dataclass(frozen=True)
class Analysis:
    """One of the five analyses; those of the user's own are a `bluffscope.UserAnalysis`."""

    name: str
    """As in `bluffscope.ANALYSES` and in the section of its columns."""
    function: AnalysisFunction
    """Gives its columns for a batch."""


def padded(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """The sparse features as rectangles, strongest first: values (read, active) float64 and indices (read, active).

    Equal activations keep the order of their indices; slots beyond a read's own features hold 0 and -1.
    """
    counts = features.counts
    width = int(counts.max()) if len(counts) else 0
    shape = (len(counts), width)
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    column = torch.arange(len(features.indices), device=counts.device) - features.indptr[:-1][row]
    # MPS has no float64; the rectangles are small, so they go to the CPU, where metrics are computed
    values = torch.zeros(shape, dtype=torch.float64)
    indices = torch.full(shape, -1, dtype=torch.int64)
    row, column = row.cpu(), column.cpu()
    values[row, column] = features.values.cpu().double()
    indices[row, column] = features.indices.cpu()
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)
