"""Runs of chat models on conversations: every strategy reads the same, the run is sound, and what is amiss is said."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer

import bluffscope
import tiny
from bluffscope.api import config_from
from bluffscope.cli.main import main
from bluffscope.compare.strategies import verify
from bluffscope.config import ForecastOptions
from bluffscope.errors import InputError
from bluffscope.runs.forecast import forecast
from bluffscope.table.reader import read_run

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tiny_model, tmp_path_factory):
    """The tiny model with a chat template, whose turns its tokenizer has special tokens for."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("chat") / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "</turn>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """Pairs whose prompts are texts and lists of messages; one holds the name of a special token."""
    rows = [{**pair, "domain": "all"} for pair in tiny.PAIRS]
    rows[0]["prompt"] = [
        {"role": "user", "content": "Good morning."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": rows[0]["prompt"]},
    ]
    rows[1]["prompt"] = f"</turn><turn> {rows[1]['prompt']}"
    return tiny.write_pairs(tmp_path_factory.mktemp("chats") / "chats.jsonl", rows)


def options(chat_model, tiny_saes, chats, **more):
    given = {"model": str(chat_model), "sae": str(tiny_saes), "data": str(chats), "device": "cpu", "dtype": "float64"}
    return {**given, "chat": True, "cluster_by": "prompt", **more}


@pytest.mark.parametrize(
    "position", ["last", "end-of-turn", pytest.param(("last", "end-of-turn"), marks=pytest.mark.thorough)]
)
def test_every_strategy_reads_the_same_of_conversations(chat_model, tiny_saes, chats, position, tmp_path):
    config = config_from(
        **options(chat_model, tiny_saes, chats, position=position, system="Be brief.", logprob=True, out=tmp_path / "r")
    )
    assert all(phase.holds for phase in verify(config))


def test_a_run_on_conversations_is_sound_and_goes_on(chat_model, tiny_saes, chats, tmp_path):
    given = options(chat_model, tiny_saes, chats, out=tmp_path / "run", position="end-of-turn", layers=[0, 1])
    table = bluffscope.analyze(**given)
    run = read_run(tmp_path / "run")
    assert table["fact_read_token"].unique().to_list() == ["</turn>"]
    found = {check["check"]: check for check in run.manifest["health"]["checks"]}
    assert found["BOS fed"]["severity"] == "ok" and "as the chat template has it" in found["BOS fed"]["seen"]
    assert found["read position"]["severity"] == "ok"
    assert not any("chat template" in hint for hint in run.manifest["hints"])
    prompts = run.pairs["prompt"].to_list()
    assert json.loads(prompts[0])[1] == {"role": "assistant", "content": "Hello."}
    assert run.config["data"]["chat"] is True
    assert main(["analyze", "--resume", str(run.path), "--chat"]) in (0, 4)  # random weights may not pass health
    assert main(["analyze", "--resume", str(run.path), "--system", "Be brief."]) == 2


def test_the_dry_run_counts_a_conversation_s_tokens(chat_model, tiny_saes, chats):
    plain = options(chat_model, tiny_saes, chats) | {"chat": False, "limit": None}
    with pytest.raises(InputError, match="holds a conversation; --chat measures it"):
        forecast(config_from(**plain), ForecastOptions(dry_run=True))
    chat = forecast(config_from(**options(chat_model, tiny_saes, chats)), ForecastOptions(dry_run=True))
    longer = forecast(
        config_from(**options(chat_model, tiny_saes, chats, system="Be brief.")), ForecastOptions(dry_run=True)
    )
    assert 0 < chat.work.tokens < longer.work.tokens


def test_a_chat_model_measured_as_plain_text_is_named_in_run_and_lint(chat_model, tiny_saes, tmp_path, capsys):
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)
    bluffscope.analyze(**options(chat_model, tiny_saes, data, chat=False, out=tmp_path / "run"))
    hints = read_run(tmp_path / "run").manifest["hints"]
    assert sum("has a chat template, and these texts are read as plain text: --chat" in hint for hint in hints) == 1
    codes = [finding.code for finding in bluffscope.lint(str(data), model=str(chat_model)).findings]
    assert "plain-text" in codes
    assert "plain-text" not in [
        found.code for found in bluffscope.lint(str(data), model=str(chat_model), chat=True).findings
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"chat": False, "system": "Be brief."}, "--system: only conversations have it; add --chat"),
        ({"chat": False, "position": "end-of-turn"}, "--position end-of-turn: only conversations have it; add --chat"),
        ({"join": " "}, "--join: with --chat the model's chat template parts prompt and completion"),
    ],
    ids=["system", "position", "join"],
)
def test_options_that_contradict_each_other_are_refused(chat_model, tiny_saes, chats, more, said):
    with pytest.raises(InputError, match=said):
        bluffscope.analyze(**options(chat_model, tiny_saes, chats, **more))


