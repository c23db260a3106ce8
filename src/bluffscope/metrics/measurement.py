"""What an analysis is given, and how values at reads become values of a pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from bluffscope.config import MeasureOptions
from bluffscope.errors import InputError
from bluffscope.metrics.declaration import Values
from bluffscope.records import VIEWS, Features, LayerState, Targets

if TYPE_CHECKING:
    import torch

    from bluffscope.metrics.active import ActiveFeatures
    from bluffscope.metrics.geometry import Geometry


def _decomposed(features: Features, decoder: torch.Tensor) -> Geometry:
    from bluffscope.metrics.geometry import (
        measure_geometry,  # torch: seconds that reading a declaration should not take
    )

    return measure_geometry(features, decoder)


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
    decompose: Callable[[Features, torch.Tensor], Geometry] = _decomposed
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

    def features(self, layer: int) -> ActiveFeatures:
        """The SAE features of every read at a layer.

        Raises:
            InputError: the layer is not measured.
        """
        from bluffscope.metrics.active import ActiveFeatures  # torch, as above

        return ActiveFeatures(self._state(layer).features)

    def _state(self, layer: int) -> LayerState:
        if layer not in self.states:
            measured = " ".join(map(str, self.states))
            raise InputError(f"layer {layer} is not measured, only {measured}; add it with --layers")
        return self.states[layer]

    def geometry(self, layer: int) -> Geometry:
        """Geometry of the active decoder directions of every read, computed once."""
        if layer not in self._geometry:
            state = self._state(layer)
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
