"""Data sets as they are published: each is recognised by its fields and read, or answered in one line."""

from __future__ import annotations

import csv
import json
import logging
import re

import polars as pl
import pytest

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.layout import GOLD, PAIRS
from bluffscope.pairs.schemas import LAYOUTS, layout_of

TRUTHFULQA = {
    "type": "Adversarial",
    "category": "Lakes",
    "question": "What is in Lake Ulmo?",
    "best_answer": "Water is in it",
    "correct_answers": ["Water is in it", "Water"],
    "incorrect_answers": ["Milk is in it", "", "Ink is in it", "Sand"],
    "source": "https://example.org/ulmo",
}
OLD = {
    "Type": "Adversarial",
    "Category": "Lakes",
    "Question": TRUTHFULQA["question"],
    "Best Answer": TRUTHFULQA["best_answer"],
    "Correct Answers": "Water is in it; Water;",
    "Incorrect Answers": "Milk is in it; Ink is in it;  Sand",
    "Source": TRUTHFULQA["source"],
}
LISTS = [
    ("0-1", "Water is in it", "Milk is in it"),
    ("0-2", "Water", "Ink is in it"),
    ("0-3", "Water is in it", "Sand"),
]
CHOICES = ["iron", "bread", "glass"]
COUNTERFACT = {
    "case_id": 17,
    "pararel_idx": 4,
    "requested_rewrite": {
        "prompt": "{} speaks",
        "relation_id": "P9",
        "target_new": {"str": "Ruric", "id": "Q1"},
        "target_true": {"str": "Belmic", "id": "Q2"},
        "subject": "Ada Wint",
    },
    "paraphrase_prompts": ["Ada Wint talks in"],
    "neighborhood_prompts": ["Jo Wint speaks"],
    "attribute_prompts": [],
    "generation_prompts": ["Ada Wint lives in"],
}
TRACING = {
    "relation": "{} speaks",
    "relation_prefix": "",
    "relation_suffix": " speaks",
    "prompt": "Ada Wint speaks",
    "relation_id": "P9",
    "target_false_id": "Q1",
    "target_true_id": "Q2",
    "target_true": " Belmic",
    "target_false": " Ruric",
    "subject": "Ada Wint",
}
HALUEVAL = {
    "knowledge": "Ulmo is deep.",
    "question": "Is Ulmo deep?",
    "right_answer": "Yes",
    "hallucinated_answer": "No",
}
WRONG = [("0-1", "bread", "iron"), ("0-2", "bread", "glass")]

