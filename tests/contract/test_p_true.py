"""P(True): what the model answers when asked, as the reference and plain transformers have it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer

import bluffscope
import measuring
import tiny
from bluffscope.api import config_from
from bluffscope.cli.main import main
from bluffscope.compare.strategies import verify
from bluffscope.config import ForecastOptions
from bluffscope.records.questions import ANSWERS, CHAT_QUESTION, STATEMENT_QUESTION
from bluffscope.runs.forecast import forecast
from compare import assert_same
from random_pairs import random_pairs

COLUMNS = [f"p_true_{part}" for part in ("fact", "hall", "diff")]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['content'] == 'No.' %}{{ raise_exception('no') }}{% endif %}"
    "<turn>{{ m['role'] }}\n{{ m['content'] }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def logits(values):
    return [math.log(value / (1 - value)) for value in values if value is not None]


def sure(model, question, answers):
    """P(True) / (P(True) + P(False)) by the products of the answers' own tokens; ids as they are."""
    likely = []
    for answer in answers:
        with torch.no_grad():
            predicted = model(torch.tensor([[*question, *answer]])).logits[0].log_softmax(-1)
        likely.append(sum(predicted[len(question) + i - 1, token].item() for i, token in enumerate(answer)))
    return 1 / (1 + math.exp(likely[1] - likely[0]))


@pytest.mark.parametrize("strategy", ["packed", pytest.param("batched", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.thorough)])
def test_every_architecture_gives_the_reference_s_answers(any_model, tiny_saes, strategy, dtype):
    pairs = measuring.as_pairs(random_pairs(32))
    # A text joined by nothing: tokens merge across the border of prompt and completion.
    asked = {"p_true": True, "noise_draws": 1, "join": ""}
    worker = measuring.make_worker(any_model, tiny_saes, dtype=dtype, strategy=strategy, **asked)
    table = measuring.measure(worker, pairs)
    oracle = measuring.load_oracle(any_model, tiny_saes, dtype=dtype)
    expected = oracle.rows(pairs, **asked)
    assert_same(table, expected, dtype, draws=1)
    assert set(COLUMNS) <= set(table.columns) and "logprob_fact" not in table.columns
    lacking = [row["pair_id"] for row in expected if row["p_true_diff"] is None]
    assert any(row["p_true_fact"] is None and row["p_true_hall"] is not None for row in expected)
    # The one prompt of 60 letters leaves no room for the question in a context of 128 tokens.
    assert 0 < len(lacking) < len(pairs) / 2 and not table["_reason"].is_not_null().any()
    assert table.filter(pl.col("p_true_diff").is_null())["pair_id"].to_list() == lacking
    for column in COLUMNS[:2]:  # near 0 and 1 a probability hides what its logit shows
        got, known = (logits(values) for values in (table[column], [row[column] for row in expected]))
        assert got == pytest.approx(known, rel=1e-6 if dtype == "float64" else 1e-2)
        # Every layer of this Mistral looks back over fewer tokens than the question has.
        assert any_model.name == "mistral" or np.ptp(got) > 0.1


def test_the_answer_is_plain_transformers_own(tiny_model, tiny_saes):
    pairs = measuring.as_pairs(tiny.PAIRS)
    table = measuring.measure(measuring.make_worker(tiny_model, tiny_saes, p_true=True, noise_draws=1), pairs)
    oracle = measuring.load_oracle(tiny_model, tiny_saes)

    def ids(text):
        return oracle.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    answers = [ids(answer) for answer in ANSWERS]
    assert min(map(len, answers)) > 1 and answers[0][0] == answers[1][0]  # several tokens, the first in common
    for pair, row in zip(pairs, table.iter_rows(named=True), strict=True):
        for view in ("fact", "hall"):
            question = [oracle.tokenizer.bos_token_id, *ids(pair.text(view, " ") + STATEMENT_QUESTION)]
            assert row[f"p_true_{view}"] == pytest.approx(sure(oracle.model, question, answers), rel=1e-5)


