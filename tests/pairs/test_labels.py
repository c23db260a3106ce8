"""A column of labels in place of completions is an error, and closed sets of answers are not."""

from __future__ import annotations

import polars as pl
import pytest

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.labels import labelled_side
from planted import clean_pairs, written


def rows(facts, halls):
    return [
        {"id": str(i), "prompt": f"Question {i}?", "fact": fact, "hallucination": hall}
        for i, (fact, hall) in enumerate(zip(facts, halls, strict=True))
    ]


ANSWERS = ["in Tova", "a red lake", "Ana", "yes, in May", "the baker", "seven legs"] * 5
LABELS = {
    "yes and no": ["no", "no", "yes"] * 10,
    "zero and one": [0, 1, 1] * 10,
    "decimals": ["0.0", "1.0", "1.0"] * 10,
    "True and False": ["True", "False"] * 15,
    "one value": ["yes"] * 30,
    "words": ["hallucinated", "factual", "Not hallucinated."] * 10,
    "grades": ["PASS", "FAIL"] * 15,
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_labels_are_refused_before_a_model_is_loaded_and_are_an_error_of_the_linter(tmp_path, labels, mirrored):
    sides = (LABELS[labels], ANSWERS) if mirrored else (ANSWERS, LABELS[labels])
    data = written(tmp_path / "d.jsonl", rows(*sides))
    column = "fact" if mirrored else "hallucination"
    with pytest.raises(InputError, match=f"d.jsonl: field '{column}' holds labels, not completions") as caught:
        bluffscope.analyze(data, model=str(tmp_path / "there is none"))
    assert "--columns fact=NAME hallucination=NAME" in str(caught.value)
    report = bluffscope.lint(data)
    (finding,) = report.of("labels-as-texts")
    assert report.failed
    assert f"The column of the {column} holds labels" in finding.message
    assert len(finding.pairs) == 20  # beside answers that are no numbers and no "yes"


def test_the_field_is_named_as_the_file_names_it(tmp_path):
    data = written(tmp_path / "d.jsonl", [{"q": "Where?", "answer": "in Tova", "label": "no"}] * 3)
    columns = ("prompt=q", "fact=answer", "hallucination=label")
    with pytest.raises(InputError, match="field 'label' holds labels.*such as 'no'"):
        open_source(DataOptions(data=str(data), columns=columns)).scan()


@pytest.mark.parametrize("value", [True, 0.5])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_truth_values_and_fractions_are_refused_with_the_same_advice(tmp_path, suffix, value):
    data = rows(["in Tova"] * 3, [value] * 3)
    path = written(tmp_path / "d.jsonl", data)
    if suffix == "parquet":
        path = tmp_path / "d.parquet"
        pl.DataFrame(data).write_parquet(path)
    with pytest.raises(InputError, match="field 'hallucination' holds labels, .*; map a column of true"):
        open_source(DataOptions(data=str(path))).scan()


CLOSED = {
    "yes and no": (["no", "yes"] * 15, ["yes", "no"] * 15),
    "True and False": (["True", "False"] * 15, ["False", "True"] * 15),
    "always the same": (["yes"] * 30, ["no"] * 30),
    "letters": (["A", "B", "C"] * 10, ["D", "A", "B"] * 10),
    "numbers": (["3", "four", "12 legs"] * 10, ["2", "5", "11"] * 10),
    "a sentence that answers the same": (["Yes, it does."] * 30, ["No."] * 30),
    "entailment": (["neutral", "entailment"] * 15, ["contradiction", "neutral"] * 15),
    "a few in free text": (["in Tova", "It depends", "Ana"] * 10, ["in Besk", "yes", "Bo"] * 10),
}


QUICK = ("yes and no",)


@pytest.mark.parametrize(
    "answers", [name if name in QUICK else pytest.param(name, marks=pytest.mark.thorough) for name in CLOSED]
)
def test_closed_sets_of_answers_pass(tmp_path, answers):
    for facts, halls in (CLOSED[answers], CLOSED[answers][::-1]):
        data = written(tmp_path / "d.jsonl", rows(facts, halls))
        assert open_source(DataOptions(data=str(data))).scan().count == 30
        assert not bluffscope.lint(data).of("labels-as-texts")


def test_one_pair_alone_is_no_column_of_labels():
    assert labelled_side("It is", "no") == "hallucination"
    assert not bluffscope.lint([*clean_pairs(2), *rows(["It is"], ["no"])]).of("labels-as-texts")
    assert not bluffscope.lint(rows(["It is"], ["no"])).of("labels-as-texts")
