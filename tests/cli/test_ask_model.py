"""A model asked questions by the command: prompts, examples, resuming, what is refused."""

from __future__ import annotations

import json

import pytest

import bluffscope.runs.ask.worker as worker
from bluffscope.config import DataOptions
from bluffscope.pairs import open_source

QUESTIONS = [
    {"id": f"q{k}", "question": f"What is the capital of land {k}?", "answers": ["Paris"], "domain": f"d{k % 2}"}
    for k in range(7)
]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ask(call, tmp_path, tiny_model):
    """Call `bluffscope ask` with the tiny model; returns the outcome and the rows written."""
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))

    def run(*flags, out="out.jsonl"):
        given = {"--samples": 3, "--max-new-tokens": 6, "--dtype": "float64", "--device": "cpu"}
        more = [word for name, value in given.items() if name not in flags for word in (name, value)]
        outcome = call("ask", tmp_path / "q.jsonl", "--model", tiny_model, "--out", tmp_path / out, *more, *flags)
        return outcome, lines(tmp_path / out) if (tmp_path / out).exists() else []

    return run


def test_every_question_is_answered_and_analyze_reads_what_was_said(ask, tmp_path):
    outcome, rows = ask()
    assert outcome.code == 0, outcome.err
    assert [row["id"] for row in rows] == [f"q{k}/{n}" for k in range(7) for n in range(3)]
    assert {row["prompt"] for row in rows} == {f"Q: {one['question']}\nA:" for one in QUESTIONS}
    assert all(row["answer_logprob"] < 0 for row in rows)
    assert "7 questions" in outcome.out
    assert not list(tmp_path.glob("*.part"))
    _, again = ask(out="again.jsonl")
    assert again == rows
    _, other = ask("--seed", 5, out="other.jsonl")
    assert [row["completion"] for row in other] != [row["completion"] for row in rows]
    judged = sum(row["label"] is not None for row in rows)
    assert judged > 0
    texts = list(open_source(DataOptions(data=str(tmp_path / "out.jsonl"))).items())
    assert len(texts) == judged


def test_examples_stand_in_front_and_are_not_asked(ask):
    outcome, rows = ask("--shots", 2, "--temperature", 0)
    assert outcome.code == 0, outcome.err
    assert [row["id"] for row in rows] == [f"q{k}/0" for k in range(2, 7)]
    first = "Q: What is the capital of land 0?\nA: Paris\n\nQ: What is the capital of land 1?\nA: Paris\n\nQ: "
    assert all(row["prompt"].startswith(first) for row in rows)


def test_nothing_is_asked_twice_after_a_stop(ask, tmp_path, monkeypatch):
    _, whole = ask("--batch-size", 2, out="whole.jsonl")
    real, calls = worker.draw, []

    def dying(model, batch, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append([one.id for one in batch])
        return real(model, batch, *rest)

    monkeypatch.setattr(worker, "draw", dying)
    outcome, _ = ask("--batch-size", 2)
    assert outcome.code != 0 and not (tmp_path / "out.jsonl").exists()
    part = tmp_path / "out.jsonl.part"
    with part.open("ab") as file:
        file.write(b'{"id": "q6", "samp')  # cut off in the middle of a line
    asked = []
    monkeypatch.setattr(worker, "draw", lambda model, batch, *rest: asked.extend(batch) or real(model, batch, *rest))
    whole_part = part.read_bytes()
    part.write_bytes(whole_part.replace(b'{"id": ', b'{"id" ', 1))
    damaged, _ = ask("--batch-size", 2)
    assert damaged.code == 2 and "damaged; remove it" in damaged.err
    part.write_bytes(whole_part)
    refused, _ = ask("--batch-size", 3)
    assert refused.code == 2 and "answers of other options" in refused.err
    refused, _ = ask("--batch-size", 2, "--dtype", "float32")
    assert refused.code == 2 and "answers of other options, questions or another model" in refused.err
    outcome, rows = ask("--batch-size", 2)
    assert outcome.code == 0, outcome.err
    assert rows == whole
    assert {one.id for one in asked}.isdisjoint(sum(calls, []))
    assert not part.exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--samples", "0"], "--samples 0: give a whole number that is 1 or more"),
        (["--temperature", "-1"], "--temperature -1: give a number that is 0 or more"),
        (["--shots", "7"], "--shots 7: leaves none of 7 questions to ask"),
        (["--system", "Be brief."], "--system: only with --chat"),
        (["--chat"], "chat template"),
        (["--answers", "a.jsonl"], "give --model, to ask it, or --answers FILE"),
        (["--max-new-tokens", "100000"], "its prompt has"),
    ],
    ids=["samples", "temperature", "shots", "system", "chat", "both", "context"],
)
def test_what_makes_no_sense_is_refused_in_one_line(ask, flags, says):
    outcome, rows = ask(*flags)
    assert outcome.code == 2 and says in outcome.err.replace("\n", " ") and not rows


def test_answers_are_kept_through_no_link(ask, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("mine")
    (tmp_path / "out.jsonl.part").symlink_to(other)
    outcome, rows = ask()
    assert outcome.code == 2 and "a link; remove it" in outcome.err and not rows
    assert other.read_text() == "mine"
