"""What may go wrong while a model is asked: kills, signals, a full disk, questions that cannot be asked."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

import bluffscope.runs.ask.worker as worker

QUESTIONS = [{"id": k, "question": f"What is the capital of land {k}?", "answers": ["Paris"]} for k in range(60)]
FLAGS = ("--samples", 4, "--max-new-tokens", 8, "--batch-size", 1, "--device", "cpu")


@pytest.fixture
def flags(tiny_model, tmp_path):
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return ["ask", tmp_path / "q.jsonl", "--model", tiny_model, *FLAGS]


@pytest.fixture
def drawn(monkeypatch):
    """Ids of the questions that are asked in this process."""
    found: list[str] = []
    real = worker.draw

    def draw(model, batch, *rest):
        found.extend(one.id for one in batch)
        return real(model, batch, *rest)

    monkeypatch.setattr(worker, "draw", draw)
    return found


def kept(out):
    """Ids of the questions whose answers are on disk."""
    part = out.with_name(f"{out.name}.part")
    lines = part.read_bytes().split(b"\n")[1:-1] if part.exists() else []
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_ends_in_between_is_gone_on_with_and_nothing_is_asked_twice(
    number, code, flags, call, drawn, tmp_path
):
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "bluffscope", *map(str, flags), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 200
        while len(kept(out)) < 3 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    if number != signal.SIGKILL:
        assert said.splitlines()[-1].startswith("bluffscope ask: stopped;")
        assert "Traceback" not in said
    before = kept(out)
    assert 3 <= len(before) < len(QUESTIONS)
    assert call(*flags, "--out", out).code == 0
    assert sorted(drawn) == sorted({str(one["id"]) for one in QUESTIONS} - set(before))
    whole = tmp_path / "whole.jsonl"
    assert call(*flags, "--out", whole).code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_full_disk_loses_nothing(flags, call, drawn, tmp_path):
    out = tmp_path / "out.jsonl"
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        outcome = call(*flags, "--limit", 30, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert f"{out.name}.part" in last and "File too large" in last
    assert last.endswith("answers so far are kept: run the same command again")
    before = kept(out)
    assert 3 <= len(before) < 30
    drawn.clear()
    assert call(*flags, "--limit", 30, "--out", out).code == 0
    assert sorted(drawn, key=int) == [str(k) for k in range(30) if str(k) not in before]


def test_a_question_too_long_for_the_model_is_left_out_and_named(flags, call, tmp_path):
    long = {"id": "long", "question": "very " * 200, "answers": ["Paris"]}
    questions = tmp_path / "q.jsonl"
    questions.write_text("".join(json.dumps(one) + "\n" for one in (long, *QUESTIONS[:3])))
    out = tmp_path / "out.jsonl"
    outcome = call(*flags, "--out", out, "-v")
    assert outcome.code == 3
    assert "1 question left out, the first 'long': its prompt has " in outcome.err.replace("\n", " ")
    groups = [json.loads(line)["group"] for line in out.read_text().splitlines()]
    assert groups == [str(k) for k in range(3) for _ in range(4)]
    assert "Peak memory: " in outcome.out
    questions.write_text(json.dumps(long) + "\n")
    outcome = call(*flags, "--out", tmp_path / "none.jsonl")
    assert outcome.code == 2 and "no question can be asked" in outcome.err
    assert not list(tmp_path.glob("none*"))


@pytest.mark.parametrize(
    ("content", "flags_added", "says"),
    [
        ("", (), "q.jsonl"),
        ('{"id": 1, "question": "x", "answers": ["y"]}\n' * 2, (), "id '1' is taken; give each its own"),
        ('{"id": 1, "question": "x"}\n', (), "name the right one with --columns answers=NAME"),
        ('{"id": 1, "question": "x", "answers": []}\n', (), "no question with an answer in it"),
        ('{"q": "x", "answers": ["y"]}\n', ("--columns", "question=z"), "field 'z' is missing"),
        pytest.param(
            '{"id": 1, "question": "x", "answers": ["y"]}\n',
            ("--workers", "0", "--engine", "ray"),
            "--workers 0: give auto or at least 1",
            marks=pytest.mark.process,
        ),
    ],
    ids=["empty", "twice", "no-gold", "empty-gold", "columns", "workers"],
)
def test_questions_that_cannot_be_read_are_one_line(content, flags_added, says, flags, call, tmp_path):
    (tmp_path / "q.jsonl").write_text(content)
    outcome = call(*flags, *flags_added, "--out", tmp_path / "out.jsonl")
    lines = [line for line in outcome.err.splitlines() if not line.startswith(("warning", "note"))]
    assert outcome.code == 2 and len(lines) == 1 and says in lines[0], outcome.err
    assert not list(tmp_path.glob("out*"))
