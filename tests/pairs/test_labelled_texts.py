"""Labelled texts: literal fields, published layouts, labels, spans, groups; what is left out is counted."""

from __future__ import annotations

import json
import random

import polars as pl
import pytest

from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.layout import LABELLED
from bluffscope.pairs.schemas import LAYOUTS, layout_of
from bluffscope.records import PAIRS, PROMPTED, STATEMENTS

READ = {
    "general": (
        "halueval",
        {
            "ID": "g7",
            "user_query": "How deep is Ulmo?",
            "chatgpt_response": "Ulmo is two miles deep.",
            "hallucination": "yes",
            "hallucination_spans": ["two miles", "no such words"],
        },
        ("g7", "How deep is Ulmo?", "Ulmo is two miles deep.", False, None, {"spans": "[[8, 17]]"}),
    ),
    "samples": (
        "halueval",
        {"knowledge": "k", "question": "Who is Ada?", "answer": "a baker", "hallucination": "no"},
        ("0", "Who is Ada?", "a baker", True, None, {"knowledge": "k"}),
    ),
    "replies": (
        "halueval",
        {"knowledge": "k", "dialogue_history": "Hello", "response": "Hi", "hallucination": "yes"},
        ("0", "Hello", "Hi", False, None, {"knowledge": "k"}),
    ),
    "summaries": (
        "halueval",
        {"document": "Ulmo is deep.", "summary": "deep", "hallucination": "no"},
        ("0", "Ulmo is deep.", "deep", True, None, {}),
    ),
    "fever": (
        "fever",
        {"id": 75, "label": "REFUTES", "claim": "Ulmo is dry.", "evidence": [["Ulmo"]]},
        ("75", "", "Ulmo is dry.", False, None, {"evidence": '[["Ulmo"]]'}),
    ),
    "ragtruth": (
        "ragtruth",
        {
            "id": "3",
            "source_id": "15",
            "model": "m",
            "labels": [{"start": 8, "end": 12, "text": "deep", "label_type": "Evident Conflict"}],
            "response": "Ulmo is deep.",
        },
        ("3", "", "Ulmo is deep.", False, "15", {"model": "m", "spans": "[[8, 12]]"}),
    ),
    "longfact": (
        "longfact",
        {
            "subject": "lakes",
            "conversation": [{"role": "user", "content": "Ulmo?"}, {"role": "assistant", "content": "It is dry."}],
            "annotations": [
                {"span": "dry", "label": "Not Supported", "index": 6, "note": ""},
                {"span": "It", "label": "Supported", "index": 0, "note": ""},
            ],
        },
        ("0", "Ulmo?", "It is dry.", False, None, {"spans": "[[6, 9]]"}),
    ),
    "llmsknow": (
        "llmsknow",
        {
            "raw_question": "Who is Ada?",
            "question": "Q: Who is Ada? A:",
            "model_answer": "Ada is a baker.",
            "automatic_correctness": 1,
        },
        ("0", "Q: Who is Ada? A:", "Ada is a baker.", True, "Who is Ada?", {}),
    ),
    "geometry of truth": (
        "geometry-of-truth",
        {"statement": "Besk is in Runia.", "label": 1, "city": "Besk"},
        ("0", "", "Besk is in Runia.", True, "Besk", {"city": "Besk"}),
    ),
}
"""By name: the schema, a record, and id, prompt, completion, label, group and carried fields of its text."""


def written(path, records):
    if path.suffix == ".parquet":
        pl.DataFrame(records).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def source(path, records, **options):
    return open_source(DataOptions(data=str(written(path, records)), **options))


def said_of(text):
    return text.id, text.prompt, text.completion, text.label, text.group, dict(text.extra)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", READ)
def test_a_data_set_of_labelled_texts_is_recognised_and_read(tmp_path, caplog, name, suffix):
    schema, record, expected = READ[name]
    opened = source(tmp_path / f"d.{suffix}", [record])
    found = list(opened.items())
    assert [said_of(text) for text in found] == [expected]
    assert opened.scan().arrangement == (PROMPTED if expected[1] else STATEMENTS)
    (said,) = [line for line in caplog.messages if "read as" in line]
    assert f": read as {schema} (" in said and "label from " in said
    named = source(tmp_path / f"d.{suffix}", [record], schema=schema)
    assert list(named.items()) == found
    with pytest.raises(InputError, match="labelled texts, where pairs are needed"):
        list(named.pairs())


def test_every_layout_of_labelled_texts_has_a_record_here():
    read = {layout_of(record).title for _, record, _ in READ.values()}
    assert read == {layout.title for layout in LAYOUTS if layout.holds == LABELLED}


