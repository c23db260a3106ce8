"""`bluffscope stats`: runs, foreign tables, what is printed and written, what is refused; no torch, no ray."""

from __future__ import annotations

import json
import os
import re
import shlex
import time

import numpy as np
import polars as pl
import pytest

import bluffscope
import tiny
from bluffscope.stats import STATS_SCHEMA, analyse_table
from bluffscope.table.reader import read_table
from studies import one_metric, random_table


@pytest.fixture
def run(tmp_path):
    """A tiny run's folder."""
    out = tmp_path / "run"
    pairs = tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)
    model, saes = tiny.save_model(tmp_path / "model", "gemma2"), tiny.save_saes(tmp_path / "saes")
    bluffscope.analyze(pairs, model=str(model), sae=str(saes), out=str(out), allow_unsound=True)
    return out


@pytest.fixture
def foreign(tmp_path):
    """A table of the pairs of bluff200 as others might have it, and its file."""
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {}
    for metric in ("l3_{}_gini", "{}_drop", "entropy_{}"):
        name = metric if metric != "{}_drop" else "drop_{}"
        fact = rng.normal(2, 1, 200)
        columns[name.format("fact")] = fact
        columns[name.format("hall")] = fact + rng.normal(0.6 * (name == "drop_{}"), 1, 200)
    path = tmp_path / "found" / "theirs.csv"
    path.parent.mkdir()
    pl.DataFrame(columns).write_csv(path)
    return path


def test_a_run_is_judged_from_its_folder_alone(call, run):
    outcome = call("stats", run, "--full")
    assert outcome.code == 0, outcome.err
    # Random SAEs explain nothing, and the run was allowed to be unsound.
    assert outcome.out.startswith("The run failed its health gate: ")
    why = r"cannot be judged: only \d clusters of pairs that share no text, fewer than 10"
    assert re.search(f"Whether anything separates fact from hallucination {why}", " ".join(outcome.out.split()))
    assert "Nothing separates" not in outcome.out
    assert "80 % power" not in outcome.out
    rows = pl.read_parquet(run / "stats.parquet")
    assert rows.schema == STATS_SCHEMA
    # Five pairs can be tested but not adjusted for their lengths.
    assert set(rows["verdict"]) == {"inconclusive"}
    about = json.loads((run / "stats.json").read_text())
    assert about["length_unit"] == "tokens"
    assert about["rows"] == rows.to_dicts()
    assert {table["metric"] for table in about["cross_tables"]} == {f"l{layer}_shape_class" for layer in (0, 1, 3)}
    assert bluffscope.read_run(run).metrics.height == 5


def test_a_foreign_csv_takes_lengths_groups_domains_and_columns_from_its_pairs(call, foreign, tmp_path):
    outcome = call("stats", foreign, "--pairs", "bluff200", "--by-order", "--by", "known", "--family", "all", "--full")
    assert outcome.code == 0, outcome.err
    rows = pl.read_parquet(foreign.parent / "stats.parquet")
    assert rows["metric"].unique(maintain_order=True).to_list() == ["l3_gini", "drop", "entropy"]
    scopes = rows["scope"].unique(maintain_order=True).to_list()
    assert scopes == ["entity", "temporal", "logical", "adversarial", "pooled", "known=true", "known=false"]
    about = json.loads((foreign.parent / "stats.json").read_text())
    assert (about["family"], about["families"][0]["tests"]) == ("all", 21)
    assert 1 < about["groups"] < 200
    assert pl.read_parquet_metadata(foreign.parent / "stats.parquet")["family"] == '"all"'
    for said in (
        "in characters",
        "Groups come from the pairs",
        "by their order",
        "every metric in every scope",
    ):
        assert said in " ".join(outcome.out.split())
    assert rows.filter(metric="drop", scope="pooled")["verdict"].item() == "separates"
    assert "separate fact from hallucination at equal lengths" in " ".join(outcome.out.split())


