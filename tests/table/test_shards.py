"""Shards become the run's tables: every pair once, in order, with its provenance; damage is named."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from bluffscope.errors import InputError, RunFolderError
from bluffscope.table import merge as merge_module
from bluffscope.table.atomic import AtomicFile
from bluffscope.table.folder import RunFolder
from bluffscope.table.merge import merge, remove_shards
from bluffscope.table.reader import read_run
from bluffscope.table.schema import table_columns
from bluffscope.table.shards import committed_shards, shard_schema, write_shard

COLUMNS = table_columns([5], [], [("note", "str"), ("weight", "float")])
METADATA = {"model": "demo", "ключ": 'a "quoted" Ω\nline'}
REASON = "the text has 99 tokens, the model takes 64"


def row(index: int, *, quarantined: bool = False, features: int = 2, residuals: bool = False) -> dict:
    """A pair whose every value follows from its index."""
    found: dict = dict.fromkeys(shard_schema(COLUMNS, residuals))
    found |= {"_index": index, "pair_id": f"p{index}", "domain": "abc"[index % 3], "group": f"g{index // 2}"}
    found |= {"prompt": f"Prompt {index}", "fact": f"f{index}", "hallucination": f"h{index} Ω"}
    found |= {"note": None if index % 2 else f"n{index}", "weight": index / 7, "_features": []}
    if residuals:
        found["_residuals"] = []
    if quarantined:
        return found | {"_reason": REASON}
    found |= {column.name: index + k / 97 for k, column in enumerate(COLUMNS) if column.kind == "float"}
    found["l5_fact_sphericity"] = None
    found["weight"] = index / 7
    found["_features"] = [
        {"view": view, "layer": 5, "feature": 10 * index + i, "activation": 0.5 + i}
        for view in ("prompt", "fact", "hall")
        for i in range(features)
    ]
    if residuals:
        found["_residuals"] = [
            {"view": "fact", "layer": 5, "token": 3, "values": [float(index), 1.5]},
            {"view": "hall", "layer": 5, "token": 4, "values": [float(-index), 2.5]},
        ]
    return found


def frame(rows: list[dict], residuals: bool = False) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=shard_schema(COLUMNS, residuals))


def run_with(path: Path, groups: list[list[dict]], residuals: bool = False) -> RunFolder:
    folder = RunFolder.create(path)
    for number, rows in enumerate(groups):
        write_shard(folder.shards, number, frame(rows, residuals))
    return folder


def shard_path(folder: RunFolder, number: int) -> Path:
    return next(file.path for file in committed_shards(folder.shards) if file.number == number)


def rewrite(folder: RunFolder, number: int, table: pl.DataFrame) -> None:
    """Another table in the place of a shard's."""
    shard_path(folder, number).unlink()
    write_shard(folder.shards, number, table)


def test_the_tables_hold_every_pair_once_and_in_order_with_its_provenance(tmp_path):
    rows = [row(i, quarantined=i in (2, 5)) for i in range(9)]
    folder = run_with(tmp_path / "run", [rows[:4], rows[4:5], rows[5:]])
    result = merge(folder, 3, COLUMNS, METADATA)
    assert len(list(folder.shards.iterdir())) == 3
    remove_shards(folder)
    assert (result.rows, result.quarantined, result.reasons) == (7, 2, {REASON: 2})

    run = read_run(folder.path)
    kept = [r for r in rows if r["_reason"] is None]
    assert run.metrics.columns == [column.name for column in COLUMNS]
    assert run.metrics.schema == {column.name: column.dtype() for column in COLUMNS}
    assert_frame_equal(run.metrics, frame(kept).select(run.metrics.columns), check_exact=True)
    assert {key: run.metadata[key] for key in METADATA} == METADATA
    assert run.metadata["schema_version"] == "1"
    assert json.loads(run.metadata["metric_versions"])["l5_fact_gini"] == 1
    assert "ARROW:schema" not in run.metadata

    order = ["pair_id", "domain", "complexity", "prompt", "fact", "hallucination", "group", "note", "weight"]
    assert run.pairs.columns == order
    assert_frame_equal(run.pairs, frame(rows).select(order))
    expected = [{"pair_id": r["pair_id"], **entry} for r in kept for entry in r["_features"]]
    assert run.features.collect().to_dicts() == expected
    assert run.features.collect_schema()["activation"] == pl.Float32
    assert run.quarantine.to_dicts() == [
        {"pair_id": f"p{i}", "prompt": f"Prompt {i}", "fact": f"f{i}", "hallucination": f"h{i} Ω", "reason": REASON}
        for i in (2, 5)
    ]
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "checksums.txt",
        "features.parquet",
        "metrics.parquet",
        "pairs.parquet",
        "quarantine.parquet",
    ]


