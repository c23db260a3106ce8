"""Token tries packed into rows: every distinct prefix is computed once.

Sequences sorted by their ids visit the nodes of their trie in depth-first order, and the longest
prefix a sequence shares with anything before it in the row is the one it shares with its
predecessor. So a row is built in one pass, and the descendants of a node are contiguous.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from bluffscope.model.lengths import LengthClasses
from bluffscope.pipeline.plan.tokens import common_prefix
from bluffscope.records import FurtherReads, PackedBatch, Sequence, Targets

_Place = tuple[int, int, int, int, int]
"""Item, view, index into the sequence's ids, row, slot (of a target: the slot before it)."""


ONE_CLASS = LengthClasses()
"""Of models where all texts may share a forward: nearly all."""


@dataclass
class _Places:
    """Where the sequences of a batch are read and scored."""

    reads: list[_Place] = field(default_factory=list)
    targets: list[tuple[_Place, int]] = field(default_factory=list)
    """Each with the id of the token that follows."""
    answers: list[tuple[_Place, int]] = field(default_factory=list)
    """Likewise of answers to questions about the texts."""
    further: list[tuple[_Place, int]] = field(default_factory=list)
    """Further reads, each with its position's number."""

    def add(self, sequence: Sequence, slots: dict[int, int], row: int, path: list[int]) -> None:
        """The places at which a sequence is read, and those before its scored tokens."""
        item, view = slots[sequence.item], sequence.view
        self.reads += [(item, view, index, row, path[index]) for index in sequence.reads]
        for number, reads in enumerate(sequence.further):
            self.further += [((item, view, index, row, path[index]), number) for index in reads]
        scored = self.answers if sequence.answers else self.targets
        scored += [((item, view, index, row, path[index - 1]), sequence.ids[index]) for index in sequence.scored]


@dataclass
class _Row:
    """A row being filled."""

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    """Slots of the last sequence added, from the root."""

    def add(self, ids: tuple[int, ...], shared: int) -> None:
        """Append the nodes of `ids` beyond the `shared` ones it has in common with the last sequence."""
        self._close(shared)
        for depth in range(shared, len(ids)):
            self.path.append(len(self.ids))
            self.ids.append(ids[depth])
            self.depths.append(depth)
            self.ends.append(-1)

    def _close(self, depth: int) -> None:
        for slot in self.path[depth:]:
            self.ends[slot] = len(self.ids)
        del self.path[depth:]

    def finish(self) -> None:
        self._close(0)


_LENGTHS_TRIED = 200
SHORTEST_ROW = 32
"""Slots of the shortest row tried: below it, rows are mostly their own padding."""


def pack(
    sequences: Sequences[Sequence],
    slots: dict[int, int],
    row_tokens: int,
    cell_cost: float = 0.0,
    lengths: LengthClasses = ONE_CLASS,
) -> PackedBatch:
    """Lay the sequences out as tries in rows of at most `row_tokens` slots.

    A long row computes a shared prefix once for more texts; a short one spends less on attention. The length taken is
    the cheapest of many up to `row_tokens`, by the count of slots (padding included) and attention cells.

    Args:
        sequences: texts of the batch's items.
        slots: position in the batch of each item index.
        row_tokens: most slots a row; a single longer sequence gets a row as long as itself.
        cell_cost: cost of one attention cell (query, key), in slots; 0 takes `row_tokens` as it is.
        lengths: which texts may share a row.

    Returns:
        The batch, its reads ordered by item, view, token.
    """
    rows: list[_Row] = []
    places = _Places()
    for alike in lengths.split(sequences):
        _pack(alike, slots, row_tokens, cell_cost, rows, places)
    return _batch(rows, places, branching=True)


def _pack(
    sequences: Sequences[Sequence],
    slots: dict[int, int],
    row_tokens: int,
    cell_cost: float,
    rows: list[_Row],
    places: _Places,
) -> None:
    """Add the rows of sequences that may share them, and where they are read and scored."""
    ordered = sorted(sequences, key=lambda sequence: sequence.computed)
    texts = [sequence.computed for sequence in ordered]
    shared = [common_prefix(before, after) for before, after in zip(texts, texts[1:], strict=False)]
    shared.insert(0, 0)
    limit = _cheapest_limit([len(ids) for ids in texts], shared, row_tokens, cell_cost)
    rows.append(_Row())
    for sequence, ids, common in zip(ordered, texts, shared, strict=True):
        row = rows[-1]
        if row.ids and len(row.ids) + len(ids) - common > limit:
            row.finish()
            row, common = _Row(), 0
            rows.append(row)
        row.add(ids, common)
        places.add(sequence, slots, len(rows) - 1, row.path)
    rows[-1].finish()


