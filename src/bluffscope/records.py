"""What the stages of a run hand each other, and the glossary of tensor axes.

Axis glossary (used in every jaxtyping shape):

* ``pair``: pairs of a batch, in the batch's own order.
* ``view``: the three texts of a pair, in the order of `VIEWS`.
* ``read``: read positions of a batch: one for each pair and view, more with ``position="completion-mean"``.
* ``target``: completion tokens whose log-probability is asked for.
* ``row``, ``token``: rows of a packed batch and the slots of a row.
* ``layer``: layers measured, in the order the user gave.
* ``active``: active features of one read; ``d_model``: residual width; ``d_sae``: dictionary width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int

View = Literal["prompt", "fact", "hall"]
VIEWS: Final[tuple[View, View, View]] = ("prompt", "fact", "hall")
AUTO_JOIN: Final = "auto"
"""The join that is one space where prompt and completion do not bring white space of their own."""


def joined(prompt: str, completion: str, join: str) -> str:
    """The text that a model reads: prompt + join + completion.

    Args:
        prompt: may be empty.
        completion: what follows it.
        join: taken as it is; `AUTO_JOIN` is one space, or nothing where the prompt is empty or ends in white space, or
            where the completion begins with white space. Where both have a space there, one of the two is left out.
    """
    if join == AUTO_JOIN:
        join = "" if not prompt or prompt[-1].isspace() or completion[:1].isspace() else " "
        completion = completion[1:] if prompt.endswith(" ") and completion.startswith(" ") else completion
    return prompt + join + completion


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with its true and its hallucinated completion."""

    index: int
    """Position in the input, from 0: the row of the result table."""
    id: str
    """Unique within the input; the row number as text where the source has none."""
    domain: str
    """Named group of pairs that statistics are reported for; "all" where the source has none."""
    complexity: int | None
    """Difficulty from 1 to 10, or None."""
    prompt: str
    fact: str
    hallucination: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the source, carried through to the tables."""

    def text(self, view: View, join: str) -> str:
        """The text of a view: the prompt, or prompt and completion as `joined` puts them together."""
        if view == "prompt":
            return self.prompt
        return joined(self.prompt, self.fact if view == "fact" else self.hallucination, join)


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of the input that is measured and committed as one: batches never cross its border."""

    number: int
    pairs: tuple[Pair, ...]
    groups: tuple[str, ...]
    """Group label of each pair."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The token ids of one view, and where it is read."""

    pair: int
    """Index of its pair in the input."""
    view: View
    ids: tuple[int, ...]
    """Token ids as the model sees them, a BOS first where one is fed."""
    reads: tuple[int, ...]
    """Indices into `ids` at which the view is measured; never a BOS, never empty."""
    scored: tuple[int, ...] = ()
    """Indices into `ids` of the completion's tokens, where their log-probability is asked for; never the first of
    `ids`, which nothing predicts."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """The three views of a pair as token ids, with what the table says of them."""

    pair: Pair
    sequences: tuple[Sequence, Sequence, Sequence]
    """In the order of `VIEWS`."""
    prompt_tokens: int
    """Tokens of the prompt, without BOS."""
    completion_tokens: tuple[int, int]
    """Tokens of the fact and of the hallucination: the view's length less the longest token prefix
    it has in common with the prompt."""
    read_tokens: tuple[str, str, str]
    """Text of the (last) token read in each view."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Completion tokens whose log-probability is asked for, each at the position that predicts it."""

    row: np.ndarray
    """(target,) int64: row of the node before each token: its parent in the trie."""
    slot: np.ndarray
    """(target,) int64: that node's slot."""
    token: np.ndarray
    """(target,) int64: id of the token."""
    pair: np.ndarray
    """(target,) int64: position of its pair in the batch."""
    view: np.ndarray
    """(target,) int64: index into `VIEWS`."""


@dataclass(frozen=True, slots=True)
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
    read_pair: np.ndarray
    """(read,) int64: position of the read's pair in the batch."""
    read_view: np.ndarray
    """(read,) int64: index into `VIEWS`."""
    row_lengths: np.ndarray
    """(row,) int64: slots of each row that hold a node."""
    branching: bool
    """False where each row is one plain text (strategy ``batched``): no custom mask is needed."""
    targets: Targets | None = None
    """Where log-probabilities are read; None where they are not asked for."""

    def rows(self, chosen: np.ndarray) -> PackedBatch:
        """These rows as a batch of their own, no wider than they need; reads and targets keep their order."""
        width = int(self.row_lengths[chosen].max())
        place = np.full(len(self.input_ids), -1)
        place[chosen] = np.arange(len(chosen))
        read, targets = place[self.read_row] >= 0, self.targets
        if targets is not None:
            kept = place[targets.row] >= 0
            targets = Targets(
                row=place[targets.row[kept]],
                slot=targets.slot[kept],
                token=targets.token[kept],
                pair=targets.pair[kept],
                view=targets.view[kept],
            )
        return PackedBatch(
            input_ids=self.input_ids[chosen, :width],
            position_ids=self.position_ids[chosen, :width],
            subtree_end=self.subtree_end[chosen, :width],
            read_row=place[self.read_row[read]],
            read_slot=self.read_slot[read],
            read_pair=self.read_pair[read],
            read_view=self.read_view[read],
            row_lengths=self.row_lengths[chosen],
            branching=self.branching,
            targets=targets,
        )

    @property
    def distinct_tokens(self) -> int:
        """Nodes computed: tokens of all tries without pads."""
        return int(self.row_lengths.sum())


@dataclass(frozen=True, slots=True)
class Activations:
    """Residuals at the read positions, for each layer asked for; log-probabilities where they are asked for."""

    residuals: Mapping[int, Float[torch.Tensor, "read d_model"]]
    """By layer."""
    logprobs: Float[torch.Tensor, " target"] | None = None
    """Of the batch's targets, in nats, in float32 or better."""


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


@dataclass(frozen=True, slots=True)
class LayerState:
    """All that the analyses may know of one layer at the reads of a batch."""

    layer: int
    residual: Float[torch.Tensor, "read d_model"]
    features: Features
    reconstruction: Float[torch.Tensor, "read d_model"]
    decoder: Float[torch.Tensor, "d_sae d_model"]
    """W_dec: the positions r_i of the geometry."""