def test_residuals_are_kept_only_when_asked_for(tmp_path):
    rows = [row(i, residuals=True) for i in range(3)]
    folder = run_with(tmp_path / "run", [rows[:2], rows[2:]], residuals=True)
    merge(folder, 2, COLUMNS, {}, keep_residuals=True)
    run = read_run(folder.path)
    assert run.kept_residuals.collect().to_dicts() == [
        {"pair_id": r["pair_id"], **e} for r in rows for e in r["_residuals"]
    ]
    assert not (folder.path / "quarantine.parquet").exists()
    assert run.quarantine.is_empty() and run.quarantine.columns[-1] == "reason"

    folder = run_with(tmp_path / "without", [[row(0)]])
    merge(folder, 1, COLUMNS, {})
    with pytest.raises(InputError, match="residuals.parquet is missing"):
        _ = read_run(folder.path).kept_residuals


def test_a_run_whose_every_pair_is_quarantined_has_an_empty_table(tmp_path):
    folder = run_with(tmp_path / "run", [[row(0, quarantined=True)], [row(1, quarantined=True)]])
    assert merge(folder, 2, COLUMNS, {}).quarantined == 2
    run = read_run(folder.path)
    assert run.metrics.is_empty() and run.metrics.width == len(COLUMNS)
    assert run.features.collect().is_empty() and len(run.pairs) == 2


def test_pairs_without_active_features_have_no_feature_rows(tmp_path):
    folder = run_with(tmp_path / "run", [[row(0, features=0), row(1, features=1), row(2) | {"_features": None}]])
    merge(folder, 1, COLUMNS, {})
    assert read_run(folder.path).features.collect()["pair_id"].to_list() == ["p1"] * 3


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_the_tables_do_not_depend_on_how_the_pairs_were_cut_into_shards(tmp_path_factory, cuts, seed):
    quarantined = np.random.default_rng(seed).random(sum(cuts)) < 0.3
    rows = [row(i, quarantined=bool(q), features=i % 3) for i, q in enumerate(quarantined)]
    ends = np.cumsum(cuts)
    parts = [rows[end - cut : end] for cut, end in zip(cuts, ends, strict=True)]
    one = run_with(tmp_path_factory.mktemp("m") / "one", [rows])
    many = run_with(tmp_path_factory.mktemp("m") / "many", parts)
    assert merge(one, 1, COLUMNS, {}) == merge(many, len(parts), COLUMNS, {})
    for name in ("metrics", "pairs"):
        assert_frame_equal(getattr(read_run(one.path), name), getattr(read_run(many.path), name), check_exact=True)
    assert_frame_equal(read_run(one.path).features.collect(), read_run(many.path).features.collect())


def test_a_folder_with_glob_characters_or_hive_names_in_its_path_works(tmp_path):
    folder = run_with(tmp_path / "a[1]*" / "domain=x", [[row(0)], [row(1)]])
    merge(folder, 2, COLUMNS, {})
    run = read_run(folder.path)
    assert run.metrics["domain"].to_list() == ["a", "b"]
    assert "domain" not in run.features.collect_schema().names()


def test_shards_may_come_in_any_order_and_twice(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    for number in (2, 0, 1, 0):
        write_shard(folder.shards, number, frame([row(number)]))
    assert merge(folder, 3, COLUMNS, {}).rows == 3
    assert read_run(folder.path).metrics["pair_id"].to_list() == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0, 1], [1, 2]], "row 2 is pair number 1"),
        ([[0, 1], [3]], "row 2 is pair number 3"),
        ([[1, 0]], "row 0 is pair number 1"),
        ([[2, 3], [0, 1]], "row 0 is pair number 2"),
    ],
)
def test_pairs_that_stand_twice_are_missing_or_out_of_order_are_found(tmp_path, indices, message):
    folder = run_with(tmp_path / "run", [[row(i) for i in part] for part in indices])
    with pytest.raises(RunFolderError, match=f"every pair once, in order: {message}"):
        merge(folder, len(indices), COLUMNS, {})
    assert len(list(folder.shards.iterdir())) == len(indices)