def test_a_model_without_a_template_is_refused_before_anything_is_measured(tiny_model, tiny_saes, chats, tmp_path):
    with pytest.raises(InputError, match="has no chat template"):
        bluffscope.analyze(**options(tiny_model, tiny_saes, chats, out=tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.parquet").exists()


def test_detectors_of_conversations_score_prompt_and_completion_only(chat_model, tiny_saes, chats, tmp_path, capsys):
    rows = [
        {"id": f"{n}-{pair['id']}", **pair} | {"id": f"{n}-{i}", "prompt": f"{n} {pair['prompt']}"}
        for n in range(8)
        for i, pair in enumerate(tiny.PAIRS)
    ]
    data = tiny.write_pairs(tmp_path / "many.jsonl", rows)
    run, kept = tmp_path / "run", tmp_path / "detector"
    bluffscope.analyze(**options(chat_model, tiny_saes, data, out=run, cluster_by="prompt", allow_unsound=True))
    assert (
        main(["detect", "train", str(run), "--on", "sae", "--out", str(kept), "--allow-weak", "--allow-unsound"]) == 0
    )
    assert main(["detect", "score", str(kept), "--text", "Paris"]) == 2
    assert "reads what the assistant says in a conversation; give --prompt and --completion" in capsys.readouterr().err
    assert main(["detect", "score", str(kept), "--prompt", "The capital?", "--completion", "Paris"]) == 0


@pytest.fixture(scope="module")
def answers(chats, tmp_path_factory):
    """Both sides of the conversations as labelled texts."""
    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "fact", "id": f"{number}/{side[:4]}"}
        for number, row in enumerate(map(json.loads, chats.read_text().splitlines()))
        for side in ("fact", "hallucination")
    ]
    return tiny.write_pairs(tmp_path_factory.mktemp("answers") / "answers.jsonl", rows)


def test_answers_with_labels_are_read_as_the_two_sides_of_a_pair(chat_model, tiny_saes, chats, answers, tmp_path):
    more = {"position": "end-of-turn", "logprob": True}
    pairs = bluffscope.analyze(**options(chat_model, tiny_saes, chats, **more))
    texts = bluffscope.analyze(**options(chat_model, tiny_saes, answers, **more))
    for offset, side in enumerate(("fact", "hall")):
        for ours, theirs in (
            ("logprob", f"logprob_{side}"),
            ("l1_gini", f"l1_{side}_gini"),
            ("entropy", f"entropy_{side}"),
        ):
            difference = texts[ours].gather_every(2, offset) - pairs[theirs]
            assert difference.abs().max() == pytest.approx(0, abs=1e-9)
    assert set(texts["read_token"]) == {"</turn>"}
    assert all(phase.holds for phase in verify(config_from(**options(chat_model, tiny_saes, answers, **more))))


def test_a_statement_is_no_conversation(chat_model, tiny_saes, tmp_path):
    statements = tiny.write_pairs(tmp_path / "s.jsonl", [{"text": "Paris is in France.", "label": True}])
    with pytest.raises(InputError, match="--chat: a text without a prompt is no conversation"):
        bluffscope.analyze(**options(chat_model, tiny_saes, statements, cluster_by="both"))


@pytest.mark.process
@pytest.mark.filterwarnings("ignore::Warning:ray")
def test_conversations_and_labelled_texts_are_measured_alike_on_ray(chat_model, tiny_saes, chats, answers):
    pytest.importorskip("ray")
    for data in (chats, answers):
        given = options(chat_model, tiny_saes, data, logprob=True, shard_pairs=2, batch_size=2)
        here = bluffscope.analyze(**given)
        there = bluffscope.analyze(**given, engine="ray", workers=2)
        assert there.equals(here)
