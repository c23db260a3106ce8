"""`bluffscope schemas`, runs on published data sets, and the one line for those that hold no pairs."""

from __future__ import annotations

import json

import pytest
import yaml

from bluffscope.pairs.schemas import LAYOUTS, SCHEMAS
from cli.conftest import table

ANSWERS = [
    {"question": "What is in Lake Ulmo?", "correct_answers": ["Water", "It is wet"], "incorrect_answers": ["Ink"]},
    {"question": "Is Ulmo deep?", "correct_answers": ["Yes"], "incorrect_answers": []},
    {"question": "Who owns Ulmo?", "correct_answers": ["Nobody"], "incorrect_answers": ["Ada", "Jo"]},
]


def written(tmp_path, records):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_schemas_are_listed_with_the_fields_that_each_needs(call):
    outcome = call("schemas")
    assert (outcome.code, outcome.err) == (0, "")
    words = " ".join(outcome.out.split())
    for name in [*SCHEMAS, *(field for layout in LAYOUTS for field in layout.needs), "--schema NAME", "--pairing"]:
        assert name in words


@pytest.mark.thorough
def test_a_published_data_set_is_measured_said_and_in_the_manifest(call, tiny_flags, tmp_path):
    data = written(tmp_path, ANSWERS)
    flags = ["analyze", *tiny_flags[:4], "--data", data]
    outcome = call(*flags, "--out", tmp_path / "run")
    assert outcome.code == 0
    read, left, *_ = outcome.err.splitlines()
    assert read == (
        f"note: {data}: read as truthfulqa (TruthfulQA, generation): prompt from question, fact from "
        "correct_answers[*], hallucination from incorrect_answers[*], domain from category"
    )
    assert left == f"warning: {data}: left out: 1 x no text in 'incorrect_answers[*]'"
    assert table(tmp_path / "run")["pair_id"].to_list() == ["0-1", "0-2", "2-1", "2-2"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["schema"] == ["truthfulqa: TruthfulQA, generation"]
    assert manifest["data"]["left_out"] == {"no text in 'incorrect_answers[*]'": 1}
    for field in ("schema", "prompt_template", "pairing"):
        assert field in yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]
    named = call(*flags, "--schema", "truthfulqa", "--limit", 3, "--pairing", "all", "--out", tmp_path / "three")
    assert (named.code, table(tmp_path / "three")["pair_id"].to_list()) == (0, ["0-1", "0-2", "2-1"])


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            {"problem": "q", "answer": "a"},
            "looks like SimpleQA: questions with right answers only; bluffscope ask judges a model's own answers",
        ),
        (
            {"source_id": "1", "source_info": "s", "prompt": "p"},
            "looks like RAGTruth's prompts: prompts of labelled texts; give the file of the texts",
        ),
    ],
)
def test_data_without_pairs_is_refused_before_a_model_is_loaded(refused, tmp_path, record, says):
    data = written(tmp_path, [record])
    refused("analyze", "--model", tmp_path / "none", "--data", data, "--out", tmp_path / "run", says=(str(data), says))
    refused("lint", data, says=(str(data), says))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--schema", "nonsense"], "--schema 'nonsense': unknown; use auto or one of truthfulqa"),
        (["--schema", "dpo"], "line 1: --schema dpo needs the fields 'prompt', 'chosen', 'rejected'; or 'question', "),
        (
            ["--columns", "prompt=question", "fact=correct_answers[5]", "hallucination=question"],
            "no item 5 in a list of 2",
        ),
        (["--prompt-template", "{topic}"], "field 'topic' is missing; the fields here are 'question'"),
        (["--prompt-template", "Q:"], "it names no field"),
        (["--pairing", "some"], "--pairing"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(refused, tmp_path, flags, says):
    refused("lint", written(tmp_path, ANSWERS), *flags, says=says)