def test_missing_and_foreign_shards_are_named(tmp_path):
    folder = run_with(tmp_path / "run", [[row(0)], [row(1)]])
    with pytest.raises(RunFolderError, match="lacks 1 of 3 shards .first number 2"):
        merge(folder, 3, COLUMNS, {})
    with pytest.raises(RunFolderError, match="not of this run .first 000001."):
        merge(folder, 1, COLUMNS, {})
    assert len(list(folder.shards.iterdir())) == 2


def test_what_a_killed_process_left_half_written_is_not_merged(tmp_path):
    folder = run_with(tmp_path / "run", [[row(0)]])
    (folder.shards / ".000001.parquet.1234.tmp").write_bytes(b"half")
    assert merge(folder, 1, COLUMNS, {}).rows == 1
    remove_shards(folder)
    assert not folder.shards.exists()


def test_a_stranger_among_the_shards_is_named(tmp_path):
    folder = run_with(tmp_path / "run", [[row(0)]])
    (folder.shards / "000001.parquet").write_bytes(b"")
    with pytest.raises(RunFolderError, match="000001.parquet is not a shard of this run; move it elsewhere"):
        merge(folder, 1, COLUMNS, {})


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    third = len(content) // 3
    return content[:third] + bytes(third) + content[2 * third :]


@pytest.mark.parametrize("damage", [cut, zeroed, lambda content: b"", lambda content: b"not parquet at all" * 10])
def test_a_damaged_shard_is_named_in_one_line_and_nothing_half_made_stays(tmp_path, damage):
    rows = [row(i, features=300) for i in range(12)]
    folder = run_with(tmp_path / "run", [rows[:4], rows[4:8], rows[8:]])
    bad = shard_path(folder, 1)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(
        RunFolderError, match="shard .*000001.* is damaged: its .* are not what was committed"
    ) as caught:
        merge(folder, 3, COLUMNS, {})
    assert "\n" not in str(caught.value)
    assert len(list(folder.shards.iterdir())) == 3
    assert not list(folder.path.glob(".*"))


def test_a_shard_with_other_columns_is_named(tmp_path):
    folder = run_with(tmp_path / "run", [[row(0)], [row(1)]])
    rewrite(folder, 1, frame([row(1)]).drop("l5_fact_gini"))
    with pytest.raises(RunFolderError, match="shard .*000001.* has no column 'l5_fact_gini'"):
        merge(folder, 2, COLUMNS, {})
    rewrite(folder, 1, frame([row(1)]).with_columns(l5_fact_gini=pl.lit("x")))
    with pytest.raises(RunFolderError, match="000001.* has String in column 'l5_fact_gini', expected Float64"):
        merge(folder, 2, COLUMNS, {})


