"""What the model is given and gives back for a batch: packed rows, residuals, predictions, features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bluffscope.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class Targets:
    """Completion tokens whose log-probability is asked for, each at the position that predicts it."""

    row: np.ndarray
    """(target,) int64: row of the node before each token: its parent in the trie."""
    slot: np.ndarray
    """(target,) int64: that node's slot."""
    token: np.ndarray
    """(target,) int64: id of the token."""
    item: np.ndarray
    """(target,) int64: position of its item in the batch."""
    view: np.ndarray
    """(target,) int64: index into the item's views."""

    def within(self, place: np.ndarray) -> Targets:
        """Those in some rows; `place` is each row's new number, -1 for rows that are left out."""
        kept = place[self.row] >= 0
        return Targets(
            row=place[self.row[kept]],
            slot=self.slot[kept],
            token=self.token[kept],
            item=self.item[kept],
            view=self.view[kept],
        )


@dataclass(frozen=True, slots=True)
class FurtherReads:
    """Reads at further positions, of which nothing but residuals is kept."""

    row: np.ndarray
    """(further,) int64: row of each read."""
    slot: np.ndarray
    """(further,) int64: its slot."""
    item: np.ndarray
    """(further,) int64: position of its item in the batch."""
    view: np.ndarray
    """(further,) int64: index into the item's views."""
    position: np.ndarray
    """(further,) int64: which of the further positions it is, from 0."""

    def within(self, place: np.ndarray) -> FurtherReads:
        """Those in some rows, as `Targets.within`."""
        kept = place[self.row] >= 0
        return FurtherReads(
            row=place[self.row[kept]],
            slot=self.slot[kept],
            item=self.item[kept],
            view=self.view[kept],
            position=self.position[kept],
        )


class DistinctReads(NamedTuple):
    """Reads of one node by several items, as of a prompt with many answers: encoded and measured once."""

    first: np.ndarray
    """(node,) the first read of each node, ascending."""
    place: np.ndarray
    """(read,) index of each read's node in `first`."""


@dataclass(frozen=True)
class PackedBatch:
    """Token tries of many views, laid out in rows for one forward pass.

    A row lists the distinct nodes of its tries in depth-first order, so the descendants of a node
    are the contiguous slots ``[slot, subtree_end[slot])``: the whole attention pattern follows from
    that one array (see `bluffscope.model.masks`).
    """

    input_ids: np.ndarray
    """(row, token) int64; pad slots hold id 0."""
    position_ids: np.ndarray
    """(row, token) int64: depth in the trie; pad slots 0."""
    subtree_end: np.ndarray
    """(row, token) int64: one past the last descendant of each node; a pad slot's own index + 1."""
    read_row: np.ndarray
    """(read,) int64: row of each read position."""
    read_slot: np.ndarray
    """(read,) int64: slot of each read position in its row."""
    read_item: np.ndarray
    """(read,) int64: position of the read's item in the batch."""
    read_view: np.ndarray
    """(read,) int64: index into the item's views."""
    row_lengths: np.ndarray
    """(row,) int64: slots of each row that hold a node."""
    branching: bool
    """False where each row is one plain text (strategy ``batched``): no custom mask is needed."""
    targets: Targets | None = None
    """Where log-probabilities are read; None where they are not asked for."""
    answers: Targets | None = None
    """Likewise of answers to questions about the texts; their views are those of `Sequence.answers`."""
    further: FurtherReads | None = None
    """Reads at further positions; None where texts are read at one alone."""

    def rows(self, chosen: np.ndarray) -> PackedBatch:
        """These rows as a batch of their own, no wider than they need; reads and targets keep their order."""
        width = int(self.row_lengths[chosen].max())
        place = np.full(len(self.input_ids), -1)
        place[chosen] = np.arange(len(chosen))
        read = place[self.read_row] >= 0
        targets, answers = (None if part is None else part.within(place) for part in (self.targets, self.answers))
        further = None if self.further is None else self.further.within(place)
        return PackedBatch(
            input_ids=self.input_ids[chosen, :width],
            position_ids=self.position_ids[chosen, :width],
            subtree_end=self.subtree_end[chosen, :width],
            read_row=place[self.read_row[read]],
            read_slot=self.read_slot[read],
            read_item=self.read_item[read],
            read_view=self.read_view[read],
            row_lengths=self.row_lengths[chosen],
            branching=self.branching,
            targets=targets,
            answers=answers,
            further=further,
        )

    @cached_property
    def distinct_reads(self) -> DistinctReads | None:
        """Each node that is read, once; None where no node is read twice."""
        node = self.read_row * self.input_ids.shape[1] + self.read_slot
        _, first, place = np.unique(node, return_index=True, return_inverse=True)
        if len(first) == len(node):
            return None
        order = np.argsort(first)
        return DistinctReads(first[order], np.argsort(order)[place])

    @property
    def distinct_tokens(self) -> int:
        """Nodes computed: tokens of all tries without pads."""
        return int(self.row_lengths.sum())


