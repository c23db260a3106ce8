"""What an analysis is given, and how values at reads become values of an item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Float

from bluffscope.config import MeasureOptions
from bluffscope.errors import InputError
from bluffscope.metrics.declaration import Values
from bluffscope.records import PAIRS, Arrangement, DistinctReads, Features, LayerState, LensReading, Targets

if TYPE_CHECKING:
    import torch

    from bluffscope.metrics.active import ActiveFeatures
    from bluffscope.metrics.geometry import Geometry


AtReads: TypeAlias = "np.ndarray | torch.Tensor"
"""(read,) float64 values, one for each read, wherever they were computed."""


def _decomposed(features: Features, decoder: torch.Tensor) -> Geometry:
    # torch: seconds that reading a declaration should not take
    from bluffscope.metrics.geometry import measure_geometry

    return measure_geometry(features, decoder)


@dataclass(frozen=True)
class Measurement:
    """One batch of items (pairs, in a run over pairs), encoded: everything an analysis may look at.

    Reads are ordered by item, view and token. There is one for each item and view; with
    ``position="completion-mean"`` one for each token of the completion (and one for the prompt).
    """

    item_ids: Sequence[str]
    """Of the batch's items, in its order."""
    read_item: np.ndarray
    """(read,) position of the item in this batch."""
    read_view: np.ndarray
    """(read,) index into the arrangement's views: 0 prompt, 1 fact, 2 hallucination of a pair."""
    states: Mapping[int, LayerState]
    """By layer, in the order the layers were asked for."""
    encode: Callable[[int, torch.Tensor], Features]
    """The SAE of a layer: (layer, residuals (read, d_model)) to features."""
    options: MeasureOptions
    """What the run was asked to measure: position, noise, seed."""
    decompose: Callable[[Features, torch.Tensor], Geometry] = _decomposed
    """How the geometry of features over a decoder is computed."""
    distinct: DistinctReads | None = None
    """Which reads are of the same node of the batch's tries; None where none are."""
    targets: Targets | None = None
    """The completion tokens of the batch, with ``logprob`` or ``trajectory`` only."""
    logprobs: np.ndarray | None = None
    """(target,) float64: log-probability of each of them, in nats."""
    answers: Targets | None = None
    """The answers to what the model is asked about the batch's texts, with ``p_true`` only."""
    answer_logprobs: np.ndarray | None = None
    """(target,) float64: log-probability of each of their tokens, in nats."""
    lens: Mapping[int, LensReading] | None = None
    """What each layer predicts of them through the logit lens, with ``trajectory`` only."""
    arrangement: Arrangement = PAIRS
    """Which texts an item has."""
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
        """Geometry of the active decoder directions of every read, computed once, where the model runs."""
        if layer not in self._geometry:
            state = self._state(layer)
            self._geometry[layer] = self._of_distinct_reads(state)
        return self._geometry[layer]

    def _of_distinct_reads(self, state: LayerState) -> Geometry:
        if self.distinct is None:
            return self.decompose(state.features, state.decoder)
        import torch  # as above

        device = state.features.indptr.device
        first, place = (torch.from_numpy(part).to(device) for part in self.distinct)
        found = self.decompose(state.features.take(first), state.decoder)
        return type(found)(*(part[place] for part in found))

    @property
    def pair_ids(self) -> Sequence[str]:
        """`item_ids`, in a run over pairs."""
        return self.item_ids

    @property
    def read_pair(self) -> np.ndarray:
        """`read_item`, in a run over pairs."""
        return self.read_item

    @cached_property
    def prompt_read(self) -> np.ndarray:
        """(read,) index of the read of the same item's prompt."""
        of_item = np.full(len(self.item_ids), -1)
        prompts = np.flatnonzero(self.read_view == self.arrangement.views.index("prompt"))
        of_item[self.read_item[prompts]] = prompts
        return of_item[self.read_item]

    def by_view(self, values: AtReads) -> Float[np.ndarray, "item view"]:
        """Mean over the reads of each item and view at which the value is defined; NaN where it is at none."""
        at_reads = values if isinstance(values, np.ndarray) else values.cpu().numpy()
        sums, counts = self.totals(self.read_item, self.read_view, at_reads)
        with np.errstate(invalid="ignore"):
            return sums / counts

    def totals(
        self, item: np.ndarray, view: np.ndarray, values: np.ndarray
    ) -> tuple[Float[np.ndarray, "item view"], Float[np.ndarray, "item view"]]:
        """Sums of the values that are defined, and their counts, by the item and view that each belongs to."""
        views = len(self.arrangement.views)
        cells, defined = len(self.item_ids) * views, ~np.isnan(values)
        cell = item[defined] * views + view[defined]
        sums = np.bincount(cell, weights=values[defined], minlength=cells)
        return sums.reshape(-1, views), np.bincount(cell, minlength=cells).reshape(-1, views)

    def fact_hall_diff(self, name: str, values: AtReads) -> dict[str, Values]:
        """The three columns `{name}_{fact|hall|diff}` of a metric known at every read; diff is hall - fact."""
        return {**self.arrangement.compared(name, self.by_view(values))}