def test_it_changes_no_other_number_and_is_a_column_of_its_own(tiny_model, tiny_saes, tmp_path):
    given = {"model": tiny_model, "sae": tiny_saes, "noise_draws": 1, "dtype": "float64", "keep_residuals": True}
    plain = bluffscope.analyze(tiny.PAIRS, logprob=True, out=tmp_path / "plain", **given)
    table = bluffscope.analyze(tiny.PAIRS, logprob=True, p_true=True, trajectory=True, out=tmp_path / "run", **given)
    assert [name for name in table.columns if name not in plain.columns and "lens" not in name][-3:] == COLUMNS
    for name in (name for name in plain.columns if plain[name].dtype == pl.Float64):
        assert table[name].to_list() == pytest.approx(plain[name].to_list(), rel=1e-9, nan_ok=True), name
    run, before = (bluffscope.read_run(tmp_path / name) for name in ("run", "plain"))
    assert run.manifest["metric_versions"]["p_true_fact"] == 1
    assert run.config["measure"]["p_true"] is True
    assert run.kept_residuals.collect().height == before.kept_residuals.collect().height


def test_a_question_beyond_a_border_of_lengths_changes_no_shorter_text(tmp_path, tiny_saes):
    model = tiny.save_random(tmp_path / "model", tiny.BY_LENGTH["phi3"])
    pairs = measuring.as_pairs(tiny.PAIRS)
    asked = {"p_true": True, "logprob": True, "noise_draws": 1}
    expected = measuring.load_oracle(model, tiny_saes).rows(pairs, **asked)
    table = measuring.measure(measuring.make_worker(model, tiny_saes, **asked), pairs)
    assert_same(table, expected, "float64", draws=1)
    assert any(row["p_true_fact"] is not None for row in expected)


def sides():
    return [
        {
            "id": f"{number}/{side}",
            "prompt": pair["prompt"],
            "completion": pair[key],
            "label": side == "fact",
            "group": f"g{number}",
        }
        for number, pair in enumerate(tiny.PAIRS)
        for side, key in (("fact", "fact"), ("hall", "hallucination"))
    ]


@pytest.mark.thorough
def test_labelled_texts_have_the_values_of_the_pairs_that_they_are_the_sides_of(tiny_model, tiny_saes, tmp_path):
    given = {"model": str(tiny_model), "sae": str(tiny_saes), "dtype": "float64", "noise_draws": 1, "p_true": True}
    pairs = bluffscope.analyze(tiny.PAIRS, **given)
    data = tiny.write_pairs(tmp_path / "texts.jsonl", sides())
    texts = bluffscope.analyze(str(data), out=tmp_path / "run", **given)
    for offset, side in enumerate(("fact", "hall")):
        assert texts["p_true"].gather_every(2, offset).to_list() == pytest.approx(pairs[f"p_true_{side}"].to_list())
    paired = bluffscope.read_run(tmp_path / "run").table("paired.parquet")
    assert paired["p_true_diff"].to_list() == pytest.approx(pairs["p_true_diff"].to_list())
    statements = [{"text": f"{one['prompt']} {one['completion']}", "label": one["label"]} for one in sides()]
    data = tiny.write_pairs(tmp_path / "statements.jsonl", statements)
    alone = bluffscope.analyze(str(data), **given)
    assert alone["p_true"].to_list() == pytest.approx(texts["p_true"].to_list())
    assert all(phase.holds for phase in verify(config_from(data=str(data), device="cpu", **given)))