class LensReading(NamedTuple):
    """What a layer predicts through the logit lens at the positions of the batch's targets."""

    logprob: Float[torch.Tensor, " target"]
    """Log-probability of the token that follows, in nats."""
    entropy: Float[torch.Tensor, " target"]
    """Of the prediction, in nats."""
    js: Float[torch.Tensor, " target"]
    """Jensen-Shannon divergence to the model's own prediction, in bits."""
    rank: Float[torch.Tensor, " target"]
    """Rank of the token that follows, 1 for the most likely."""

    @classmethod
    def joined(cls, parts: list[LensReading], order: Int[torch.Tensor, " target"] | None = None) -> LensReading:
        """Readings of some positions after the other, in another order where one is given."""
        import torch  # only where there are tensors already

        whole = [torch.cat(values) for values in zip(*parts, strict=True)]
        return cls(*(whole if order is None else [values[order] for values in whole]))


@dataclass(frozen=True, slots=True)
class Activations:
    """Residuals at the read positions, for each layer asked for; log-probabilities where they are asked for."""

    residuals: Mapping[int, Float[torch.Tensor, "read d_model"]]
    """By layer."""
    logprobs: Float[torch.Tensor, " target"] | None = None
    """Of the batch's targets, in nats, in float32 or better."""
    lens: Mapping[int, LensReading] | None = None
    """By layer, where the logit lens is asked for and there are targets."""
    answers: Float[torch.Tensor, " target"] | None = None
    """Log-probabilities of the batch's `answers`, as `logprobs`."""
    further: Mapping[int, Float[torch.Tensor, "further d_model"]] | None = None
    """By layer: residuals of the batch's `further` reads."""


@dataclass(frozen=True, slots=True)
class Features:
    """SAE features of one layer at the read positions, kept sparse (compressed rows).

    Row ``i`` has features ``indices[indptr[i]:indptr[i + 1]]`` (ascending) with the activations
    ``values[...]`` (all > 0).
    """

    indptr: Int[torch.Tensor, " read+1"]
    indices: Int[torch.Tensor, " active"]
    values: Float[torch.Tensor, " active"]
    d_sae: int

    @property
    def counts(self) -> Int[torch.Tensor, " read"]:
        """L0 of every read."""
        return self.indptr[1:] - self.indptr[:-1]

    def take(self, reads: Int[torch.Tensor, " chosen"]) -> Features:
        """The features of some reads, in their order; a read may come several times."""
        import torch  # only where there are tensors already

        counts = self.counts[reads]
        ends = counts.cumsum(0)
        within = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        source = torch.arange(len(within), device=counts.device) + (self.indptr[reads] - ends + counts)[within]
        return Features(torch.nn.functional.pad(ends, (1, 0)), self.indices[source], self.values[source], self.d_sae)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a layer's SAE makes of the reads of a batch."""

    features: Features
    reconstruction: Float[torch.Tensor, "read d_model"]
    decoder: Float[torch.Tensor, "d_sae d_model"]
    """W_dec: the positions r_i of the geometry."""


@dataclass(frozen=True, slots=True)
class LayerState:
    """All that the analyses may know of one layer at the reads of a batch."""

    layer: int
    residual: Float[torch.Tensor, "read d_model"]
    encoded: Encoded | None = None
    """None where the layer has no SAE; then what follows from it is refused."""

    @property
    def features(self) -> Features:
        """SAE features of every read."""
        return self._through_sae().features

    @property
    def reconstruction(self) -> Float[torch.Tensor, "read d_model"]:
        """What the SAE makes of the features."""
        return self._through_sae().reconstruction

    @property
    def decoder(self) -> Float[torch.Tensor, "d_sae d_model"]:
        """W_dec: the positions r_i of the geometry."""
        return self._through_sae().decoder

    def _through_sae(self) -> Encoded:
        if self.encoded is None:
            raise InputError(
                f"layer {self.layer} is measured without an SAE, so it has no features; give SAEs with --sae, or leave "
                "out the analysis that asks for them"
            )
        return self.encoded
