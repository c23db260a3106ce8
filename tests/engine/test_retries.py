"""Finite retries: whatever dies when, every pair is done or given up, the fatal ones and no others."""

from __future__ import annotations

import math

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from bluffscope.engine.retries import Backlog
from bluffscope.records import Pair, Shard


def shards(sizes):
    found, start = [], 0
    for number, size in enumerate(sizes):
        pairs = tuple(Pair(index, str(index), "all", None, "p", "f", "h") for index in range(start, start + size))
        found.append(Shard(number, pairs, tuple(f"g{pair.index}" for pair in pairs)))
        start += size
    return found


def table(shard, reason=None):
    assert shard.groups == tuple(f"g{pair.index}" for pair in shard.items)
    columns = {"index": [pair.index for pair in shard.items], "reason": [reason] * len(shard.items)}
    return pl.DataFrame(columns, schema={"index": pl.Int64, "reason": pl.String})


def work_off(sizes, fatal, workers, depth, order):
    """Workers that die of the fatal pairs, their turns in any order; gives the tables by shard, and the deaths."""
    backlog, done, deaths = Backlog(shards(sizes)), {}, 0
    hands = [[] for _ in range(workers)]

    def finish(task, frame):
        if (whole := backlog.done(task, frame)) is not None:
            assert whole[0].number not in done
            done[whole[0].number] = whole[1]

    while True:
        for hand in hands:
            while len(hand) < depth and not (hand and hand[0].alone):
                task = backlog.take(idle=not hand)
                if task is None:
                    break
                hand.append(task)
        busy = [hand for hand in hands if hand]
        if not busy:
            return done, deaths
        hand = busy[next(order) % len(busy)]
        assert len(hand) == 1 or not any(task.alone for task in hand)
        if fatal & {pair.index for pair in hand[0].part.items}:
            deaths += 1
            lost, hand[:] = list(hand), []
            given_up = backlog.lost(lost)
            if given_up is not None:
                finish(given_up, table(given_up.part, "fatal"))
        else:
            task = hand.pop(0)
            finish(task, table(task.part))


@given(
    sizes=st.lists(st.integers(1, 20), max_size=6),
    fatal=st.sets(st.integers(0, 60), max_size=5),
    workers=st.integers(1, 4),
    depth=st.integers(1, 3),
    turns=st.lists(st.integers(0, 3), min_size=1, max_size=10),
)
def test_every_pair_is_done_once_and_in_order_and_only_fatal_ones_are_given_up(sizes, fatal, workers, depth, turns):
    def order():
        while True:
            yield from turns

    fatal &= set(range(sum(sizes)))
    done, deaths = work_off(sizes, fatal, workers, depth, order())
    assert sorted(done) == list(range(len(sizes)))
    rows = pl.concat([table(Shard(0, (), ())), *(done[number] for number in sorted(done))])
    assert rows["index"].to_list() == list(range(sum(sizes)))
    assert set(rows.filter(pl.col("reason").is_not_null())["index"].to_list()) == fatal
    # Twice a shard, then each half once; a fatal pair of many can share these.
    most = sum(2 + math.ceil(math.log2(size)) * 2 for size in sizes if size > 1) + 2 * len(sizes)
    assert deaths <= most * max(1, len(fatal))


def test_a_shard_whose_worker_dies_once_is_measured_again_whole():
    backlog = Backlog(shards([8]))
    task = backlog.take(idle=True)
    assert backlog.lost([task]) is None
    again = backlog.take(idle=True)
    assert (again.part, again.alone) == (task.part, True)
    whole, frame = backlog.done(again, table(again.part))
    assert (whole, len(frame)) == (task.part, 8)


def test_what_waited_behind_it_is_not_blamed_and_runs_alone_too():
    backlog = Backlog(shards([4, 4, 4]))
    first, second = backlog.take(idle=True), backlog.take(idle=False)
    assert backlog.lost([first, second]) is None
    assert backlog.take(idle=False).part.number == 2
    again = backlog.take(idle=True), backlog.take(idle=True)
    assert [(task.part.number, task.deaths, task.alone) for task in again] == [(0, 1, True), (1, 0, True)]


def test_shards_are_taken_from_their_source_one_by_one():
    taken = []

    def source():
        for shard in shards([1, 1, 1]):
            taken.append(shard.number)
            yield shard

    backlog = Backlog(source())
    assert taken == []
    backlog.take(idle=True)
    assert taken == [0]
