"""Which pairs share a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bluffscope.plan.tokens import common_prefix
from bluffscope.records import TokenizedPair


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How large a forward pass may grow."""

    batch_size: Literal["auto"] | int
    """Pairs a forward, or "auto" to fill `batch_tokens`."""
    batch_tokens: int
    """Distinct tokens a forward, with batch_size "auto"."""
    row_tokens: int
    """Slots of a packed row: attention costs grow with its square."""


def plan_batches(pairs: Sequence[TokenizedPair], limits: BatchLimits) -> Iterator[list[TokenizedPair]]:
    """Cut pairs into batches, neighbours in prefix order together, so that shared prompts share rows.

    Every pair comes exactly once; batches hold at least one pair whatever the limits say.
    """
    ordered = sorted(pairs, key=lambda pair: pair.sequences[0].ids)
    batch: list[TokenizedPair] = []
    tokens, last = 0, ()
    for pair in ordered:
        cost = _new_tokens(pair, last)
        full = tokens + cost > limits.batch_tokens if limits.batch_size == "auto" else len(batch) >= limits.batch_size
        if batch and full:
            yield batch
            batch, tokens, last = [], 0, ()
            cost = _new_tokens(pair, last)
        batch.append(pair)
        tokens, last = tokens + cost, pair.sequences[0].ids
    if batch:
        yield batch


def _new_tokens(pair: TokenizedPair, before: tuple[int, ...]) -> int:
    """Trie nodes that a pair adds to a batch whose last prompt was `before`."""
    prompt, fact, hall = (sequence.ids for sequence in pair.sequences)
    own = len(prompt) + len(fact) - common_prefix(prompt, fact)
    own += len(hall) - max(common_prefix(prompt, hall), common_prefix(fact, hall))
    return own - common_prefix(prompt, before)
