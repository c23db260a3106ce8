"""A run over pairs against one over a model's answers to the same questions."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import bluffscope
from bluffscope.compare.agreement import MIXED_SCHEMA
from bluffscope.compare.matching import question_of
from bluffscope.compare.runs import compare_all
from bluffscope.errors import InputError
from bluffscope.report.comparison import render_comparison
from bluffscope.report.result_files import write_comparison
from bluffscope.stats import analyse_labelled, analyse_table

N = 30
WORDS = ["red", "blue", "green", "old", "new", "small", "large", "warm"]


def completion(k, n):
    return " ".join(WORDS[(k * 7 + n * 3 + step) % len(WORDS)] for step in range(1 + (k + n) % 3))


def question(k):
    return f"What is the capital of land {k}?"


def pairs(ids="q{}", prompt="Q: {}\nA:", of=range(N)):
    return [
        {
            "id": ids.format(k),
            "prompt": prompt.format(question(k)),
            "fact": completion(k, 0),
            "hallucination": completion(k, 1),
        }
        for k in of
    ]


def texts(group="q{}", prompt="Q: {}\nA:", of=range(N), judged=True):
    about = {"verdict": "x", "label_by": "judge", "judge_reason": "x"} if judged else {}
    return [
        {
            **{"id": f"{group.format(k)}/{n}", "group": group.format(k), "prompt": prompt.format(question(k))},
            **{"completion": completion(k, n + 2), "label": (k + n) % 2 == 0, **about},
        }
        for k in of
        for n in range(3)
    ]


@pytest.fixture(scope="module")
def make(tmp_path_factory, tiny_model):
    """A run over items, without SAEs."""
    root = tmp_path_factory.mktemp("runs")

    def run(name, items):
        if not (root / name).exists():
            file = root / f"{name}.jsonl"
            file.write_text("".join(json.dumps(one) + "\n" for one in items))
            options = {"model": str(tiny_model), "sae": "none", "layers": (1, 3), "device": "cpu", "logprob": True}
            bluffscope.analyze(str(file), out=root / name, **options)
        return bluffscope.read_run(root / name)

    return run


@pytest.fixture(scope="module")
def of_pairs(make):
    return make("pairs", pairs())


@pytest.fixture(scope="module")
def of_texts(make):
    return make("texts", texts())


def printed(result):
    console = Console(width=130)
    with console.capture() as captured:
        console.print(render_comparison(result))
    return captured.get()


def test_each_side_has_the_effects_and_verdicts_that_its_own_statistics_give(of_pairs, of_texts, tmp_path):
    result = compare_all([of_pairs, of_texts])
    (other,) = result.others
    assert (other.shared, other.compared, other.own_answers, other.pairs_first) == (N, (N, 3 * N), True, True)
    rows = result.rows
    assert rows.schema == MIXED_SCHEMA
    of = {
        "first": analyse_table(of_pairs.metrics, of_pairs.items).rows.filter(scope="pooled"),
        "other": analyse_labelled(of_texts.metrics, of_texts.items, measured=of_texts.measured).rows.filter(
            scope="pooled"
        ),
    }
    assert rows.height > 10
    for row in rows.filter(scope="pooled").iter_rows(named=True):
        for side, name in (("first", "dz"), ("other", "g")):
            known = of[side].filter(metric=row["metric"]).row(0, named=True)
            for ours, theirs in (
                ("effect", name),
                ("effect_lo", f"{name}_lo"),
                ("adj_effect", f"adj_{name}"),
                ("auroc", "auroc"),
            ):
                value, expected = row[f"{ours}_{side}"], known[theirs]
                assert (value is None) == (expected is None or math.isnan(expected)), (row["metric"], ours)
                assert value is None or value == pytest.approx(expected)
            assert row[f"n_{side}"] == known["n"]
        signs = [np.sign(of[side].filter(metric=row["metric"])["mean_diff"][0]) for side in ("first", "other")]
        assert row["same_sign"] == (signs[0] == signs[1])
    files = write_comparison(result, tmp_path / "out")
    assert pl.read_parquet(files[0]).equals(rows)
    text = printed(result)
    assert "30 pairs and 90 texts to 30 shared questions (of 30 in the first run and 90 in this one)" in text


def test_the_other_way_round_says_the_same(of_pairs, of_texts):
    forth, back = compare_all([of_pairs, of_texts]).rows, compare_all([of_texts, of_pairs]).rows
    names = ("n", "effect", "effect_lo", "adj_effect", "auroc", "verdict")
    swapped = {f"{name}_first": f"{name}_other" for name in names}
    for row in forth.filter(scope="pooled").iter_rows(named=True):
        mirror = back.filter(scope="pooled", metric=row["metric"]).row(0, named=True)
        for ours, theirs in swapped.items():
            assert row[ours] == mirror[theirs] or row[ours] == pytest.approx(mirror[theirs]), (row["metric"], ours)
        assert row["agrees"] == mirror["agrees"] or {row["verdict_first"], row["verdict_other"]} != {"separates"}


def test_only_shared_questions_count_by_text_or_by_id_with_a_composed_prompt(make, of_texts):
    by_text = compare_all([make("half", pairs(ids="other-{}", of=range(0, N, 2))), of_texts])
    assert (by_text.others[0].shared, by_text.others[0].compared) == (15, (15, 45))
    composed = compare_all([make("composed", pairs(prompt="Some facts.\nAnswer this: {}", of=range(20))), of_texts])
    assert (composed.others[0].shared, composed.others[0].compared) == (20, (20, 60))


def test_equal_ids_of_other_questions_are_not_the_same_question(make, of_texts):
    others = [{**one, "prompt": f"The largest town of region {k} is"} for k, one in enumerate(pairs())]
    result = compare_all([make("others", others), of_texts])
    assert (result.others[0].shared, result.others[0].compared) == (0, (30, 90))
    assert "no question is in both, so the whole runs are compared: 30 pairs and 90 texts" in printed(result)


def test_three_runs_of_mixed_kinds_are_refused(of_pairs, of_texts, make):
    with pytest.raises(InputError, match="one kind at a time"):
        compare_all([of_pairs, of_texts, make("half", pairs(ids="other-{}", of=range(0, N, 2)))])


def test_the_first_sentence_counts_what_carries_over(of_pairs, of_texts):
    result = compare_all([of_pairs, of_texts])
    verdicts = [
        *(("separates", "separates", True), ("separates", "separates", False), ("separates", "inconclusive", True)),
        *(("separates", "confounded", True), ("equivalent", "separates", True), ("inconclusive", "equivalent", True)),
    ]
    base = result.rows.filter(scope="pooled").head(1)
    rows = pl.concat(
        base.with_columns(
            metric=pl.lit(name),
            verdict_first=pl.lit(first),
            verdict_other=pl.lit(other),
            same_sign=pl.lit(sign),
            adj_effect_first=pl.lit(0.1),
            adj_effect_other=pl.lit(0.1),
        )
        for name, (first, other, sign) in zip("abcdef", verdicts, strict=True)
    )
    said = " ".join(printed(type(result)(result.first, result.others, rows)).split())
    assert said.startswith(
        "Of 4 metrics that separate the pairs, 1 separates the model's own answers with the same sign, 1 with the "
        "opposite sign, 2 do not; 1 more separates the model's own answers alone."
    )


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("Who wrote Emma?", "who wrote emma"),
        ("Q: Who wrote Emma?\nA:", "who wrote emma"),
        ("Q: Who wrote Ulysses?\nA: Joyce\n\nQ: Who  wrote\n Emma?\nA:", "who wrote emma"),
        ("Answer briefly.\nQuestion: Who wrote Emma?\nAnswer:", "who wrote emma"),
        (
            json.dumps([{"role": "system", "content": "x"}, {"role": "user", "content": "Who wrote Emma?"}]),
            "who wrote emma",
        ),
        ("[1, 2]", "[1, 2]"),
        ("", ""),
    ],
)
def test_the_question_of_a_prompt(prompt, asked):
    assert question_of(prompt) == asked
