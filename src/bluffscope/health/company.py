"""Do texts change each other? The forward in which a run measured its longest text, made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from bluffscope.pipeline.plan import pad, plan_batches
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.records import Item, Tokenized, View
from bluffscope.records import Sequence as TokenSequence

MOST_PAIRS: Final = 16
"""Pairs of the longest text's forward that go through the model again with it."""
MOST_TEXTS: Final = 4
"""Texts compared in addition to the eight spread over the run: each takes one more plain forward pass."""


@dataclass(frozen=True)
class Company:
    """The longest text of some pairs, those that share a forward with it, and one of each class of length."""

    batch: Sequence[Tokenized[Item]]
    """The pairs whose texts the planner puts together with the longest."""
    others: Sequence[Tokenized[Item]]
    """Pairs that stand for the other classes."""
    texts: Sequence[tuple[Item, View]]
    """What is compared with plain forwards: the longest first, then the shortest of its batch."""
    longest: TokenSequence

    @classmethod
    def of(cls, worker: ShardWorker, pairs: Sequence[Tokenized[Item]]) -> Company | None:
        """Those of a shard; None where it is empty."""
        if not pairs:
            return None
        batches = plan_batches(pairs, worker.limits, packed=worker.reader.packs)
        batch = max(batches, key=lambda batch: max(len(text.ids) for _, text in _texts(batch)))
        together = sorted(_texts(batch), key=lambda item: len(item[1].ids))
        chosen = [together[-1], together[0], together[len(together) // 2]]
        length_class = worker.limits.lengths.of_length
        classes = {length_class(len(text.ids)): (pair, text) for pair, text in _texts(pairs)}
        known = {length_class(len(text.ids)) for _, text in chosen}
        chosen[2:2] = [item for name, item in sorted(classes.items()) if name not in known]
        texts = {(text.item, text.view): (pair, text) for pair, text in chosen[:MOST_TEXTS]}.values()
        needed = {pair.item.index for pair, _ in texts}
        with_them = [pair for pair in batch if pair.item.index in needed]
        with_them += [pair for pair in batch if pair.item.index not in needed]
        batch = with_them[:MOST_PAIRS]
        within = {pair.item.index for pair in batch}
        others = {pair.item.index: pair for pair, _ in texts if pair.item.index not in within}
        compared: tuple[tuple[Item, View], ...] = tuple(
            (pair.item, pair.item.arrangement.views[text.view]) for pair, text in texts
        )
        return cls(batch, tuple(others.values()), compared, chosen[0][1])

    def changes(self, worker: ShardWorker, text: TokenSequence, layer: int, tolerance: float) -> bool:
        """Whether a text is read differently in a padded row next to the longest text than alone."""
        if text == self.longest:
            return False
        alone = worker.reader.read(pad([text], {text.item: 0})).residuals[layer]
        batch = pad([text, self.longest], {self.longest.item: 1, text.item: 0})
        own = (batch.read_item == 0) & (batch.read_view == text.view)
        beside = worker.reader.read(batch).residuals[layer]
        difference = beside[torch.from_numpy(own).to(beside.device)] - alone
        return bool((difference.norm(dim=1) > tolerance * alone.norm(dim=1)).any())


def _texts(pairs: Sequence[Tokenized[Item]]) -> Iterator[tuple[Tokenized[Item], TokenSequence]]:
    return ((pair, text) for pair in pairs for text in pair.sequences)
