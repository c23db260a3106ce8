"""Properties of packed rows: nothing twice, nothing missing, everything in its place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.pipeline.plan import pack, pad, tries
from bluffscope.pipeline.plan.tokens import common_prefix
from bluffscope.records import VIEWS, Sequence


@st.composite
def batches(draw):
    """The views of a few pairs over an alphabet of three ids, so that prefixes are shared in every way there is."""
    pairs = draw(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True))
    sequences = []
    for pair in pairs:
        for view in VIEWS:
            ids = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=9)))
            reads = draw(st.sets(st.integers(0, len(ids) - 1), min_size=1, max_size=4))
            sequences.append(Sequence(item=pair, view=VIEWS.index(view), ids=ids, reads=tuple(sorted(reads))))
    return draw(st.permutations(sequences)), {pair: slot for slot, pair in enumerate(pairs)}


def parents(batch, row):
    """The parent slot of each node, -1 for a root, from the depths alone: the nearest before that is one higher."""
    depths = batch.position_ids[row, : batch.row_lengths[row]]
    return [
        max((other for other in range(slot) if depths[other] == depth - 1), default=-1) if depth else -1
        for slot, depth in enumerate(depths)
    ]


def paths(batch, row):
    """The ids from the root to each node of a row."""
    spelled = []
    for slot, parent in enumerate(parents(batch, row)):
        spelled.append((*(spelled[parent] if parent >= 0 else ()), int(batch.input_ids[row, slot])))
    return spelled


def reads_of(batch):
    """What was asked to be read, as (slot of the pair, view, row, slot in the row)."""
    return list(
        zip(
            batch.read_item.tolist(),
            batch.read_view.tolist(),
            batch.read_row.tolist(),
            batch.read_slot.tolist(),
            strict=True,
        )
    )


def check(batch, sequences, slots):
    """What holds for packed and for padded rows."""
    spelled = [paths(batch, row) for row in range(len(batch.row_lengths))]
    wanted = sorted(
        (slots[sequence.item], sequence.view, index, sequence.ids[: index + 1])
        for sequence in sequences
        for index in sequence.reads
    )
    found = reads_of(batch)
    assert [(pair, view) for pair, view, _, _ in found] == [(pair, view) for pair, view, _, _ in wanted]
    assert [spelled[row][slot] for _, _, row, slot in found] == [path for *_, path in wanted]
    for row, nodes in enumerate(spelled):
        used = batch.row_lengths[row]
        assert len(nodes) == used > 0
        assert [len(path) - 1 for path in nodes] == batch.position_ids[row, :used].tolist()
        for slot, path in enumerate(nodes):  # the descendants of a node are contiguous and end where it says
            below = [other for other in range(used) if nodes[other][: len(path)] == path and other >= slot]
            assert below == list(range(slot, batch.subtree_end[row, slot]))
    width = batch.input_ids.shape[1]
    assert width == batch.row_lengths.max()
    padding = np.arange(width) >= batch.row_lengths[:, None]
    assert not batch.input_ids[padding].any()
    assert not batch.position_ids[padding].any()
    assert np.array_equal(batch.subtree_end[padding], np.broadcast_to(np.arange(1, width + 1), padding.shape)[padding])
    assert batch.distinct_tokens == sum(map(len, spelled))
    return spelled


@settings(deadline=None)
@given(batches(), st.integers(1, 60))
def test_rows_hold_every_sequence_once_and_each_node_once(asked, row_tokens):
    sequences, slots = asked
    batch = pack(sequences, slots, row_tokens)
    spelled = check(batch, sequences, slots)
    assert batch.branching
    assert batch.row_lengths.max() <= max(row_tokens, *(len(sequence.ids) for sequence in sequences))
    for nodes in spelled:
        assert len(set(nodes)) == len(nodes), "a prefix is computed twice in one row"
    prefixes = {sequence.ids[:end] for sequence in sequences for end in range(1, len(sequence.ids) + 1)}
    assert {path for nodes in spelled for path in nodes} == prefixes, "a node is missing, or nobody asked for it"


@settings(deadline=None)
@given(batches())
def test_a_row_that_is_long_enough_computes_each_prefix_of_the_batch_once(asked):
    sequences, slots = asked
    batch = pack(sequences, slots, 10_000)
    prefixes = {sequence.ids[:end] for sequence in sequences for end in range(1, len(sequence.ids) + 1)}
    assert len(batch.row_lengths) == 1
    assert batch.distinct_tokens == len(prefixes)


@settings(deadline=None)
@given(batches(), st.integers(1, 30))
def test_all_reads_of_a_sequence_lie_on_one_path_of_one_row(asked, row_tokens):
    sequences, slots = asked
    batch = pack(sequences, slots, row_tokens)
    for sequence in sequences:
        here = (batch.read_item == slots[sequence.item]) & (batch.read_view == sequence.view)
        row, reads = set(batch.read_row[here].tolist()), batch.read_slot[here]
        assert len(row) == 1
        assert np.array_equal(batch.position_ids[row.pop(), reads], sequence.reads)


@settings(deadline=None)
@given(batches())
def test_the_order_of_the_sequences_changes_nothing(asked):
    sequences, slots = asked
    one, other = pack(sequences, slots, 12), pack(sequences[::-1], slots, 12)
    for name in ("input_ids", "position_ids", "subtree_end", "read_row", "read_slot", "row_lengths"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@settings(deadline=None)
@given(batches())
def test_padded_rows_hold_one_text_each(asked):
    sequences, slots = asked
    batch = pad(sequences, slots)
    spelled = check(batch, sequences, slots)
    assert not batch.branching
    assert [nodes[-1] for nodes in spelled] == [sequence.ids for sequence in sequences]


@settings(deadline=None)
@given(batches())
def test_each_node_that_is_read_comes_once_among_the_distinct_reads(asked):
    sequences, slots = asked
    batch = pack(sequences, slots, 12)
    nodes = list(zip(batch.read_row.tolist(), batch.read_slot.tolist(), strict=True))
    if (found := batch.distinct_reads) is None:
        assert len(set(nodes)) == len(nodes)
    else:
        assert [nodes[read] for read in found.first] == list(dict.fromkeys(nodes))
        assert [nodes[found.first[place]] for place in found.place] == nodes


def test_the_order_of_reads_is_pair_view_token():
    sequences = [
        Sequence(item=pair, view=VIEWS.index(view), ids=(1, 2, 3, number), reads=(1, 3))
        for number, (pair, view) in enumerate([(9, "hall"), (4, "fact"), (9, "prompt"), (4, "hall")])
    ]
    batch = pack(sequences, {9: 1, 4: 0}, 100)
    assert batch.read_item.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert batch.read_view.tolist() == [1, 1, 2, 2, 0, 0, 2, 2]
    assert batch.position_ids[0, batch.read_slot].tolist() == [1, 3] * 4


def test_a_pair_s_three_views_share_their_prompt():
    texts = zip(VIEWS, [(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 6)], strict=True)
    views = [Sequence(item=0, view=VIEWS.index(view), ids=ids, reads=(2,)) for view, ids in texts]
    batch = pack(views, {0: 0}, 100)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 4]]
    assert batch.subtree_end.tolist() == [[6, 6, 6, 6, 5, 6]]
    assert batch.read_slot.tolist() == [2, 2, 2]


@pytest.mark.parametrize("row_tokens", [1, 3, 4])
def test_a_sequence_longer_than_a_row_gets_a_row_of_its_own_length(row_tokens):
    sequences = [Sequence(item=0, view=view, ids=(view + 1,) * 4, reads=(3,)) for view in range(3)]
    batch = pack(sequences, {0: 0}, row_tokens)
    assert batch.row_lengths.tolist() == [4, 4, 4]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), min_size=1, max_size=30), st.data())
def test_the_layout_that_is_reckoned_is_the_one_that_is_packed(texts, data):
    ordered = sorted(texts)
    limit = data.draw(st.integers(max(map(len, texts)), 60))
    sequences = [Sequence(item=i, view=0, ids=ids, reads=(len(ids) - 1,)) for i, ids in enumerate(texts)]
    batch = pack(sequences, {i: i for i in range(len(texts))}, limit)
    shared = [0] + [common_prefix(a, b) for a, b in itertools.pairwise(ordered)]
    ends = [0, *itertools.accumulate(len(ids) - common for ids, common in zip(ordered, shared, strict=True))]
    assert tries._layout([len(ids) for ids in ordered], ends, limit) == batch.input_ids.shape


@pytest.mark.parametrize("cell_cost", [1e-6, 1e-3, 1e-1])
def test_the_row_length_taken_is_the_cheapest(cell_cost):
    texts = [tuple(range(start, start + 12)) for start in range(0, 600, 12)]
    sequences = [Sequence(item=i, view=0, ids=ids, reads=(11,)) for i, ids in enumerate(texts)]
    slots = {i: i for i in range(len(texts))}

    def cost(batch):
        rows, width = batch.input_ids.shape
        return rows * width * (1 + cell_cost * width)

    best = cost(pack(sequences, slots, 300, cell_cost))
    every = [cost(pack(sequences, slots, limit)) for limit in range(32, 301)]
    assert min(every) <= best <= 1.02 * min(every)  # not every length is tried
    assert best < cost(pack(sequences, slots, 300)) or cell_cost < 1e-3


def test_a_long_shared_prompt_asks_for_long_rows_and_short_texts_for_short_ones():
    prefix = tuple(range(100, 250))
    sharing = [Sequence(item=i, view=0, ids=(*prefix, i), reads=(150,)) for i in range(60)]
    short = [Sequence(item=i, view=0, ids=(i, 1, 2, 3), reads=(3,)) for i in range(60)]
    slots = {i: i for i in range(60)}
    assert len(pack(sharing, slots, 1024, 1e-4).input_ids) == 1
    assert pack(short, slots, 1024, 1e-2).input_ids.shape[1] < 60
