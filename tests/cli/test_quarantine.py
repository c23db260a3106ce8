"""Pairs that cannot be measured: named with their reason, exit code 3, all others measured as if alone."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import tiny

LONG = {"id": "long", "domain": "geo", "prompt": "Water boils at " * 60, "fact": "Paris", "hallucination": "Rome"}


def quarantine(folder):
    return pl.read_parquet(folder / "quarantine.parquet")


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def table(folder):
    return pl.read_parquet(folder / "metrics.parquet")


def test_a_pair_longer_than_the_context_is_quarantined_and_never_cut(call, tiny_flags, tmp_path):
    assert call("analyze", *tiny_flags).code == 0
    pairs = tiny.write_pairs(tmp_path / "more.jsonl", [*tiny.PAIRS[:2], LONG, *tiny.PAIRS[2:]])
    outcome = call("analyze", *tiny_flags[:4], "--data", pairs, "--out", tmp_path / "second")
    assert outcome.code == 3
    assert "Quarantined: 1 of 6 pairs (quarantine.parquet):" in outcome.out
    found = quarantine(tmp_path / "second").row(0, named=True)
    assert (found["pair_id"], found["prompt"]) == ("long", LONG["prompt"])
    assert re.fullmatch(r"the prompt text has \d{3} tokens; the model's context holds 128", found["reason"])
    (entry,) = log(tmp_path / "second")
    assert (entry["level"], entry["pair_ids"], entry["message"]) == ("error", ["long"], found["reason"])
    measured = table(tmp_path / "second")
    assert measured["pair_id"].to_list() == [pair["id"] for pair in tiny.PAIRS]
    assert_frame_equal(measured.drop("group"), table(tmp_path / "run").drop("group"), rel_tol=1e-4, abs_tol=1e-4)
    assert pl.read_parquet(tmp_path / "second" / "pairs.parquet").height == 6
    counts = json.loads((tmp_path / "second" / "manifest.json").read_text())["counts"]
    assert (counts["pairs"], counts["measured"], counts["quarantined"]) == (6, 5, 1)


def test_a_text_that_just_fits_the_context_is_measured(call, tiny_flags, tmp_path):
    # The tokenizer has single bytes for letters it never saw: one token each, plus one for BOS.
    fits = {"id": "fits", "prompt": "Z" * 125, "fact": "Q", "hallucination": "J"}
    pairs = tiny.write_pairs(tmp_path / "edge.jsonl", [fits, fits | {"id": "too", "prompt": "Z" * 126}])
    assert call("analyze", *tiny_flags[:4], "--join", "", "--data", pairs, "--out", tmp_path / "run").code == 0
    assert table(tmp_path / "run")["prompt_tokens"].to_list() == [125, 126]
    pairs = tiny.write_pairs(tmp_path / "edge.jsonl", [fits | {"prompt": "Z" * 127}])
    assert call("analyze", *tiny_flags[:4], "--join", "", "--data", pairs, "--out", tmp_path / "second").code == 3


@pytest.mark.usefixtures("drawn")
def test_a_run_in_which_all_pairs_are_quarantined_ends_cleanly(call, tiny_flags, tmp_path):
    pairs = tiny.write_pairs(tmp_path / "long.jsonl", [LONG, LONG | {"id": "longer"}])
    outcome = call("analyze", *tiny_flags[:4], "--data", pairs, "--out", tmp_path / "run", "-v")
    assert outcome.code == 3
    assert "2 pairs left out, see quarantine.parquet" in " ".join(outcome.out.split())
    assert "Quarantined: 2 of 2 pairs" in outcome.out
    assert "  2 x the prompt text has" in outcome.out
    assert outcome.err.startswith("Progress: 2/2 samples")
    assert table(tmp_path / "run").height == 0
    assert {"l0_fact_gini", "entropy_diff"} <= set(table(tmp_path / "run").columns)
    assert quarantine(tmp_path / "run")["pair_id"].to_list() == ["long", "longer"]
    assert not (tmp_path / "run" / "shards").exists()


def test_only_the_pairs_that_overflow_in_float16_are_quarantined(call, copied, tiny_model, tiny_flags, tmp_path):
    model = copied(tiny_model)
    weights = load_file(model / "model.safetensors")
    ids = AutoTokenizer.from_pretrained(model)("\N{SNOWFLAKE}", add_special_tokens=False)["input_ids"]
    weights["model.embed_tokens.weight"][ids[-1]] = 60_000.0  # times 4, the square root of the width: beyond float16
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    flags = ["--model", model, *tiny_flags[2:6], "--dtype", "float16"]

    outcome = call("analyze", *flags, "--out", tmp_path / "run")
    assert outcome.code == 3
    assert outcome.err.splitlines()[0].startswith("Progress: ")  # its self-check is not what overflows
    assert quarantine(tmp_path / "run").select("pair_id", "reason").rows() == [
        ("u", "the residual stream is not finite (overflow in this dtype?)")
    ]
    (entry,) = log(tmp_path / "run")
    assert entry["pair_ids"] == ["u"]
    assert call("analyze", *flags, "--batch-size", 1, "--out", tmp_path / "alone").code == 3
    assert_frame_equal(table(tmp_path / "run"), table(tmp_path / "alone"))
    assert table(tmp_path / "run")["pair_id"].to_list() == ["fr", "it", "w", "s"]
    numbers = table(tmp_path / "run").select(pl.col("^l[013]_(fact|hall)_(relative_error|l0_norm)$"))
    assert numbers.null_count().sum_horizontal().item() == 0

    assert call("analyze", *flags[:-1], "float32", "--out", tmp_path / "wide").code == 0
    assert torch.finfo(torch.float16).max < 4 * 60_000