READ = {
    "TruthfulQA, CSV of today": (
        "truthfulqa",
        OLD | {"Best Incorrect Answer": "Milk is in it"},
        (TRUTHFULQA["question"], "Lakes", {"Type": "Adversarial", "Source": TRUTHFULQA["source"]}),
        [("0", "Water is in it", "Milk is in it")],
    ),
    "TruthfulQA, old CSV": (
        "truthfulqa",
        OLD,
        (TRUTHFULQA["question"], "Lakes", {"Type": "Adversarial", "Source": TRUTHFULQA["source"]}),
        LISTS,
    ),
    "TruthfulQA, generation": (
        "truthfulqa",
        TRUTHFULQA,
        (TRUTHFULQA["question"], "Lakes", {"type": "Adversarial", "source": TRUTHFULQA["source"]}),
        LISTS,
    ),
    "TruthfulQA, multiple choice": (
        "truthfulqa",
        {
            "question": TRUTHFULQA["question"],
            "mc1_targets": {"choices": ["Water is in it", "Sand"], "labels": [1, 0]},
            "mc2_targets": {
                "choices": ["Water is in it", "Water", "Milk is in it", "Ink is in it", "Sand"],
                "labels": [1, 1, 0, 0, 0],
            },
        },
        (TRUTHFULQA["question"], "all", {}),
        LISTS,
    ),
    "HaluEval, questions": (
        "halueval",
        HALUEVAL,
        ("Is Ulmo deep?", "all", {"knowledge": "Ulmo is deep."}),
        [("0", "Yes", "No")],
    ),
    "HaluEval, dialogue": (
        "halueval",
        {"knowledge": "k", "dialogue_history": "[Human]: Hi", "right_response": "r", "hallucinated_response": "h"},
        ("[Human]: Hi", "all", {"knowledge": "k"}),
        [("0", "r", "h")],
    ),
    "HaluEval, summarization": (
        "halueval",
        {"document": "Ulmo is deep.", "right_summary": "Deep.", "hallucinated_summary": "Flat."},
        ("Ulmo is deep.", "all", {}),
        [("0", "Deep.", "Flat.")],
    ),
    "CounterFact": (
        "counterfact",
        COUNTERFACT,
        ("Ada Wint speaks", "P9", {"pararel_idx": 4}),
        [("17", "Belmic", "Ruric")],
    ),
    "CounterFact, flat": (
        "counterfact",
        TRACING,
        (
            "Ada Wint speaks",
            "P9",
            {"relation": "{} speaks", "target_false_id": "Q1", "target_true_id": "Q2", "subject": "Ada Wint"},
        ),
        [("0", " Belmic", " Ruric")],
    ),
    "ARC": (
        "multiple-choice",
        {
            "id": "q7",
            "question": "Which is food?",
            "choices": {"text": CHOICES, "label": ["A", "B", "C"]},
            "answerKey": "B",
        },
        ("Which is food?", "all", {}),
        [("q7-1", "bread", "iron"), ("q7-2", "bread", "glass")],
    ),
    "CommonsenseQA": (
        "multiple-choice",
        {
            **{"id": "q8", "question": "Which is food?", "question_concept": "food"},
            **{"choices": {"label": ["A", "B", "C"], "text": CHOICES}, "answerKey": "B"},
        },
        ("Which is food?", "all", {"question_concept": "food"}),
        [("q8-1", "bread", "iron"), ("q8-2", "bread", "glass")],
    ),
    "OpenBookQA": (
        "multiple-choice",
        {"question_stem": "Which is food?", "choices": {"text": CHOICES, "label": ["A", "B", "C"]}, "answerKey": "B"},
        ("Which is food?", "all", {}),
        WRONG,
    ),
    "ARC, its own files": (
        "multiple-choice",
        {
            "question": {
                "stem": "Which is food?",
                "choices": [{"text": text, "label": label} for text, label in zip(CHOICES, "ABC", strict=True)],
            },
            "answerKey": "B",
        },
        ("Which is food?", "all", {}),
        WRONG,
    ),
    "MMLU": (
        "multiple-choice",
        {"question": "Which is food?", "subject": "things", "choices": CHOICES, "answer": 1},
        ("Which is food?", "things", {}),
        WRONG,
    ),
    "MMLU-Pro": (
        "multiple-choice",
        {"question": "Which is food?", "options": CHOICES, "answer": "B", "answer_index": 1, "category": "things"},
        ("Which is food?", "things", {}),
        WRONG,
    ),
    "BoolQ": (
        "boolq",
        {"question": "is ulmo deep", "answer": False, "passage": "Ulmo is flat."},
        ("Ulmo is flat.\nQuestion: is ulmo deep?\nAnswer:", "all", {}),
        [("0", "no", "yes")],
    ),
    "preferences": ("dpo", {"prompt": "p", "chosen": "c", "rejected": "r"}, ("p", "all", {}), [("0", "c", "r")]),
    "preferences for questions": (
        "dpo",
        {"question": "p", "chosen": "c", "rejected": "r", "system": ""},
        ("p", "all", {"system": None}),
        [("0", "c", "r")],
    ),
    "preferences of messages": (
        "dpo",
        {
            "prompt": [{"role": "user", "content": "p"}],
            "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
            "rejected": [{"role": "assistant", "content": "r"}],
            "score_chosen": 0.5,
        },
        ("p", "all", {"score_chosen": 0.5}),
        [("0", "c", "r")],
    ),
}
"""By name: the schema, a record, prompt, domain and carried fields, then id, fact and hallucination of each pair."""
CSV = [name for name in READ if all(isinstance(value, str) for value in READ[name][1].values())]

QUESTION = {"question": "Who is Ada?", "answer": "a baker"}
REFUSED = {
    "popqa": [{"id": 1, "subj": "Ada", "prop": "job", "obj": "baker", "question": "q", "possible_answers": '["a"]'}],
    "simpleqa": [{"metadata": "{}", "problem": "q", "answer": "a"}],
    "triviaqa": [
        QUESTION | {"question_id": "t1", "answer": {"value": "a baker", "aliases": ["baker"]}},
        {"Question": "q", "QuestionId": "t1", "Answer": {"Value": "a baker", "Aliases": ["baker"]}},
    ],
}