def test_the_order_of_rows_decides_only_where_it_is_said_and_never_for_a_folder(call, foreign, run, tmp_path):
    outcome = call("stats", foreign, "--pairs", "bluff200")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no column of the table holds the ids of the pairs (such as 'entity-001')" in outcome.err
    assert not (foreign.parent / "stats.parquet").exists()
    for folder, pairs in ((run, "bluff200"), (foreign, tmp_path)):
        outcome = call("stats", folder, "--pairs", pairs, "--by-order")
        assert (outcome.code, outcome.out) == (2, "")
        assert "a folder has no order" in outcome.err


def test_the_summary_opens_with_the_negative_answer_where_there_is_no_other(call, tmp_path):
    rng = np.random.default_rng(1)
    table = one_metric(rng.normal(size=90), rng.normal(size=90), rng.integers(-2, 3, 90))
    table.write_parquet(tmp_path / "t.parquet")
    flags = ("--out", tmp_path / "out" / "deep", "--control", "null", "--full")
    outcome = call("stats", tmp_path / "t.parquet", *flags)
    said = " ".join(outcome.out.split())
    assert said.startswith("Nothing separates fact from hallucination at equal lengths: 1 metric tested over all pairs")
    assert "share of draws with a false `separates`" in outcome.out
    assert "significant" not in outcome.out
    control = json.loads((tmp_path / "out" / "deep" / "stats.json").read_text())["control_rows"]
    assert [(row["family"], row["draws"]) for row in control] == [("pooled", 1000)]


@pytest.mark.thorough
def test_the_commands_to_go_on_with_test_the_same_table_in_the_same_way(call, foreign):
    flags = ("--pairs", "bluff200", "--by-order", "--by", "known", "--family", "all", "--seed", 3)
    outcome = call("stats", foreign, *flags)
    assert outcome.code == 0, outcome.err
    same = " ".join(map(str, ("bluffscope", "stats", foreign, "--pairs", "bluff200", "--by-order", "--by", "known")))
    commands = [line.removeprefix("Next:").strip() for line in outcome.out.splitlines() if "bluffscope stats" in line]
    assert commands == [f"{same} --family all --seed 3 {more}" for more in ("--control null", "--detectors")]
    again = call(*shlex.split(commands[0])[1:])
    assert again.code == 0, again.err
    assert "share of draws with a false `separates`" in again.out  # what was asked for is not for --full alone
    assert again.out.splitlines()[-3].endswith("--seed 3 --control planted")