@pytest.fixture
def chat_model(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "</turn>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.thorough
def test_in_a_conversation_the_question_is_the_user_s_next_turn(chat_model, tiny_saes, tmp_path):
    rows = [{**pair, "domain": "all"} for pair in tiny.PAIRS]
    rows[0]["prompt"] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}] + [
        {"role": "user", "content": "The capital?"}
    ]
    rows[1]["fact"] = "</turn><turn> true"  # forges nothing
    rows[2]["fact"] = "No."  # this template takes no such turn of the assistant
    data = tiny.write_pairs(tmp_path / "chats.jsonl", rows)
    given = {"model": str(chat_model), "sae": str(tiny_saes), "data": str(data), "device": "cpu", "dtype": "float64"}
    given |= {"chat": True, "p_true": True, "noise_draws": 1, "cluster_by": "prompt"}
    assert all(phase.holds for phase in verify(config_from(**given, system="Be brief.", position="end-of-turn")))
    table = bluffscope.analyze(**given, out=tmp_path / "run")
    assert [value is None for value in table["p_true_fact"]] == [False, False, True, False, False]
    assert table["p_true_hall"].null_count() == 0
    hints = bluffscope.read_run(tmp_path / "run").manifest["hints"]
    assert [hint for hint in hints if hint.startswith("P(True) is unknown in 1 of 5 rows")]
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    oracle = measuring.load_oracle(chat_model, tiny_saes)
    asked = [
        *({"role": "user", "content": rows[3]["prompt"]}, {"role": "assistant", "content": rows[3]["fact"]}),
        {"role": "user", "content": CHAT_QUESTION},
    ]
    question = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    answers = [tokenizer(answer.strip(), add_special_tokens=False)["input_ids"] for answer in ANSWERS]
    assert table["p_true_fact"][3] == pytest.approx(sure(oracle.model, question, answers), rel=1e-5)


@pytest.mark.thorough
def test_a_run_goes_on_as_it_was_asked_and_an_older_one_too(tiny_model, tiny_saes, tmp_path, monkeypatch):
    data = str(tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS))
    given = {"model": str(tiny_model), "sae": str(tiny_saes), "data": data, "noise_draws": 1, "shard_pairs": 2}
    whole = bluffscope.analyze(**given, p_true=True, out=tmp_path / "run")
    (tmp_path / "run" / "metrics.parquet").unlink()
    again = bluffscope.analyze(resume=tmp_path / "run")
    assert again.equals(whole)
    flags = ["--resume", str(tmp_path / "run")]
    assert main(["analyze", *flags, "--no-p-true"]) == 2
    older = bluffscope.analyze(**given, out=tmp_path / "older")
    for name in ("config.yaml", "identity.json"):
        file = tmp_path / "older" / name
        if file.exists():
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join(line for line in lines if "p_true" not in line))
    (tmp_path / "older" / "metrics.parquet").unlink()
    assert bluffscope.analyze(resume=tmp_path / "older").equals(older)


def test_the_dry_run_counts_the_questions(tiny_model, tiny_saes, pairs_file):
    given = {"model": str(tiny_model), "sae": str(tiny_saes), "data": str(pairs_file), "device": "cpu"}
    plain, asked = (
        forecast(config_from(**given, logprob=True, p_true=p_true), ForecastOptions(dry_run=True))
        for p_true in (False, True)
    )
    assert asked.work.tokens > plain.work.tokens + 10 * 2 * len(tiny.PAIRS)
    assert asked.work.products > plain.work.products


@pytest.mark.process
@pytest.mark.filterwarnings("ignore::Warning:ray")
def test_ray_gives_the_same(tiny_model, tiny_saes, pairs_file):
    pytest.importorskip("ray")
    given = {"model": str(tiny_model), "sae": str(tiny_saes), "data": str(pairs_file), "p_true": True}
    given |= {"shard_pairs": 2, "batch_size": 2, "dtype": "float64", "noise_draws": 1}
    assert bluffscope.analyze(**given, engine="ray", workers=2).equals(bluffscope.analyze(**given))


def test_what_is_asked_is_written_where_people_look():
    page = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text(encoding="utf-8")
    assert json.dumps(STATEMENT_QUESTION)[1:-1] in page and CHAT_QUESTION in page
