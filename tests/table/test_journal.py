"""The journal knows the shards that are committed, whoever committed them and in whatever order."""

from __future__ import annotations

import os
from dataclasses import replace

import polars as pl
import pytest

from bluffscope.errors import RunFolderError
from bluffscope.records import Pair, Shard
from bluffscope.table.folder import RunFolder
from bluffscope.table.journal import Journal
from bluffscope.table.merge import merge
from bluffscope.table.reader import read_run
from bluffscope.table.schema import table_columns
from bluffscope.table.shards import shard_identity, shard_schema

COLUMNS = table_columns([5])


def shard(number: int) -> Shard:
    pairs = tuple(Pair(2 * number + i, f"p{2 * number + i}", "d", None, "a", "b", "c", {"x": i}) for i in range(2))
    return Shard(number, pairs, ("g", "h"))


def table(of: Shard, reason: str | None = None) -> pl.DataFrame:
    rows = [{"_index": pair.index, "pair_id": pair.id, "_features": [], "_reason": reason} for pair in of.items]
    return pl.DataFrame(rows, schema=shard_schema(COLUMNS))


def journal(folder: RunFolder, run: str = "run") -> Journal:
    found = Journal(folder, run)
    found.recover(map(shard, range(4)))
    return found


def test_shards_committed_in_any_order_are_found_again_and_merged_in_the_input_s(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    first = journal(folder)
    for number in (3, 0, 2):
        first.commit(
            shard(number), table(shard(number), "why" if number == 2 else None), {"started": "a", "elapsed": 1}
        )
    second = journal(folder)
    assert (
        (second.pairs, second.quarantined, dict(second.reasons))
        == (6, 2, {"why": 2})
        == (first.pairs, 2, first.reasons)
    )
    assert second.bytes == sum(path.stat().st_size for path in folder.shards.iterdir())
    assert [found.number for found in second.missing(map(shard, range(4)))] == [1]
    second.commit(shard(1), table(shard(1)), {"started": "b", "elapsed": 5})
    result = merge(folder, 4, COLUMNS, {})
    assert read_run(folder.path).metrics["pair_id"].to_list() == [f"p{i}" for i in (0, 1, 2, 3, 6, 7)]
    assert [(session["started"], session["pairs"]) for session in result.sessions] == [("a", 6), ("b", 2)]


def test_a_shard_that_comes_twice_counts_once(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    found = journal(folder)
    for reason in (None, "a retry that failed"):
        found.commit(shard(0), table(shard(0), reason), {})
    assert (found.pairs, found.quarantined, len(list(folder.shards.iterdir()))) == (2, 0, 1)


def test_a_table_of_other_pairs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shard 0 does not hold its pairs"):
        journal(RunFolder.create(tmp_path / "run")).commit(shard(0), table(shard(1)), {})


def test_the_results_of_another_run_or_of_other_pairs_are_dropped(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    journal(folder).commit(shard(0), table(shard(0)), {})
    assert journal(folder, "run").pairs == 2
    other = journal(folder, "another run")
    assert other.pairs == 0 and len(other.dropped) == 1 and not list(folder.shards.iterdir())

    other.commit(shard(3), table(shard(3)), {})
    short = Journal(folder, "another run")
    short.recover(map(shard, range(2)))
    assert short.pairs == 0 and "is not of this run's pairs" in short.dropped[0] and not list(folder.shards.iterdir())


def test_the_identity_of_a_shard_follows_from_all_that_is_known_of_its_pairs():
    base = shard(0)
    changed = [
        replace(base, items=(base.items[0], replace(base.items[1], **{name: value})))
        for name, value in [("id", "z"), ("domain", "z"), ("complexity", 3), ("prompt", "z"), ("fact", "z")]
        + [("hallucination", "z"), ("extra", {"x": 5}), ("extra", {"y": 1}), ("index", 7)]
    ]
    changed += [replace(base, groups=("g", "z")), replace(base, items=base.items[::-1])]
    found = {shard_identity(item, "run") for item in [base, *changed]} | {shard_identity(base, "another")}
    assert len(found) == len(changed) + 2
    assert shard_identity(base, "run") == shard_identity(shard(0), "run")


def test_a_shard_that_is_gone_as_soon_as_it_stands_is_left_to_the_merge(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run")
    found = journal(folder)
    replace_file = os.replace

    def gone(source, target):
        replace_file(source, target)
        os.unlink(target)

    monkeypatch.setattr(os, "replace", gone)
    found.commit(shard(0), table(shard(0)), {})
    monkeypatch.undo()
    assert found.pairs == 2
    with pytest.raises(RunFolderError, match="shard"):
        merge(folder, 1, COLUMNS, {})


def test_a_table_of_other_pairs_is_no_shard_and_a_merge_wants_one_at_least(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(ValueError, match="the table of shard 0 does not hold its pairs"):
        journal(folder).commit(shard(0), table(shard(1)), {})
    with pytest.raises(ValueError, match="a run has at least one shard, not 0"):
        merge(folder, 0, COLUMNS, {})
    with pytest.raises(RunFolderError, match=r"shards lacks 2 of 2 shards \(first number 0\)"):
        merge(folder, 2, COLUMNS, {})