def test_a_shard_without_its_own_columns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="_features"):
        write_shard(tmp_path, 0, frame([row(0)]).drop("_features"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", range(4))
def test_a_merge_that_fails_anywhere_can_be_run_again(tmp_path, monkeypatch, failing):
    rows = [row(i, quarantined=i == 1) for i in range(4)]
    folder = run_with(tmp_path / "run", [rows[:2], rows[2:]])
    replace, calls = os.replace, []

    def fail_once(source, target):
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(RunFolderError, match=r"cannot write .*\.parquet: No space left on device"):
        merge(folder, 2, COLUMNS, {})
    assert folder.shards.exists() and not list(folder.path.glob(".*"))
    assert len(list(folder.path.glob("*.parquet"))) == failing
    assert merge(folder, 2, COLUMNS, {}).rows == 3
    assert len(read_run(folder.path).metrics) == 3


def test_a_table_that_the_disk_did_not_keep_is_noticed_before_the_shards_go(tmp_path, monkeypatch):
    folder = run_with(tmp_path / "run", [[row(0), row(1)]])
    commit = AtomicFile.commit

    def lossy(file, name=None):
        path = commit(file, name)
        path.write_bytes(zeroed(path.read_bytes()))
        return path

    monkeypatch.setattr(AtomicFile, "commit", lossy)
    with pytest.raises(RunFolderError, match="metrics.parquet is cut off or altered as soon as it was written"):
        merge(folder, 1, COLUMNS, {})
    assert folder.shards.exists()


def test_a_table_that_lacks_rows_is_noticed_before_the_shards_go(tmp_path, monkeypatch):
    folder = run_with(tmp_path / "run", [[row(0), row(1)]])
    concat = merge_module.pl.concat
    monkeypatch.setattr(merge_module.pl, "concat", lambda frames: concat(frames).head(1))
    with pytest.raises(RunFolderError, match="metrics.parquet holds 1 rows, expected 2"):
        merge(folder, 1, COLUMNS, {})
    assert folder.shards.exists()


def test_row_groups_are_bounded_and_change_nothing(tmp_path, monkeypatch):
    groups = [[row(i, quarantined=i % 5 == 1)] for i in range(9)]
    whole, cut_up = run_with(tmp_path / "whole", groups), run_with(tmp_path / "cut", groups)
    merge(whole, 9, COLUMNS, {})
    monkeypatch.setattr(merge_module, "GROUP_BYTES", 1)
    merge(cut_up, 9, COLUMNS, {})
    assert pq.ParquetFile(cut_up.path / "metrics.parquet").num_row_groups > 1
    for name in ("metrics", "pairs", "quarantine"):
        assert_frame_equal(getattr(read_run(whole.path), name), getattr(read_run(cut_up.path), name), check_exact=True)
    assert_frame_equal(read_run(whole.path).features.collect(), read_run(cut_up.path).features.collect())


def test_numbers_survive_bit_for_bit(tmp_path):
    values = [math.pi, 5e-324, -0.0, 1.7976931348623157e308]
    rows = [row(i) | {"entropy_fact": value} for i, value in enumerate(values)]
    folder = run_with(tmp_path / "run", [rows])
    merge(folder, 1, COLUMNS, {})
    assert read_run(folder.path).metrics["entropy_fact"].to_numpy().tobytes() == np.array(values).tobytes()


def finished(path: Path) -> Path:
    folder = run_with(path, [[row(0), row(1)]])
    folder.write_config({"seed": 0})
    folder.write_manifest({"device": "cpu"})
    merge(folder, 1, COLUMNS, {})
    remove_shards(folder)
    return path


def test_a_finished_run_is_read_lazily(tmp_path):
    path = finished(tmp_path / "run")
    (path / "features.parquet").write_bytes(b"broken")
    run = read_run(str(path))
    assert len(run.metrics) == 2 and run.metrics is run.metrics
    assert run.manifest["device"] == "cpu" and run.config == {"seed": 0}
    with pytest.raises(InputError, match="features.parquet is damaged"):
        _ = run.features


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("manifest.json", "manifest"),
        ("config.yaml", "config"),
        ("pairs.parquet", "pairs"),
        ("features.parquet", "features"),
    ],
)
def test_a_damaged_or_missing_file_is_named_when_it_is_asked_for(tmp_path, name, attribute):
    path = finished(tmp_path / "run")
    (path / name).write_bytes(b"{\xff\xfe")
    with pytest.raises(InputError, match=f"{re.escape(name)} is damaged") as caught:
        getattr(read_run(path), attribute)
    assert "\n" not in str(caught.value)
    (path / name).unlink()
    with pytest.raises(InputError, match=f"{re.escape(name)} is missing"):
        getattr(read_run(path), attribute)


@pytest.mark.parametrize(
    ("name", "content"), [("manifest.json", b"[1]"), ("config.yaml", b"- 1"), ("config.yaml", b"a: [")]
)
def test_a_file_with_something_else_in_it_is_named(tmp_path, name, content):
    path = finished(tmp_path / "run")
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{re.escape(name)} is damaged"):
        _ = (read_run(path).manifest, read_run(path).config)


def test_what_is_no_run_is_refused_in_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="gone is missing: expected the folder of a run"):
        read_run(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file"):
        read_run(tmp_path / "file")
    with pytest.raises(InputError, match="holds no run"):
        read_run(tmp_path)
    unfinished = RunFolder.create(tmp_path / "unfinished")
    with pytest.raises(InputError, match="did not finish"):
        read_run(unfinished.path)
    path = finished(tmp_path / "run")
    (path / "metrics.parquet").write_bytes(cut((path / "metrics.parquet").read_bytes()))
    with pytest.raises(InputError, match="metrics.parquet is damaged"):
        read_run(path)


def test_tables_of_others_and_of_later_versions_are_refused(tmp_path):
    path = finished(tmp_path / "run")
    table = pl.DataFrame({"x": [1]})
    table.write_parquet(path / "metrics.parquet")
    with pytest.raises(InputError, match="no schema version"):
        read_run(path)
    table.write_parquet(path / "metrics.parquet", metadata={"schema_version": "2"})
    with pytest.raises(InputError, match="tables of version 2"):
        read_run(path)
