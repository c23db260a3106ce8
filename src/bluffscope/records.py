"""What the stages of a run hand each other, and the glossary of tensor axes.

Axis glossary (used in every jaxtyping shape):

* ``item``: items of a batch (pairs, in a run over pairs), in the batch's own order.
* ``view``: the texts of an item, in the order of its arrangement's views: prompt, fact, hallucination of a pair.
* ``read``: read positions of a batch: one for each item and view, more with ``position="completion-mean"``.
* ``target``: completion tokens whose log-probability is asked for.
* ``row``, ``token``: rows of a packed batch and the slots of a row.
* ``layer``: layers measured, in the order the user gave.
* ``active``: active features of one read; ``d_model``: residual width; ``d_sae``: dictionary width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from bluffscope.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int

View = Literal["prompt", "fact", "hall", "text"]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which texts make an item, and what its row of the result table calls their columns."""

    views: tuple[View, ...]
    """The texts of an item that are measured, in the table's order."""
    completions: tuple[View, ...]
    """Those of them that metrics of one value a text are given for: all but the prompt."""
    sources: tuple[str, ...]
    """Names of the fields of an item that hold its texts as they were given."""

    def of_part(self, name: str, part: str) -> str:
        """The column of one of the `parts` of a metric: ``entropy_diff``."""
        return f"{name}_{part}" if part else name

    @property
    def parts(self) -> tuple[str, ...]:
        """Suffixes of the columns of a metric that is given for completions: "diff" is the second less the first."""
        return (*self.completions, "diff") if len(self.completions) > 1 else ("",)

    def of_view(self, view: View, name: str) -> str:
        """The column of one view: ``fact_read_token``; just the name where an item has only one text."""
        return f"{view}_{name}" if len(self.views) > 1 else name

    def at_layer(self, layer: int, view: View, name: str) -> str:
        """The column of a metric of one layer and view: ``l5_fact_gini``."""
        return f"l{layer}_{self.of_view(view, name)}"

    @property
    def completed(self) -> list[int]:
        """Indices of the completions among the views."""
        return [self.views.index(view) for view in self.completions]

    def compared(self, name: str, values: Float[np.ndarray, "item view"]) -> dict[str, np.ndarray]:
        """The columns of a metric known for every view: those of `parts`, each with one value an item."""
        columns = [values[:, view] for view in self.completed]
        columns += [columns[1] - columns[0]] if len(columns) > 1 else []
        return {self.of_part(name, part): column for part, column in zip(self.parts, columns, strict=True)}


PAIRS: Final = Arrangement(
    views=("prompt", "fact", "hall"), completions=("fact", "hall"), sources=("prompt", "fact", "hallucination")
)
"""A prompt with its true and its hallucinated completion."""
VIEWS: Final[tuple[View, ...]] = PAIRS.views
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


def spread(count: int, wanted: int) -> list[int]:
    """So many places out of `count`, from the middle of each of as many equal stretches; all where there are fewer."""
    wanted = min(count, wanted)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


class Item(Protocol):
    """What makes one row of the result table: some texts that are read together."""

    @property
    def index(self) -> int:
        """Position in the input, from 0."""
        ...

    @property
    def id(self) -> str:
        """Unique within the input."""
        ...

    @property
    def extra(self) -> Mapping[str, Any]:
        """Further columns of the source, carried through to the tables."""
        ...

    @property
    def arrangement(self) -> Arrangement:
        """Which texts it has."""
        ...

    @property
    def cells(self) -> dict[str, Any]:
        """What its row of the table says of it, by column; a shard's identity follows from them, in this order."""
        ...

    def texts(self, join: str) -> tuple[str, tuple[str, ...]]:
        """Its prompt ("" for none) and, for each completion of its arrangement, prompt and completion `joined`."""
        ...


ItemT = TypeVar("ItemT", bound=Item, covariant=True)


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

    @property
    def arrangement(self) -> Arrangement:
        """That of pairs."""
        return PAIRS

    @property
    def cells(self) -> dict[str, Any]:
        """Its texts and names, by column."""
        return {
            "complexity": self.complexity,
            "pair_id": self.id,
            "domain": self.domain,
            "prompt": self.prompt,
            "fact": self.fact,
            "hallucination": self.hallucination,
        }

    def texts(self, join: str) -> tuple[str, tuple[str, ...]]:
        """The prompt, and the texts of fact and hallucination as `joined` puts them together."""
        return self.prompt, (joined(self.prompt, self.fact, join), joined(self.prompt, self.hallucination, join))

    def text(self, view: View, join: str) -> str:
        """The text of a view."""
        prompt, completions = self.texts(join)
        return dict(zip(VIEWS, (prompt, *completions), strict=True))[view]


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of the input that is measured and committed as one: batches never cross its border."""

    number: int
    items: tuple[Item, ...]
    groups: tuple[str, ...]
    """Group label of each item."""
    arrangement: Arrangement = PAIRS
    """Of its items."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The token ids of one text, and where it is read."""

    item: int
    """Index of its item in the input."""
    view: int
    """Which of its item's views it is: an index into `Arrangement.views`."""
    ids: tuple[int, ...]
    """Token ids as the model sees them, a BOS first where one is fed."""
    reads: tuple[int, ...]
    """Indices into `ids` at which the text is measured; never a BOS, never empty."""
    scored: tuple[int, ...] = ()
    """Indices into `ids` of the completion's tokens, where their log-probability is asked for; never the first of
    `ids`, which nothing predicts."""


@dataclass(frozen=True, slots=True)
class Tokenized(Generic[ItemT]):
    """The texts of an item as token ids, with what the table says of them, each in the order of its views."""

    item: ItemT
    sequences: tuple[Sequence, ...]
    tokens: tuple[int, ...]
    """Tokens of the prompt, without BOS; of each completion: the text's length less the longest token prefix it has in
    common with the prompt."""
    read_tokens: tuple[str, ...]
    """Text of the (last) token at which each is read."""


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
                item=targets.item[kept],
                view=targets.view[kept],
            )
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
        )

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
