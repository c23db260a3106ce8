"""The judge on cases with verdicts given by hand, and what holds for every answer."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluffscope.runs.ask.judge import REFUSED, judge

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("judge_cases", ROOT / "tools" / "judge_cases.py")
assert _spec is not None and _spec.loader is not None
judge_cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(judge_cases)


@pytest.mark.parametrize("part", judge_cases.PARTS)
def test_what_it_calls_right_is_right_and_little_that_is_right_is_missed(part):
    found = judge_cases.figures(judge_cases.cases(part))
    assert found["cases"] >= 200
    assert found["precision"] >= 0.97
    assert found["recall"] >= 0.95
    assert found["agreement"] >= 0.95


@pytest.mark.thorough
def test_the_page_has_the_figures_that_the_command_prints(capsys):
    page = (ROOT / "docs" / "ask.md").read_text(encoding="utf-8")
    for part in judge_cases.PARTS:
        judge_cases.main(["--part", part])
        figures = capsys.readouterr().out.splitlines()[-1].split()[1:]
        assert f"| `{part}` | {' | '.join(figures)} |" in re.sub(r"(\| `[\w-]+`)[^|]* \|", r"\1 |", page)


def test_no_case_stands_there_twice_and_each_verdict_is_one_of_the_four():
    cases = judge_cases.cases()
    keys = [(case["question"], case["answer"], case.get("judge"), case.get("source")) for case in cases]
    assert len(set(keys)) == len(keys)
    assert {case["verdict"] for case in cases} == {"right", "wrong", "refused", "empty"}


@pytest.mark.parametrize(
    ("question", "gold", "answers"),
    [
        ("What is the capital of France?", "Paris", ["Lyon", "It is Lyon.", "The capital of France is Lyon.", "lyon"]),
        ("What is the capital of France?", "Paris", ["Paris", "paris.", "The capital is Paris."]),
        ("How high is it?", "8,849 m", ["8,848 m", "8848 metres", "8.848 km"]),
        ("When was it?", "15 April 1912", ["14 April 1912", "April 14, 1912", "1912-04-14"]),
        ("When was it?", "15 April 1912", ["I don't know.", "I'm not sure.", "Unknown"]),
        ("Who wrote Emma?", "Jane Austen", ["Mary Shelley", "Emma was written by Mary Shelley."]),
    ],
)
def test_answers_that_say_the_same_are_one_cluster(question, gold, answers):
    assert len({judge(question, answer, [gold]).cluster for answer in answers}) == 1


def test_refusals_and_empty_answers_are_never_wrong():
    assert judge("Who?", "I do not know.", ["Ada"]) == judge("Who?", "I do not know.", ["Bo"])
    assert judge("Who?", "I do not know.", ["Ada"]).cluster == REFUSED
    assert judge("Who?", " \n", ["Ada"]).verdict == "empty"


def test_by_numbers_alone_no_words_count():
    assert judge("Who wrote Emma?", "Jane Austen", ["Jane Austen"], "numeric").verdict == "wrong"
    assert judge("How many?", "It is forty-two.", ["42"], "numeric").verdict == "right"


@given(
    st.text(max_size=60),
    st.text(max_size=200),
    st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=3),
    st.sampled_from(["match", "contains", "numeric"]),
)
def test_any_text_has_a_verdict_which_is_the_same_each_time(question, answer, golds, mode):
    found = judge(question, answer, golds, mode)
    assert found == judge(question, answer, golds, mode)
    assert found.verdict in ("right", "wrong", "refused", "empty")
    assert (found.cluster == "") <= (found.verdict in ("empty", "wrong", "right"))


@pytest.mark.parametrize(
    "piece", ["a ", "1 ", "1,", "Paris, ", "not ", "one hundred and ", "Q: ", "**", "(", "i don't "]
)
def test_a_long_answer_takes_no_long_time(piece):
    assert judge("What is it?", piece * (20_000 // len(piece)), ["Paris"]).verdict in (
        "wrong",
        "right",
        "refused",
        "empty",
    )
