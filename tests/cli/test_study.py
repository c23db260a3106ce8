"""`bluffscope study` end to end on a tiny model: one command, resuming, corrected labels, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html import unescape

import polars as pl
import pytest

import bluffscope.runs.ask.worker as worker
from bluffscope.cli.progress import LineProgress
from bluffscope.runs.earlier import ASIDE

N = 40
QUESTIONS = [
    {"id": f"q{k}", "question": f"What is the capital of land {k}?", "answers": ["Paris"], "domain": f"d{k % 2}"}
    for k in range(N)
]
JUDGES = """
def by_length(question, answer, golds):
    return sum(map(ord, answer + question)) % 2 == 0

def right(question, answer, golds):
    return True

def declines(question, answer, golds):
    return None
"""


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def words(tmp_path, tiny_model):
    """The words of a `bluffscope study` command over these questions."""
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    (tmp_path / "judges.py").write_text(JUDGES)

    def make(*flags, judge="by_length"):
        given = {"--samples": 3, "--max-new-tokens": 24, "--device": "cpu", "--out": tmp_path / "study"}
        more = [word for name, value in given.items() if name not in flags for word in (name, value)]
        judged = [] if "--judge" in flags else ["--judge", f"{tmp_path / 'judges.py'}:{judge}"]
        return ["study", tmp_path / "q.jsonl", "--model", tiny_model, *judged, *more, *flags]

    return make


@pytest.fixture
def study(call, words, drawn):
    """Call it."""
    return lambda *flags, **chosen: call(*words(*flags, **chosen))


@pytest.fixture
def counted(monkeypatch):
    """What is asked and measured: ids of questions, and numbers of texts."""
    asked, measured = [], []
    draw, start = worker.draw, LineProgress.start

    def drawing(model, batch, *rest):
        asked.extend(one.id for one in batch)
        return draw(model, batch, *rest)

    def starting(self, total):
        measured.append(total)
        start(self, total)

    monkeypatch.setattr(worker, "draw", drawing)
    monkeypatch.setattr(LineProgress, "start", starting)
    return asked, measured


@pytest.mark.thorough
def test_one_command_asks_measures_tests_and_says_what_came_out(study, call, tmp_path, counted):
    outcome = study("--full")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "study"
    answers = lines(folder / "answers.jsonl")
    assert len(answers) == 3 * N
    labelled = [one for one in answers if one["label"] is not None]
    assert pl.read_parquet(folder / "metrics.parquet")["text_id"].to_list() == [one["id"] for one in labelled]
    detectors = pl.read_parquet(folder / "detectors.parquet").filter(scope="pooled")
    assert set(detectors.drop_nulls("auroc")["detector"]) >= {"length", "logprob", "text", "residual"}
    said = " ".join(outcome.out.split())
    right = sum(one["label"] for one in labelled)
    assert f"The model gave {right} right and {len(labelled) - right} wrong answers to" in said
    assert "Log-probability" in said and "The answer's wording" in said and "Length" in said
    row = detectors.filter(detector="residual").row(0, named=True)
    assert f"AUROC {row['auroc']:.2f}" in said
    if row["lo"] <= 0.5:
        assert f"With {len(labelled)} answers to" in said and "an AUROC of at least " in said
    assert "Measured at layers 0 1 2 3 (--layers all takes all), without SAEs" in said
    assert f"Report: {folder / 'report.html'}" in outcome.out
    page = unescape((folder / "report.html").read_text("utf-8"))
    assert [line for line in outcome.out.splitlines() if "AUROC" in line and line not in page] == []
    (asked, measured) = counted
    assert (len(asked), measured) == (N, [N, len(labelled)])
    # again: nothing is asked or measured twice
    again = study("--full")
    assert again.code == 0, again.err
    assert (len(asked), measured) == (N, [N, len(labelled)])
    assert again.out == "".join(line for line in outcome.out.splitlines(True) if not line.startswith("Peak memory"))
    brief = study().out.splitlines()
    assert len(brief) <= 15 and brief[-1] == f"Report: {folder / 'report.html'}"
    assert f"The model gave {right} right and" in " ".join(brief) and "right answers" in " ".join(brief)
    for command in (("stats", folder), ("report", folder)):
        assert call(*command).code == 0


@pytest.mark.thorough
def test_a_label_by_hand_is_kept_and_only_what_rests_on_it_is_made_again(study, tmp_path, counted):
    assert study().code == 0
    folder = tmp_path / "study"
    before = pl.read_parquet(folder / "metrics.parquet")
    residuals = pl.read_parquet(folder / "residuals.parquet")
    stats = (folder / "stats.parquet").read_bytes()
    answers = lines(folder / "answers.jsonl")
    (one, other) = [place for place, one in enumerate(answers) if one["label"] is not None][4:6]
    answers[one]["label"] = not answers[one]["label"]
    answers[other]["label"] = None
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    outcome = study()
    assert outcome.code == 0, outcome.err
    assert "2 labels by hand kept." in outcome.out
    asked, measured = counted
    assert (len(asked), measured) == (N, [N, before.height, 0])
    after = pl.read_parquet(folder / "metrics.parquet")
    changed = answers[one]["id"]
    assert after["text_id"].to_list() == [each["id"] for each in answers if each["label"] is not None]
    flipped = before["label"] ^ (before["text_id"] == changed)
    kept = before.with_columns(label=flipped).filter(pl.col("text_id") != answers[other]["id"])
    own = [name for name in before.columns if name not in ("label_by",)]
    assert after.select(own).equals(kept.select(own))
    assert pl.read_parquet(folder / "residuals.parquet").equals(
        residuals.filter(pl.col("text_id") != answers[other]["id"])
    )
    assert (folder / "stats.parquet").read_bytes() != stats
    assert not (folder / ASIDE).exists()
    # a label for an answer that had none: its shard is measured again, no other
    answers = lines(folder / "answers.jsonl")
    answers[other]["label"] = True
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    assert study().code == 0
    assert measured[-1] == before.height
    again = pl.read_parquet(folder / "metrics.parquet")
    numbers = [name for name, kind in before.schema.items() if kind.is_float()]
    for name in numbers:
        assert again[name].fill_null(9).to_list() == pytest.approx(
            before[name].fill_null(9).to_list(), rel=1e-4, abs=1e-5, nan_ok=True
        )


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["asking", "between", "measuring", "aside"])
def test_a_study_that_was_stopped_goes_on_where_it_was(study, tmp_path, counted, monkeypatch, moment):
    folder, asked, measured = tmp_path / "study", *counted
    if moment == "aside":
        assert study("--batch-size", 4).code == 0
        answers = lines(folder / "answers.jsonl")
        one = next(one for one in answers if one["label"] is not None)
        one["label"] = not one["label"]
        (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    with monkeypatch.context() as patch:
        if moment == "asking":
            draw, calls = worker.draw, []

            def dying(*args):
                calls.append(1)
                return _stop() if len(calls) == 3 else draw(*args)

            patch.setattr(worker, "draw", dying)
        elif moment == "between":
            patch.setattr("bluffscope.runs.earlier.prepare", _stop)
        else:
            patch.setattr("bluffscope.runs.run.merge", _stop)
        stopped = study("--batch-size", 4)
    assert stopped.code == 130, stopped
    outcome = study("--batch-size", 4)
    assert outcome.code == 0, outcome.err
    assert sorted(asked) == sorted(one["id"] for one in QUESTIONS)
    labelled = [one for one in lines(folder / "answers.jsonl") if one["label"] is not None]
    assert pl.read_parquet(folder / "metrics.parquet").height == len(labelled)
    assert sum(measured) == len(labelled) + N + (N - 8 if moment == "asking" else 0)
    assert not (folder / ASIDE).exists()
    assert not list(folder.glob("*.part"))


def _stop(*args, **named):
    raise KeyboardInterrupt


@pytest.mark.soak
def test_a_study_that_is_killed_again_and_again_ends_like_one_that_is_not(words, tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "2"}

    def start(out):
        command = [sys.executable, "-m", "bluffscope", *map(str, words("--samples", 6, "--out", tmp_path / out))]
        return subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    kills = 0
    for seconds in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12):
        process = start("study")
        try:
            process.wait(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=30)
            kills += 1
    assert kills > 1
    for out in ("study", "whole"):
        assert start(out).wait(timeout=300) == 0
    for name in ("answers.jsonl", "metrics.parquet", "detectors.parquet"):
        ours, theirs = (
            lines(folder / name) if name.endswith("jsonl") else pl.read_parquet(folder / name).to_dicts()
            for folder in (tmp_path / "study", tmp_path / "whole")
        )
        assert ours == theirs, name


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        ("right", "no question with a wrong answer, fewer than 10"),
        ("declines", "no answer is right or wrong: all decline or are empty"),
    ],
)
def test_answers_of_which_nothing_could_come_are_kept_and_refused_in_one_line(study, tmp_path, judge, says):
    outcome = study(judge=judge)
    assert outcome.code == 2
    assert says in outcome.err.splitlines()[-1]
    assert f"the answers are kept in {tmp_path / 'study' / 'answers.jsonl'}" in outcome.err
    assert len(lines(tmp_path / "study" / "answers.jsonl")) == 3 * N
    assert not (tmp_path / "study" / "metrics.parquet").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--samples", "0"], "--samples 0: give a whole number that is 1 or more"),
        (["--max-new-tokens", "100000"], "its prompt has"),
        (["--chat"], "chat template"),
        (["--model", "/no/such"], "/no/such"),
        (["--limit", "0"], "--limit 0: expected at least 1"),
    ],
    ids=["samples", "context", "chat", "model", "limit"],
)
def test_what_makes_no_sense_is_refused_in_one_line_and_leaves_nothing(study, words, call, tmp_path, flags, says):
    given = words(*flags)
    if flags[0] == "--model":
        del given[2:4]
    outcome = call(*given)
    assert outcome.code == 2 and says in outcome.err.replace("\n", " "), outcome
    assert not (tmp_path / "study").exists()


def test_other_options_do_not_go_on_with_a_study(study, tmp_path):
    assert study(judge="right").code == 2
    outcome = study("--samples", 4, judge="right")
    assert outcome.code == 2 and "--samples was 3, now 4; give --out another folder" in outcome.err
    (tmp_path / "study" / "study.json").unlink()
    outcome = study(judge="right")
    assert outcome.code == 2 and "answers that this command did not ask for" in outcome.err


def test_a_run_that_is_no_study_s_is_left_alone(study, call, tmp_path, tiny_model, pairs_file):
    folder = tmp_path / "study"
    more = ("--model", tiny_model, "--sae", "none", "--layers", 0, "--limit", 4)
    assert call("analyze", "--data", pairs_file, *more, "--out", folder).code == 0
    before = (folder / "metrics.parquet").read_bytes()
    outcome = study()
    assert outcome.code == 2 and "already holds a run" in outcome.err
    (folder / "metrics.parquet").rename(tmp_path / "kept")  # and one that began after the answers were there
    for mark in ("config.yaml", "manifest.json"):
        (folder / mark).rename(tmp_path / mark)
    assert study(judge="right").code == 2
    for mark in ("config.yaml", "manifest.json"):
        (tmp_path / mark).rename(folder / mark)
    (tmp_path / "kept").rename(folder / "metrics.parquet")
    outcome = study()
    assert outcome.code == 2 and "already holds a run over" in outcome.err
    assert (folder / "metrics.parquet").read_bytes() == before


def test_a_study_without_a_model_is_refused(call):
    outcome = call("study", "bluffqa")
    assert outcome.code == 2 and "give --model" in outcome.err