@pytest.mark.thorough
def test_the_planted_control_names_the_metric_that_is_hardest_to_find(call, tmp_path):
    table = random_table(0, 60, kinds=("normal",))
    table.write_parquet(tmp_path / "t.parquet")
    outcome = call("stats", tmp_path / "t.parquet", "--control", "planted", "--seed", 3, "--full")
    assert outcome.code == 0, outcome.err
    assert "worst metric" in outcome.out
    about = json.loads((tmp_path / "stats.json").read_text())
    assert (about["seed"], len(about["control_rows"])) == (3, 3 * 3 * 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(call, tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    assert "t.csv: not a file" in call("stats", tmp_path / "t.csv").err


def test_the_same_seed_gives_the_same_files(call, foreign, tmp_path):
    for name in ("one", "two"):
        call("stats", foreign, "--pairs", "bluff200", "--by-order", "--out", tmp_path / name)
    one, two = ((tmp_path / name / "stats.json").read_bytes() for name in ("one", "two"))
    assert one == two


def test_columns_of_pairs_are_refused_for_a_run_as_for_a_table(call, tmp_path):
    outcome = call("stats", tmp_path, "--columns", "id=b")
    assert (outcome.code, outcome.err) == (2, "bluffscope stats: --columns requires --pairs\n")


@pytest.mark.parametrize(
    ("name", "content", "flags", "says"),
    [
        ("no.csv", None, (), "no such file"),
        ("no.txt", None, (), "no such file or folder; give a run's folder, or a .parquet or .csv file"),
        ("t.txt", b"a", (), "not a table by its name"),
        ("t.csv", b"", (), "cannot be read as CSV"),
        ("t.csv", b"\xff\xfe\x00a", (), "t.csv: the table has no rows"),
        ("t.csv", b"a,b\n1\n2,3,4\n", (), "cannot be read as CSV"),
        ("t.csv", b"a_fact,a_hall\n", (), "the table has no rows"),
        ("t.csv", b"id,score\n1,2\n", (), "no fact and hallucination columns: looked for numbers in l{layer}_fact_"),
        ("t.parquet", b"PAR1 nothing PAR1", (), "cannot be read as Parquet"),
        (
            "t.csv",
            b"a_fact,a_hall\n1,2\n",
            ("--pairs", "bluff200"),
            "or match rows and pairs by their order with --by-order",
        ),
        (
            "t.csv",
            b"a_fact,a_hall\n1,2\n",
            ("--pairs", "bluff200", "--by-order"),
            "--by-order: the table has 1 rows, but there are 200 pairs",
        ),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--by-order",), "--by-order matches a table with --pairs"),
        ("t.csv", b"id,a_fact,a_hall\nzz,1,2\n", ("--pairs", "bluff200"), "an id that the pairs lack (id 'zz' first)"),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--pairs", "none.jsonl"), "none.jsonl: no such file"),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--by", "mood"), "--by mood: no such column"),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--family", "none"), "--family: expected scope or all, got none"),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--seed", "-1"), "--seed -1: give a number from 0"),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--colums", "a=b"), "--colums: no such option (did you mean --columns?)"),
        ("t.csv", b"a_fact,a_hall\n1,2\n", ("--columns", "id=b"), "--columns requires --pairs"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_is_written(call, tmp_path, name, content, flags, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = set(tmp_path.rglob("*"))
    outcome = call("stats", path, *flags)
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("bluffscope stats: ")
    assert says in outcome.err
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_that_is_no_run_and_no_table_at_all_are_refused(call, tmp_path):
    outcome = call("stats", tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert "holds no run" in outcome.err
    outcome = call("stats")
    assert (outcome.code, outcome.out) == (2, "")


def test_fields_of_csv_that_say_nothing_are_null(tmp_path):
    (tmp_path / "t.csv").write_text("a_fact,a_hall,b_fact,b_hall\n1,2,,\nNA,3,,\n2.5,nan,,\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    assert table["a_fact"].to_list() == [1.0, None, 2.5]
    rows = analyse_table(table).rows
    assert rows["n"].to_list() == [1, 0]


@pytest.mark.thorough
def test_nine_hundred_pairs_and_a_hundred_metrics_in_five_scopes_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {
        "domain": rng.choice(list("abcd"), 930),
        "fact_tokens": rng.integers(1, 6, 930),
        "hall_tokens": rng.integers(1, 6, 930),
    }
    for metric in range(100):
        columns[f"m{metric}_fact"], columns[f"m{metric}_hall"] = rng.normal(size=930), rng.normal(size=930)
    started = time.process_time()
    assert len(analyse_table(pl.DataFrame(columns)).rows) == 500
    assert time.process_time() - started < 60


def test_clusters_are_made_as_asked_and_that_is_written_and_said(call, foreign, tmp_path):
    found = {}
    for by in ("prompt", "known", "mood"):
        out = tmp_path / by
        flags = ("--by-order", "--cluster-by", by, "--out", out, "--full")
        outcome = call("stats", foreign, "--pairs", "bluff200", *flags)
        if by == "mood":
            assert (outcome.code, outcome.out, out.exists()) == (2, "", False)
            assert "--cluster-by mood: no such column; use both, prompt, completion or a column out of" in outcome.err
            continue
        assert outcome.code == 0, outcome.err
        about = json.loads((out / "stats.json").read_text())
        assert (about["cluster_by"], about["cluster_by_option"]) == (by, by)
        assert f"by {by}" in " ".join(outcome.out.split())
        found[by] = about["groups"]
    assert found["known"] == 2
    assert 2 < found["prompt"] <= 200
    outcome = call("stats", foreign, "--cluster-by", "prompt", "--out", tmp_path / "no")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--cluster-by prompt: requires the texts of the pairs; give them with --pairs" in outcome.err