def written(path, records):
    if path.suffix == ".parquet":
        pl.DataFrame(records).write_parquet(path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def source(path, records, **options):
    return open_source(DataOptions(data=str(written(path, records)), **options))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, suffix) for suffix in ("jsonl", "parquet") for name in READ), *((name, "csv") for name in CSV)],
)
def test_a_data_set_is_recognised_and_read_alike_by_its_name(tmp_path, caplog, name, suffix):
    schema, record, (prompt, domain, extra), expected = READ[name]
    opened = source(tmp_path / f"d.{suffix}", [record])
    found = list(opened.pairs())
    assert [(pair.id, pair.fact, pair.hallucination) for pair in found] == expected
    assert {(pair.prompt, pair.domain) for pair in found} == {(prompt, domain)}
    assert [dict(pair.extra) for pair in found] == [extra] * len(found)
    assert set(opened.scan().groups.numbers()) == {0}
    (said,) = [line for line in caplog.messages if "read as" in line]
    assert f": read as {schema} (" in said
    assert "prompt from " in said and "fact from " in said and "hallucination from " in said
    named = source(tmp_path / f"d.{suffix}", [record], schema=schema)
    assert list(named.pairs()) == found
    assert named.scan().digest == opened.scan().digest
    assert len(opened.reading()["schema"]) == 1


def test_every_layout_of_pairs_and_every_schema_that_is_not_read_has_a_record_here():
    read = {layout_of(record).title for _, record, _, _ in READ.values()}
    assert read == {layout.title for layout in LAYOUTS if layout.values is not None and layout.holds == PAIRS}
    refused = {layout_of(record).title for records in REFUSED.values() for record in records}
    assert refused == {layout.title for layout in LAYOUTS if layout.holds == GOLD}


@pytest.mark.parametrize("schema", REFUSED)
def test_data_without_pairs_is_answered_in_one_line_that_says_what_it_is(tmp_path, schema):
    for record in REFUSED[schema]:
        for chosen in ("auto", schema):
            with pytest.raises(InputError) as caught:
                source(tmp_path / "d.jsonl", [record], schema=chosen).scan()
            line = str(caught.value)
            assert line.isprintable()
            assert "questions with right answers only" in line
            assert "--columns prompt=NAME fact=NAME hallucination=NAME" in line
            with pytest.raises(InputError, match=re.escape(line)):
                bluffscope.lint(tmp_path / "d.jsonl", schema=chosen)


@pytest.mark.parametrize("name", READ)
def test_fields_named_as_those_of_a_pair_and_columns_come_first(tmp_path, caplog, name):
    record = {key: value for key, value in READ[name][1].items() if key not in ("id", "prompt", "domain")}
    literal = {**record, "prompt": "p", "fact": "f", "hallucination": "h"}
    (pair,) = source(tmp_path / "d.jsonl", [literal]).pairs()
    assert (pair.id, pair.prompt, pair.fact, pair.hallucination) == ("0", "p", "f", "h")
    assert set(pair.extra) == set(record)
    columns = ("prompt=p", "fact=f", "hallucination=h")
    other = {**record, "p": "x", "f": "y", "h": "z"}
    (pair,) = source(tmp_path / "d.jsonl", [other], columns=columns).pairs()
    assert (pair.prompt, pair.fact, pair.hallucination) == ("x", "y", "z")
    assert not caplog.messages


def test_what_is_left_out_is_counted_with_its_reason_and_said_once(tmp_path, caplog):
    arc = READ["ARC"][1]
    records = [
        arc | {"id": "a"},
        arc | {"id": "b", "answerKey": ""},
        arc | {"id": "c", "answerKey": "Z"},
        arc | {"id": "d", "answerKey": ""},
        arc | {"id": "e", "choices": {"text": ["bread"], "label": ["B"]}},
    ]
    opened = source(tmp_path / "d.jsonl", records)
    assert [pair.id for pair in opened.pairs()] == ["a-1", "a-2"]
    reasons = {"no answer is given": 2, "the answer is none of the choices": 1, "no text in 'each wrong choice'": 1}
    assert opened.reading()["left_out"] == reasons
    list(opened.pairs())
    (said,) = [line for line in caplog.messages if "left out" in line]
    assert said.endswith(
        "left out: 2 x no answer is given; 1 x the answer is none of the choices; 1 x no text in 'each wrong choice'"
    )
    caplog.clear()
    report = bluffscope.lint(tmp_path / "d.jsonl")
    assert report.rows == 2
    assert [line for line in caplog.messages if "left out" in line] == [said]


