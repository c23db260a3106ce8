"""The same pairs as JSON, JSONL, CSV, Parquet and as a folder give the same table."""

from __future__ import annotations

import csv
import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import tiny

EXTRA = [
    {"source": "a, b", "year": 1999, "score": 0.5, "checked": True},
    {"source": 'said "so"', "year": 2001, "score": -2.25, "checked": False},
    {"source": "line\nbreak", "year": -3, "score": 1e-30, "checked": True},
    {"source": None, "year": None, "score": None, "checked": None},
    {"source": "\N{SNOWFLAKE}", "year": 2**60, "score": 12.0, "checked": False},
]
RECORDS = [
    {
        "name": pair["id"],
        "field": pair["domain"],
        "level": level,
        "question": pair["prompt"],
        "best": pair["fact"],
        "wrong": pair["hallucination"],
        **extra,
    }
    for level, pair, extra in zip((1, 10, None, 3, 4), tiny.PAIRS, EXTRA, strict=True)
]
COLUMNS = ["id=name", "domain=field", "complexity=level", "prompt=question", "fact=best", "hallucination=wrong"]


def write_json(path):
    path.write_text(json.dumps(RECORDS, ensure_ascii=False, indent=1), encoding="utf-8")


def write_jsonl(path):
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")


def write_csv(path):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(RECORDS[0]))
        writer.writeheader()
        writer.writerows(RECORDS)


def write_parquet(path):
    pl.DataFrame(RECORDS).write_parquet(path)


def write_folder(path):
    path.mkdir()
    (path / "1.json").write_text(json.dumps(RECORDS[:2]))
    (path / "2.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS[2:4]))
    pl.DataFrame(RECORDS[4:]).write_parquet(path / "3.parquet")
    (path / "README.md").write_text("not data")


WRITERS = {
    "pairs.json": write_json,
    "pairs.jsonl": write_jsonl,
    "pairs.csv": write_csv,
    "pairs.parquet": write_parquet,
    "pairs": write_folder,
}


@pytest.fixture
def run_on(call, tiny_flags, tmp_path):
    def run(name: str, *flags: object) -> pl.DataFrame:
        data, out = tmp_path / "data" / name, tmp_path / "runs" / name
        data.parent.mkdir(exist_ok=True)
        WRITERS[name](data)
        outcome = call("analyze", *tiny_flags[:4], "--data", data, "--columns", *COLUMNS, "--out", out, *flags)
        assert (outcome.code, outcome.err.count("\n")) == (0, 1), outcome
        return pl.read_parquet(out / "metrics.parquet")

    return run


@pytest.mark.thorough
def test_every_format_gives_the_same_table_with_mapped_and_carried_columns(run_on):
    tables = {name: run_on(name) for name in WRITERS}
    first = tables["pairs.jsonl"]
    for table in tables.values():
        assert_frame_equal(table, first, check_exact=True)
    assert first["pair_id"].to_list() == [record["name"] for record in RECORDS]
    assert first["domain"].to_list() == [record["field"] for record in RECORDS]
    assert first["complexity"].to_list() == [1, 10, None, 3, 4]
    for column, kind in {"source": pl.String, "year": pl.Int64, "score": pl.Float64, "checked": pl.Boolean}.items():
        assert first.schema[column] == kind
        assert first[column].to_list() == [record[column] for record in RECORDS]
    assert not {"question", "best", "wrong", "name", "field", "level"} & set(first.columns)


@pytest.mark.thorough
def test_the_tables_tell_the_same_digest_of_the_data(run_on, tmp_path):
    digests = set()
    for name in WRITERS:
        run_on(name)
        manifest = json.loads((tmp_path / "runs" / name / "manifest.json").read_text())
        digests.add(manifest["data"]["digest"])
        assert manifest["data"]["domains"] == {"geo": 3, "physics": 2}
        assert pl.read_parquet_metadata(tmp_path / "runs" / name / "metrics.parquet")["data_digest"] in digests
    assert len(digests) == 1


def test_the_domain_can_be_the_file_s_name(call, tiny_flags, tmp_path):
    folder = tmp_path / "by-domain"
    folder.mkdir()
    for domain, half in {"cities": tiny.PAIRS[:2], "nature": tiny.PAIRS[2:]}.items():
        tiny.write_pairs(folder / f"{domain}.jsonl", half)
    flags = ["--data", folder, "--domain-from", "file", "--out", tmp_path / "run"]
    assert call("analyze", *tiny_flags[:4], *flags).code == 0
    table = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert table["domain"].to_list() == ["cities"] * 2 + ["nature"] * 3


def test_a_limit_beyond_the_file_takes_all_and_a_smaller_one_the_first(call, tiny_flags, tmp_path):
    assert call("analyze", *tiny_flags[:-2], "--limit", 99, "--out", tmp_path / "all").code == 0
    assert call("analyze", *tiny_flags[:-2], "--limit", 2, "--out", tmp_path / "two").code == 0
    everything = pl.read_parquet(tmp_path / "all" / "metrics.parquet")
    two = pl.read_parquet(tmp_path / "two" / "metrics.parquet")
    assert everything.height == 5
    assert_frame_equal(two.drop("group"), everything.head(2).drop("group"), rel_tol=1e-4, abs_tol=1e-4)
