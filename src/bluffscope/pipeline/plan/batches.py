"""Which items share a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bluffscope.model.lengths import LengthClasses
from bluffscope.pipeline.plan.tokens import as_far_as_read, common_prefix
from bluffscope.records import Item, ItemT, Tokenized


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How large a forward pass may grow."""

    batch_size: Literal["auto"] | int
    """Items a forward, or "auto" to fill `batch_tokens`."""
    batch_tokens: int
    """Tokens computed a forward, with batch_size "auto"."""
    row_tokens: int
    """Most slots of a packed row: attention costs grow with its square."""
    cell_cost: float = 0.0
    """Cost of one cell (query, key) of a row's attention, in tokens; see `plan.tries.pack`."""
    lengths: LengthClasses = LengthClasses()
    """Which texts may share a forward; a batch with texts of several classes takes one forward for each."""


def plan_batches(
    items: Sequence[Tokenized[ItemT]], limits: BatchLimits, *, packed: bool = True
) -> Iterator[list[Tokenized[ItemT]]]:
    """Cut items into batches that waste little.

    Every item comes exactly once, its texts only as far as they are read; batches hold at least one item whatever the
    limits say. Where the length of a text matters to the model, texts stay whole and like lengths come together.

    Args:
        items: of one shard.
        limits: how large a batch may grow.
        packed: whether the batches will hold tries, so that neighbours in prefix order belong together and shared
            prompts share rows; padded batches want neighbours in length together.
    """
    lengths = limits.lengths
    cut = items if lengths.several else map(as_far_as_read, items)
    ordered = sorted(cut, key=(lambda item: (lengths.of_length(_longest(item)), _first(item))) if packed else _longest)
    batch: list[Tokenized[ItemT]] = []
    tokens, last = 0, ()
    for item in ordered:
        cost = _new_tokens(item, last) if packed else len(_texts(item)) * _longest(item)
        full = tokens + cost > limits.batch_tokens if limits.batch_size == "auto" else len(batch) >= limits.batch_size
        if batch and full:
            yield batch
            batch, tokens, last = [], 0, ()
            cost = _new_tokens(item, last) if packed else cost
        batch.append(item)
        tokens, last = tokens + cost, _first(item)
    if batch:
        yield batch


def _first(item: Tokenized[Item]) -> tuple[int, ...]:
    """The ids of its first text: of its prompt, where that is measured."""
    return item.sequences[0].ids


def _longest(item: Tokenized[Item]) -> int:
    return max(map(len, _texts(item)))


def _texts(item: Tokenized[Item]) -> list[tuple[int, ...]]:
    """The ids of all that goes through the model."""
    return [sequence.computed for sequence in (*item.sequences, *item.questions)]


def _new_tokens(item: Tokenized[Item], before: tuple[int, ...]) -> int:
    """Trie nodes that an item adds to a batch whose last item's first text was `before`."""
    texts = _texts(item)
    shared = [max((common_prefix(text, ids) for text in texts[:place]), default=0) for place, ids in enumerate(texts)]
    return sum(map(len, texts)) - sum(shared) - common_prefix(texts[0], before)