def test_the_same_label_in_every_way_of_writing_it(tmp_path):
    true, false = [True, 1, 1.0, "true", "TRUE", "1", "correct", "T"], [False, 0, "false", "0", "incorrect", "f", "0.0"]
    for label in (*true, *false[:-1]):
        (text,) = source(tmp_path / "d.jsonl", [{"text": "Ulmo is deep.", "label": label}]).items()
        assert text.label is (label in true), label
    (tmp_path / "d.csv").write_text("text,label,completion_note\nUlmo is deep.,1,x\nUlmo is dry.,false,\n")
    assert [text.label for text in open_source(DataOptions(data=str(tmp_path / "d.csv"))).items()] == [True, False]


@pytest.mark.parametrize("label", ["maybe", 2, [1], {"a": 1}])
def test_a_label_that_nobody_explained_is_named_with_what_to_do(tmp_path, label):
    with pytest.raises(InputError) as caught:
        source(tmp_path / "d.jsonl", [{"text": "a", "label": True}, {"text": "Ulmo is deep.", "label": label}]).scan()
    assert "d.jsonl: line 2 (text 1): field 'label' " in str(caught.value)
    assert str(caught.value).isprintable()


def test_labels_of_ones_own_and_what_is_left_out(tmp_path, caplog):
    records = [
        {"claim_text": f"Lake {k} is deep.", "verdict": said} for k, said in enumerate(["YES", "no", "?", None, ""])
    ]
    columns, labels = ("text=claim_text", "label=verdict"), ("true=yes", "false=No")
    opened = source(tmp_path / "d.jsonl", records, columns=columns, labels=labels)
    assert [(text.id, text.label) for text in opened.items()] == [("0", True), ("1", False)]
    assert opened.reading()["left_out"] == {"no label": 2, "label '?'": 1}
    assert [line for line in caplog.messages if "left out" in line][0].endswith("2 x no label; 1 x label '?'")
    assert opened.scan().labels == (1, 1)
    many = [{"text": "a b", "label": f"x{k}"} for k in range(50)] + [{"text": "c d", "label": "yes"}]
    opened = source(tmp_path / "e.jsonl", many, labels=labels)
    opened.scan()
    assert sum(opened.reading()["left_out"].values()) == 50 and len(opened.reading()["left_out"]) == 21


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("yes=true",), "expected true=LABEL or false=LABEL"),
        (("true=",), "expected true=LABEL or false=LABEL"),
        (("true=a",), "nothing is false; add false=LABEL"),
        (("true=a", "false=A"), "both true and false"),
    ],
    ids=["side", "empty", "one", "both"],
)
def test_labels_that_make_no_sense_are_refused(tmp_path, labels, said):
    with pytest.raises(InputError, match=said):
        source(tmp_path / "d.jsonl", [{"text": "a", "label": "a"}], labels=labels)


def test_a_data_set_s_labels_can_be_named_otherwise(tmp_path):
    record = {"id": 1, "label": "NOT ENOUGH INFO", "claim": "Ulmo is dry."}
    labels = ("true=SUPPORTS", "false=REFUTES", "false=not enough info")
    (text,) = source(tmp_path / "d.jsonl", [record], labels=labels).items()
    assert not text.label
    with pytest.raises(InputError, match="nothing in it to measure: 1 x label 'NOT ENOUGH INFO'"):
        source(tmp_path / "d.jsonl", [record]).scan()


def test_prompts_and_statements(tmp_path):
    prompted = [{"prompt": "Ulmo is", "completion": said, "label": said == "deep"} for said in ("deep", "dry")]
    opened = source(tmp_path / "d.jsonl", prompted)
    assert {text.arrangement for text in opened.items()} == {PROMPTED}
    assert next(opened.items()).texts("auto") == ("Ulmo is", ("Ulmo is deep",))
    some = [*prompted, {"prompt": None, "completion": "Besk is in Runia.", "label": 1}]
    assert {text.arrangement for text in source(tmp_path / "e.jsonl", some).items()} == {STATEMENTS}
    for record in ({"completion": "", "prompt": "p", "label": 1}, {"text": "  ", "label": 1}):
        with pytest.raises(InputError, match="is empty; give it a text or drop the text"):
            source(tmp_path / "f.jsonl", [record]).scan()


def test_groups_are_the_source_s_own_or_follow_from_the_texts(tmp_path):
    texts = [("g1", "a b", 1), ("g1", "c d", 0), (None, "a b", 0), ("g2", "e f", 1)]
    records = [{"group": group, "text": text, "label": label} for group, text, label in texts]
    opened = source(tmp_path / "d.jsonl", records)
    assert opened.scan().own_groups
    labels = [label for _, label in opened.grouped()]
    assert labels[0] == labels[1] == "g1" and labels[3] == "g2" and labels[2].startswith("g") and len(set(labels)) == 3
    own = source(tmp_path / "d.jsonl", [{**record, "group": None} for record in records])
    labels = [label for _, label in own.grouped()]
    assert not own.scan().own_groups and labels[0] == labels[2] and len(set(labels)) == 3
    assert source(tmp_path / "d.jsonl", records, cluster_by="completion").scan().groups.numbers().tolist() != [0] * 4
    shared = [{"prompt": "p", "completion": word, "label": 1} for word in ("x", "y")]
    assert len(set(source(tmp_path / "e.jsonl", shared).scan().groups.tolist())) == 1