def test_a_source_of_which_everything_is_left_out_says_why(tmp_path):
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    record = {"prompt": turns, "chosen": [turns[1]], "rejected": [turns[1]]}
    system = record | {"prompt": [{"role": "system", "content": "s"}, turns[0]]}
    for call in (lambda path: open_source(DataOptions(data=str(path))).scan(), bluffscope.lint):
        with pytest.raises(
            InputError, match="nothing in it to measure: 1 x a conversation of more than one exchange, .*; 1 x a"
        ):
            call(written(tmp_path / "d.jsonl", [record, system]))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("CounterFact", {"requested_rewrite": {"prompt": "{} is"}}, "KeyError: 'subject'"),
        ("CounterFact", {"requested_rewrite": None}, "not laid out like CounterFact"),
        ("ARC", {"choices": None}, "not laid out like multiple choice"),
        ("TruthfulQA, multiple choice", {"mc2_targets": {"choices": ["a"], "labels": []}}, "ValueError"),
        ("MMLU", {"choices": ["a", {"b": 1}], "answer": 0}, "holds an object"),
    ],
)
def test_a_record_of_another_layout_is_named_with_its_place(tmp_path, name, change, says):
    record = READ[name][1]
    with pytest.raises(InputError, match=says) as caught:
        source(tmp_path / "d.jsonl", [record, record | {"id": "x"} | change]).scan()
    assert "d.jsonl: line 2 (pair " in str(caught.value)
    report = bluffscope.lint(tmp_path / "d.jsonl")
    assert says.split(":")[0] in report.of("unreadable-row")[0].message


def test_each_file_of_a_folder_is_read_as_what_it_is(tmp_path, caplog):
    folder = tmp_path / "d"
    folder.mkdir()
    written(folder / "1.jsonl", [HALUEVAL, HALUEVAL])
    written(folder / "2.jsonl", [{"prompt": "p", "fact": "f", "hallucination": "h"}])
    written(folder / "3.jsonl", [HALUEVAL])
    written(folder / "4.csv", [OLD])
    opened = open_source(DataOptions(data=str(folder), domain_from="file"))
    assert [pair.id for pair in opened.pairs()] == ["0", "1", "2", "3", "4-1", "4-2", "4-3"]
    assert opened.scan().domains == {"1": 2, "2": 1, "3": 1, "4": 3}
    assert len([line for line in caplog.messages if "read as" in line]) == 2


def test_an_option_of_the_user_goes_before_what_a_schema_takes(tmp_path):
    (pair,) = source(tmp_path / "d.jsonl", [COUNTERFACT], schema="counterfact", columns=("domain=pararel_idx",)).pairs()
    assert (pair.id, pair.domain, dict(pair.extra)) == ("17", "4", {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schema": "truthfulqq"}, "--schema 'truthfulqq': unknown; use auto or one of truthfulqa, halueval"),
        ({"schema": "dpo", "columns": ("fact=a",)}, "--schema dpo and --columns fact=... contradict"),
        (
            {"schema": "fever"},
            "line 1: --schema fever needs the fields 'claim', 'label'; the fields here are 'kno",
        ),
    ],
)
def test_a_schema_that_is_unknown_or_does_not_fit_is_refused(tmp_path, options, says):
    with pytest.raises(InputError, match=re.escape(says)):
        source(tmp_path / "d.jsonl", [HALUEVAL], **options).scan()


def test_tables_in_memory_take_a_schema_too(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert bluffscope.lint(pl.DataFrame([TRUTHFULQA])).rows == 3
    assert bluffscope.lint([HALUEVAL], schema="halueval").rows == 1
    assert (
        bluffscope.lint([{"q": "p", "a": ["f", "g"]}], columns=["prompt=q", "fact=a[0]", "hallucination=a[1]"]).rows
        == 1
    )
