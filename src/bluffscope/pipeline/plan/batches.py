"""Which pairs share a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bluffscope.model.lengths import LengthClasses
from bluffscope.pipeline.plan.tokens import as_far_as_read, common_prefix
from bluffscope.records import TokenizedPair


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How large a forward pass may grow."""

    batch_size: Literal["auto"] | int
    """Pairs a forward, or "auto" to fill `batch_tokens`."""
    batch_tokens: int
    """Tokens computed a forward, with batch_size "auto"."""
    row_tokens: int
    """Most slots of a packed row: attention costs grow with its square."""
    cell_cost: float = 0.0
    """Cost of one cell (query, key) of a row's attention, in tokens; see `plan.tries.pack`."""
    lengths: LengthClasses = LengthClasses()
    """Which texts may share a forward; a batch with texts of several classes takes one forward for each."""


def plan_batches(
    pairs: Sequence[TokenizedPair], limits: BatchLimits, *, packed: bool = True
) -> Iterator[list[TokenizedPair]]:
    """Cut pairs into batches that waste little.

    Every pair comes exactly once, its texts only as far as they are read; batches hold at least one pair whatever the
    limits say. Where the length of a text matters to the model, texts stay whole and like lengths come together.

    Args:
        pairs: of one shard.
        limits: how large a batch may grow.
        packed: whether the batches will hold tries, so that neighbours in prefix order belong together and shared
            prompts share rows; padded batches want neighbours in length together.
    """
    lengths = limits.lengths
    cut = pairs if lengths.several else map(as_far_as_read, pairs)
    ordered = sorted(cut, key=(lambda pair: (lengths.of_length(_longest(pair)), _prompt(pair))) if packed else _longest)
    batch: list[TokenizedPair] = []
    tokens, last = 0, ()
    for pair in ordered:
        cost = _new_tokens(pair, last) if packed else 3 * _longest(pair)
        full = tokens + cost > limits.batch_tokens if limits.batch_size == "auto" else len(batch) >= limits.batch_size
        if batch and full:
            yield batch
            batch, tokens, last = [], 0, ()
            cost = _new_tokens(pair, last) if packed else cost
        batch.append(pair)
        tokens, last = tokens + cost, _prompt(pair)
    if batch:
        yield batch


def _prompt(pair: TokenizedPair) -> tuple[int, ...]:
    return pair.sequences[0].ids


def _longest(pair: TokenizedPair) -> int:
    return max(len(sequence.ids) for sequence in pair.sequences)


def _new_tokens(pair: TokenizedPair, before: tuple[int, ...]) -> int:
    """Trie nodes that a pair adds to a batch whose last prompt was `before`."""
    prompt, fact, hall = (sequence.ids for sequence in pair.sequences)
    own = len(prompt) + len(fact) - common_prefix(prompt, fact)
    own += len(hall) - max(common_prefix(prompt, hall), common_prefix(fact, hall))
    return own - common_prefix(prompt, before)
