"""Paths into fields, lists of completions, and prompts composed of fields."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.paths import FieldError, Template, picked
from bluffscope.pairs.shapes import MOST_PAIRS

NESTED = {
    "q": "Is Ulmo deep?",
    "targets": {"choices": ["Yes", "No", "Never"], "labels": [1, 0, 0]},
    "wrong": [{"text": "No"}, {"text": "Never"}],
    "a.b": "exact",
    "a": {"b": "nested", "c d": 4.5},
    "cells": '["x", {"y": "z"}]',
}


def source(tmp_path, records, **options):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return open_source(DataOptions(data=str(path), **options))


def texts(opened):
    return [(pair.id, pair.fact, pair.hallucination) for pair in opened.pairs()]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("q", "Is Ulmo deep?"),
        ("targets.choices[0]", "Yes"),
        ("targets.choices[-1]", "Never"),
        ("targets.choices[*]", ["Yes", "No", "Never"]),
        ("targets.choices", ["Yes", "No", "Never"]),
        ("wrong[*].text", ["No", "Never"]),
        ("wrong[1].text", "Never"),
        ("a.b", "exact"),
        ("a.c d", 4.5),
        ("cells[0]", "x"),
        ("cells[1].y", "z"),
    ],
)
def test_a_path_leads_into_a_field_and_an_exact_name_beats_it(path, value):
    assert picked(path, NESTED) == value


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("none", "field 'none' is missing; the fields here are 'q', 'targets'"),
        ("none.x[0]", "field 'none' is missing"),
        ("targets.chosen[0]", "'targets.chosen[0]': no field 'chosen' to be found; there are 'choices', 'labels'"),
        ("targets.choices[3]", "'targets.choices[3]': no item 3 in a list of 3"),
        ("targets[0]", "'targets[0]': no list before [0]"),
        ("q[*]", "'q[*]': no list before [*]"),
        ("q.x", "'q.x': no field 'x' to be found"),
        ("wrong.text", "'wrong.text': no field 'text' to be found"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(tmp_path, path, says):
    with pytest.raises(FieldError, match=re.escape(says)):
        picked(path, NESTED)
    with pytest.raises(InputError, match=r"line 1 \(pair 0\): ") as caught:
        source(tmp_path, [NESTED], columns=("prompt=q", f"fact={path}", "hallucination=q")).scan()
    assert says.split(";")[0].removeprefix("field ").split(" is missing")[0].split("'")[1] in str(caught.value)


NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(NAME, st.integers() | st.lists(st.integers(), max_size=2), max_size=3), NAME)
def test_any_name_whatever_is_a_field_or_one_line(fields, name):
    try:
        found = picked(name, fields)
    except FieldError as error:
        assert str(error).isprintable()
        assert name not in fields
    else:
        assert found == fields[name] if name in fields else found is not None


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_columns_take_paths_and_the_fields_they_start_from_are_not_carried(tmp_path, suffix):
    record = {key: NESTED[key] for key in ("q", "targets", "wrong")} | {"year": 2001}
    path = tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        pl.DataFrame([record]).write_parquet(path)
    else:
        path.write_text(json.dumps(record) + "\n")
    columns = ("prompt=q", "fact=targets.choices[0]", "hallucination=wrong[*].text")
    opened = open_source(DataOptions(data=str(path), columns=columns))
    assert texts(opened) == [("0-1", "Yes", "No"), ("0-2", "Yes", "Never")]
    assert [dict(pair.extra) for pair in opened.pairs()] == [{"year": 2001}] * 2


def test_paths_into_a_table_of_text_read_the_json_in_its_cells(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('q,answers\nWho?,"[""Ada"", ""Jo""]"\n')
    opened = open_source(
        DataOptions(data=str(path), columns=("prompt=q", "fact=answers[0]", "hallucination=answers[1]"))
    )
    assert texts(opened) == [("0", "Ada", "Jo")]


LITERAL = {"id": "n", "prompt": "p", "fact": ["a", "b"], "hallucination": ["x", "y", "z"]}


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        ({}, {}, [("n-1", "a", "x"), ("n-2", "b", "y"), ("n-3", "a", "z")]),
        ({"hallucination": "x"}, {}, [("n-1", "a", "x"), ("n-2", "b", "x")]),
        ({"hallucination": "x", "id": None}, {}, [("0-1", "a", "x"), ("0-2", "b", "x")]),
        ({"hallucination": ["x"], "fact": ["a"]}, {}, [("n", "a", "x")]),
        ({"hallucination": ["x", None, ""], "fact": [1, 0.5]}, {}, [("n-1", "1", "x"), ("n-2", "0.5", "x")]),
        (
            {},
            {"pairing": "all"},
            [(f"n-{k}", fact, hall) for k, (fact, hall) in enumerate(((f, h) for f in "ab" for h in "xyz"), 1)],
        ),
    ],
)  # fmt: skip
def test_lists_become_pairs_of_one_group_with_ids_of_their_own(tmp_path, change, options, expected):
    opened = source(tmp_path, [LITERAL | change], **options)
    assert texts(opened) == expected
    assert set(opened.scan().groups.numbers()) == {0}
    assert opened.scan().count == len(expected)
    assert bluffscope.lint(tmp_path / "d.jsonl", **options).rows == len(expected)


def test_row_numbers_as_ids_count_records_so_that_no_two_pairs_share_one(tmp_path):
    plain = {"prompt": "q", "fact": "f", "hallucination": "h"}
    records = [LITERAL | {"id": None}, plain, plain | {"fact": []}, plain, LITERAL | {"id": None}]
    opened = source(tmp_path, records)
    ids = ["0-1", "0-2", "0-3", "1", "3", "4-1", "4-2", "4-3"]
    assert [pair.id for pair in opened.pairs()] == ids
    assert [pair.index for pair in opened.pairs()] == list(range(8))
    assert opened.reading() == {"left_out": {"no text in 'fact'": 1}}


def test_a_limit_counts_pairs(tmp_path):
    assert texts(source(tmp_path, [LITERAL, LITERAL | {"id": "m"}], limit=4))[-1] == ("m-1", "a", "x")
    assert source(tmp_path, [LITERAL], limit=2).scan().count == 2


def test_carried_lists_are_the_same_text_in_each_pair_and_places_stay_those_of_the_file(tmp_path):
    opened = source(tmp_path, [LITERAL | {"tags": [1, {"a": "é"}], "year": 3}])
    assert [dict(pair.extra) for pair in opened.pairs()] == [{"tags": '[1, {"a": "é"}]', "year": 3}] * 3
    with pytest.raises(InputError, match=r"d.jsonl: line 2 \(pair 4, id 'm-2'\): field 'fact' holds a list"):
        source(tmp_path, [LITERAL, LITERAL | {"id": "m", "fact": ["a", ["b"]]}]).scan()
    with pytest.raises(InputError, match="id 'n-1' is taken by .*line 1"):
        source(tmp_path, [LITERAL, LITERAL | {"id": "n-1", "fact": ["a"], "hallucination": ["b"]}]).scan()


def test_a_record_may_not_become_endless_pairs(tmp_path):
    many = [str(number) for number in range(MOST_PAIRS // 10)]
    record = LITERAL | {"fact": many, "hallucination": many}
    assert source(tmp_path, [record]).scan().count == len(many)
    with pytest.raises(InputError, match=r"line 1 \(pair 0\): the record makes 10,000 pairs; at most 1,000"):
        source(tmp_path, [record], pairing="all").scan()


QUESTION = {
    "knowledge": "Ulmo is deep.",
    "question": "Is it?",
    "fact": "Yes",
    "hallucination": "No",
    "more": {"x": [7]},
}


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (r"{knowledge}\nQ: {question}\nA:", "Ulmo is deep.\nQ: Is it?\nA:"),
        (r"{{{question}}}\t\\n", "{Is it?}\t\\n"),
        ("{more.x[0]}: {question}", "7: Is it?"),
    ],
)
def test_a_template_composes_prompts(tmp_path, template, prompt):
    (pair,) = source(tmp_path, [QUESTION], prompt_template=template).pairs()
    assert (pair.prompt, pair.fact, pair.hallucination) == (prompt, "Yes", "No")
    assert pair.extra["knowledge"] == "Ulmo is deep."
    (own,) = source(tmp_path, [QUESTION | {"prompt": "p"}], prompt_template=template).pairs()
    assert own == pair


def test_a_template_goes_before_the_prompt_of_a_schema(tmp_path, caplog):
    record = {"knowledge": "k", "question": "q", "right_answer": "r", "hallucinated_answer": "h"}
    (pair,) = source(tmp_path, [record], prompt_template="{knowledge} {question}").pairs()
    assert (pair.prompt, pair.fact, pair.hallucination) == ("k q", "r", "h")
    assert "prompt from" not in caplog.text


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("Q:", "it names no field"),
        ("{question", "{ names no field; write {{ for a brace"),
        ("{question} }", "} names no field"),
        ("{}: {question}", "{} names no field"),
        ("{topic}", "line 1 (pair 0): --prompt-template: field 'topic' is missing; the fields here are 'knowledge'"),
        ("{more.y}", "'more.y': no field 'y' to be found; there are 'x'"),
        ("{more}", "field 'more' of --prompt-template is no text"),
        ("{more.x}", "field 'more.x' of --prompt-template is no text"),
        ("{empty}", "field 'empty' of --prompt-template is empty"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(tmp_path, template, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        source(tmp_path, [QUESTION | {"empty": None}], prompt_template=template).scan()
    assert str(caught.value).isprintable()


def test_a_template_and_a_mapped_prompt_contradict_each_other(tmp_path):
    with pytest.raises(InputError, match="--prompt-template and --columns prompt=... contradict"):
        source(tmp_path, [QUESTION], prompt_template="{question}", columns=("prompt=question",))


@given(st.text(max_size=20))
def test_any_template_whatever_is_read_or_refused(text):
    try:
        template = Template.parse(text)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert any(name for _, name in template.parts)


def test_conversations_of_preferences_are_reached_by_paths_where_prompts_may_be_conversations(tmp_path):
    turns = [{"role": role, "content": f"{role} says"} for role in ("system", "user", "assistant", "user")]
    answers = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    columns = ("prompt=prompt", "fact=chosen[-1].content", "hallucination=rejected[-1].content")
    (pair,) = source(tmp_path, [{"prompt": turns, **answers}], columns=columns, chat=True).pairs()
    assert (json.loads(pair.prompt), pair.fact, pair.hallucination) == (turns, "chosen", "rejected")
