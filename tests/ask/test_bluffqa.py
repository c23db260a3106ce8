"""The bundled questions bluffqa are sound, are what the tool writes, and each check of the tool can fail."""

from __future__ import annotations

import calendar
import copy
import importlib.resources
import json
import re
from collections import Counter
from pathlib import Path

import pytest

import make_bluffqa as tool

ROOT = Path(__file__).resolve().parents[2]
TEXT = importlib.resources.files("bluffscope").joinpath("runs/ask/data/bluffqa.jsonl").read_bytes().decode("utf-8")
ITEMS = [json.loads(line) for line in TEXT.splitlines()]
FIELDS = {
    "id": str,
    "domain": str,
    "popularity": int,
    "kind": str,
    "question": str,
    "answers": list,
    "aliases": list,
    "lure": str | None,
}


def item(question: str) -> int:
    """The place of a question in the file."""
    return next(place for place, kept in enumerate(ITEMS) if kept["question"] == question)


def test_the_file_is_what_the_tool_writes(tmp_path, capsys):
    assert tool.main([str(tmp_path / "made.jsonl")]) == 0
    assert (tmp_path / "made.jsonl").read_bytes().decode("utf-8") == TEXT
    assert capsys.readouterr().out.strip() == tool.counts(ITEMS)


def test_the_file_is_sound():
    assert tool.faults(ITEMS) == []


def test_every_line_has_the_fields_in_their_order_and_types():
    for kept in ITEMS:
        assert list(kept) == list(FIELDS)
        assert all(isinstance(kept[field], kind) for field, kind in FIELDS.items()), kept["id"]
        assert all(isinstance(text, str) for text in (*kept["answers"], *kept["aliases"])), kept["id"]


def test_the_domains_and_grades_are_filled():
    grades = Counter((kept["domain"], kept["popularity"]) for kept in ITEMS)
    assert grades.keys() == {(domain, grade) for domain in tool.DOMAINS for grade in range(1, 6)}
    assert min(grades.values()) >= 10
    assert len(ITEMS) >= 200


def test_kinds_fit_the_answers_and_numbers_are_also_spelled():
    shapes = {"number": r"[\d./]+", "year": r"1\d{3}", "date": rf"\d+ (?:{'|'.join(calendar.month_name[1:])})"}
    assert {kept["kind"] for kept in ITEMS} == {"text", *shapes}
    for kept in ITEMS:
        answer = kept["answers"][0]
        assert re.fullmatch(shapes.get(kept["kind"], r"\D.*"), answer), kept["id"]
        if kept["kind"] in ("number", "year"):
            assert any(re.fullmatch(r"[a-z -]+", alias) for alias in kept["aliases"]), kept["id"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (20, "twenty"),
        (42, "forty-two"),
        (100, "one hundred"),
        (391, "three hundred and ninety-one"),
        (1024, "one thousand and twenty-four"),
        (1440, "one thousand four hundred and forty"),
        (9999, "nine thousand nine hundred and ninety-nine"),
    ],
)
def test_numbers_are_spelled(number, text):
    assert tool.spelled(number, " and ") == text
    assert tool.spelled(number) == text.replace(" and ", " ")


def test_years_are_spelled_as_they_are_spoken():
    assert tool.spelled_year(1969) == "nineteen sixty-nine"
    assert tool.spelled_year(1071) == "ten seventy-one"
    for year in (751, 1804, 1900, 2001):
        with pytest.raises(ValueError, match="spell it as an alias"):
            tool.spelled_year(year)


CAPITAL, CHOICE = "What is the capital of Spain?", "Which number is larger: 4 or 9?"
LURED = "What is the capital of Nigeria?"
BROKEN = {
    "id": (CAPITAL, {"id": "entity-002"}, "occurs 2 times"),
    "question": (CAPITAL, {"question": "What is the capital of CHINA?"}, "occurs 2 times"),
    "answer in question": (
        CAPITAL,
        {"question": "Is Madrid the capital of Spain?"},
        "stands in",
    ),
    "alias in question": (CAPITAL, {"aliases": ["capital of Spain"]}, "stands in the question"),
    "alias of another": (CAPITAL, {"aliases": ["Peking"]}, "different answers share the form 'peking'"),
    "alias twice": (CAPITAL, {"aliases": ["madrid"]}, "stands there twice"),
    "no question": (CAPITAL, {"question": "Name the capital of Spain."}, "not an ASCII question"),
    "long question": (CAPITAL, {"question": "Who " + "did " * 30 + "it?"}, "not an ASCII question"),
    "long answer": (CAPITAL, {"answers": ["one that runs on and on"]}, "an answer of more than"),
    "odd character": (CAPITAL, {"aliases": ["Mad\u200brid"]}, "holds"),
    "not composed": (CAPITAL, {"aliases": ["Madri\u0301d"]}, "composed form"),
    "not trimmed": (CAPITAL, {"aliases": ["Ciudad "]}, "trimmed"),
    "grade": (CAPITAL, {"popularity": 6}, "a popularity"),
    "lure elsewhere": (CAPITAL, {"lure": "Barcelona"}, "adversarial questions have a lure"),
    "lure missing": (LURED, {"lure": None}, "adversarial questions have a lure"),
    "lure is right": (LURED, {"lure": "abuja"}, "the lure 'abuja'"),
    "lure holds the answer": (LURED, {"lure": "Abuja or Lagos"}, "the lure"),
    "choice without right option": (CHOICE, {"answers": ["7"], "aliases": []}, "one right option"),
    "choice of two right ones": (CHOICE, {"aliases": ["4"]}, "one right option"),
    "lure of a choice": ("What does a camel store in its hump: fat or water?", {"lure": "milk"}, "its wrong option"),
    "date": ("On what date does France celebrate Bastille Day?", {"answers": ["2 July"]}, "does not end in th"),
    "same question": (
        "What is the capital of China?",
        {"question": "What is the capital city of Spain?", "answers": ["Madrid"], "aliases": []},
        "nearly the same question",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found(name):
    question, changes, said = BROKEN[name]
    items = copy.deepcopy(ITEMS)
    items[item(question)].update(changes)
    assert any(said in fault for fault in tool.faults(items)), tool.faults(items)


def test_a_domain_or_grade_with_too_few_questions_is_found():
    assert any("entity: fewer" in fault for fault in tool.faults(ITEMS[3:]))


def test_choices_whose_first_option_is_mostly_right_are_found():
    def right_first(kept):
        chosen = tool.CHOICE.search(kept["question"])
        return chosen is None or tool.words(chosen[1]) in tool.right_forms(kept)

    kept = [one for one in ITEMS if right_first(one)]
    assert any("the first option" in fault for fault in tool.faults(kept))


def test_the_tool_writes_nothing_if_it_finds_a_fault(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tool.DOMAINS, "entity", tool.DOMAINS["entity"][:20])
    assert tool.main([str(tmp_path / "made.jsonl")]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "entity: fewer than 50 questions" in capsys.readouterr().err


def test_the_page_has_the_counts_of_the_tool():
    assert tool.counts(ITEMS) in (ROOT / "docs/bluffqa.md").read_text(encoding="utf-8")