def _cheapest_limit(lengths: Sequences[int], shared: Sequences[int], row_tokens: int, cell_cost: float) -> int:
    """The row length that costs least; never shorter than the longest sequence."""
    longest = max(lengths)
    best = row_tokens = max(row_tokens, longest)
    if not cell_cost:
        return best
    best_cost = math.inf
    ends = list(accumulate((length - common for length, common in zip(lengths, shared, strict=True)), initial=0))
    shortest = max(longest, SHORTEST_ROW)
    for limit in range(row_tokens, shortest - 1, -max(1, (row_tokens - shortest) // _LENGTHS_TRIED)):
        row_count, width = _layout(lengths, ends, limit)
        cost = row_count * width * (1 + cell_cost * width)
        if cost < best_cost:
            best, best_cost = limit, cost
    return best


def _layout(lengths: Sequences[int], ends: Sequences[int], limit: int) -> tuple[int, int]:
    """Rows that packing would make, and the slots of the longest.

    Args:
        lengths: of the sequences, in packing order.
        ends: nodes of all sequences before each, and of all together, were they one row.
        limit: most slots of a row.
    """
    row_count, width, start = 0, 0, 0
    while start < len(lengths):
        before = ends[start + 1] - lengths[start]  # the first sequence of a row shares nothing
        stop = max(bisect_right(ends, limit + before) - 1, start + 1)
        row_count, width, start = row_count + 1, max(width, ends[stop] - before), stop
    return row_count, width


def pad(sequences: Sequences[Sequence], slots: dict[int, int]) -> PackedBatch:
    """Lay each sequence out as a row of its own, padded on the right (for models without custom masks)."""
    rows: list[_Row] = []
    places = _Places()
    for sequence in sequences:
        row = _Row()
        row.add(sequence.computed, 0)
        places.add(sequence, slots, len(rows), row.path)
        row.finish()
        rows.append(row)
    return _batch(rows, places, branching=False)


def _batch(rows: list[_Row], places: _Places, *, branching: bool) -> PackedBatch:
    lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
    shape = (len(rows), int(lengths.max()))
    input_ids = np.zeros(shape, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    subtree_end = np.broadcast_to(np.arange(1, shape[1] + 1), shape).copy()  # a pad is its own subtree
    for number, row in enumerate(rows):
        used = len(row.ids)
        input_ids[number, :used] = row.ids
        position_ids[number, :used] = row.depths
        subtree_end[number, :used] = row.ends
    ordered = np.array(sorted(places.reads), dtype=np.int64).reshape(-1, 5)  # (read, 5)
    return PackedBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        subtree_end=subtree_end,
        read_item=ordered[:, 0],
        read_view=ordered[:, 1],
        read_row=ordered[:, 3],
        read_slot=ordered[:, 4],
        row_lengths=lengths,
        branching=branching,
        targets=_targets(places.targets) if places.targets else None,
        answers=_targets(places.answers) if places.answers else None,
        further=_further(places.further) if places.further else None,
    )


def _targets(targets: list[tuple[_Place, int]]) -> Targets:
    ordered = np.array([(*place, token) for place, token in sorted(targets)], dtype=np.int64)  # (target, 6)
    return Targets(row=ordered[:, 3], slot=ordered[:, 4], token=ordered[:, 5], item=ordered[:, 0], view=ordered[:, 1])


def _further(reads: list[tuple[_Place, int]]) -> FurtherReads:
    """Ordered by item, view, position, token."""
    ordered = sorted(reads, key=lambda read: (*read[0][:2], read[1], read[0][2]))
    found = np.array([(*place, number) for place, number in ordered], dtype=np.int64)  # (further, 6)
    return FurtherReads(row=found[:, 3], slot=found[:, 4], item=found[:, 0], view=found[:, 1], position=found[:, 5])