def test_the_order_of_texts_changes_no_group(tmp_path):
    records = [{"id": str(k), "prompt": f"p{k // 3}", "completion": f"c{k}", "label": k % 2} for k in range(30)]
    before = {text.id: label for text, label in source(tmp_path / "d.jsonl", records).grouped()}
    random.Random(0).shuffle(records)
    opened = source(tmp_path / "e.jsonl", records)
    assert {text.id: label for text, label in opened.grouped()} == before


@pytest.mark.parametrize("spans", [[[0, 40]], [[3, 3]], [[1]], [["a", 2]], "x", 3, [[-1, 2]], [[True, 2]]], ids=str)
def test_spans_that_are_none_are_refused_in_one_line(tmp_path, spans):
    with pytest.raises(InputError, match="line 1 .text 0.: field 'spans'"):
        source(tmp_path / "d.jsonl", [{"prompt": "p", "completion": "a b c", "label": 0, "spans": spans}]).scan()


def test_spans_are_carried_in_their_order(tmp_path):
    spans = [{"start": 2, "end": 3, "why": "x"}, [0, 1]]
    (text,) = source(tmp_path / "d.jsonl", [{"prompt": "p", "completion": "a b", "label": 0, "spans": spans}]).items()
    assert dict(text.extra) == {"spans": "[[0, 1], [2, 3]]"}


def test_prompts_of_responses_are_taken_from_the_file_beside_them(tmp_path, caplog):
    record = READ["ragtruth"][1]
    prompts = [{"source_id": 15, "source_info": "s", "task_type": "Summary", "prompt": "Summarize: Ulmo."}]
    written(tmp_path / "source_info.jsonl", prompts)
    alone = source(tmp_path / "response.jsonl", [record])
    for opened in (alone, open_source(DataOptions(data=str(tmp_path)))):
        (text,) = opened.items()
        assert (text.prompt, text.completion) == ("Summarize: Ulmo.", "Ulmo is deep.")
    assert any("prompts of 1 sources from " in line for line in caplog.messages)
    with pytest.raises(InputError, match="prompts of labelled texts; give the file of the texts, or the folder"):
        open_source(DataOptions(data=str(tmp_path / "source_info.jsonl"))).scan()


def test_pairs_and_labelled_texts_do_not_mix(tmp_path):
    written(tmp_path / "a.jsonl", [{"text": "Ulmo is deep.", "label": 1}])
    written(tmp_path / "b.jsonl", [{"prompt": "p", "fact": "f", "hallucination": "h"}])
    with pytest.raises(InputError, match="pairs and labelled texts in one source"):
        open_source(DataOptions(data=str(tmp_path))).scan()
    with pytest.raises(InputError, match="contradict each other: a labelled text has no fact"):
        open_source(DataOptions(data=str(tmp_path / "a.jsonl"), columns=("fact=a", "label=b")))


@pytest.mark.parametrize("other", ["prompt", "completion"])
def test_a_text_stands_alone(tmp_path, other):
    with pytest.raises(InputError, match=f"fields 'text' and '{other}': a text stands alone"):
        source(tmp_path / "d.jsonl", [{"text": "a b", other: "c", "label": 1}]).scan()
    (text,) = source(tmp_path / "e.jsonl", [{"text": "a b", other: "", "label": 1}]).items()
    assert (text.prompt, text.completion) == ("", "a b")


def test_literal_fields_of_pairs_come_before_labels(tmp_path):
    record = {"prompt": "p", "fact": "f", "hallucination": "h", "label": "x"}
    opened = source(tmp_path / "d.jsonl", [record])
    assert opened.scan().arrangement == PAIRS
    assert dict(next(opened.pairs()).extra) == {"label": "x"}


def test_a_long_text_and_a_hostile_label_end_in_one_line(tmp_path):
    long = "word " * 4_000_000
    with pytest.raises(InputError, match="longer than 16 MiB"):
        source(tmp_path / "d.jsonl", [{"text": long, "label": 1}]).scan()
    with pytest.raises(InputError) as caught:
        source(tmp_path / "e.jsonl", [{"text": "a", "label": "\x1b[31m\n" * 100}]).scan()
    assert str(caught.value).isprintable()
