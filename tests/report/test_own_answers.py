"""What a run over a model's own answers says first, by what its detectors found."""

from __future__ import annotations

import math

import polars as pl
import pytest

from bluffscope.detectors.classifiers import BASELINES
from bluffscope.detectors.evaluate import DETECTORS_SCHEMA
from bluffscope.report.answer import answer
from bluffscope.report.contents import read_contents
from bluffscope.report.own_answers import own_answers
from bluffscope.report.page import render_page
from bluffscope.report.results import Results
from made_texts import make_texts


def row(detector, auroc, half=0.05, gain=None, reason=None):
    named = {"detector": detector, "scope": "pooled", "n": 60, "reason": reason}
    if auroc is not None:
        named |= {"auroc": auroc, "lo": auroc - half, "hi": auroc + half, "ece": 0.1}
    if gain is not None:
        named |= {"gain": gain, "gain_lo": gain - half, "gain_hi": gain + half}
    return named


@pytest.fixture
def answers(tmp_path):
    """A run over judged answers with these detectors."""

    def make(*rows, stats=True, judged=True):
        folder = make_texts(tmp_path / "run", stats=stats)
        if judged:
            texts = pl.read_parquet(folder / "texts.parquet")
            about = {name: pl.lit("judge") for name in ("verdict", "label_by", "judge_reason")}
            texts.with_columns(**about).write_parquet(folder / "texts.parquet")
        if rows:
            pl.DataFrame(list(rows), schema=DETECTORS_SCHEMA).write_parquet(folder / "detectors.parquet")
        return read_contents(folder)

    return make


ALONE = [row("length", 0.5), row("logprob", 0.66), row("text", 0.58)]


def test_a_detector_that_tells_is_set_against_the_best_baseline_and_each_of_them(answers):
    contents = answers(*ALONE, row("residual", 0.75, gain=0.09), row("metrics", 0.9, gain=0.24))
    said = own_answers(contents)
    assert said[0].startswith(
        "The model gave 30 right and 30 wrong answers to 30 questions: 0 always answered right, 30"
    )
    assert said[1:] == (
        "Inside, right and wrong answers differ: a detector on residuals reaches AUROC 0.75 (0.70 to 0.80) on "
        "questions that it was not fitted to.",
        "The detector on residuals is better than the best baseline, log-probability (AUROC 0.66): +0.09 "
        "(+0.04 to +0.14).",
        "Length does not tell them apart by itself: AUROC 0.50 (0.45 to 0.55).",
        "Log-probability tells them apart by itself: AUROC 0.66 (0.61 to 0.71).",
        "The answer's wording tells them apart by itself: AUROC 0.58 (0.53 to 0.63).",
    )
    found = answer(Results.of(contents))
    assert found.own == said and found.alone is None
    page = render_page(contents).decode()
    assert all(sentence.replace("'", "&#39;") in page for sentence in said)


def test_where_nothing_tells_it_says_what_would_have_been_found(answers):
    said = own_answers(answers(*ALONE, row("residual", 0.53, half=0.07, gain=-0.13)))
    least = 0.5 + 0.07 * (1 + 0.841621 / 2.776445)  # the power of 80 % in standard errors; t on 4 degrees of freedom
    assert said[1] == (
        "Single metrics apart, nothing inside tells wrong answers from right ones: a detector on residuals reaches "
        f"AUROC 0.53 (0.46 to 0.60). With 60 answers to 30 questions, an AUROC of at least {least:.2f} would have been "
        "found with a probability of 80 %."
    )
    assert math.isclose(least, 0.59, abs_tol=0.005)
    assert "does worse than the best baseline, log-probability (AUROC 0.66): -0.13" in said[2]


def test_a_gain_whose_interval_holds_0_is_not_shown(answers):
    said = own_answers(answers(*ALONE, row("residual", 0.67, half=0.07, gain=0.01)))
    assert "is not shown to be better than the best baseline, log-probability (AUROC 0.66): +0.01" in said[2]


def test_a_detector_on_sae_features_speaks_where_there_is_one_whatever_the_others_reach(answers):
    said = own_answers(answers(*ALONE, row("residual", 0.9, gain=0.2), row("sae", 0.7, gain=0.04)))
    assert "a detector on SAE features reaches AUROC 0.70" in said[1]


def test_what_was_not_fitted_is_named_with_its_reason(answers):
    said = own_answers(
        answers(row("length", 0.5), row("logprob", None, reason="no log-probabilities"), row("residual", 0.6, gain=0.1))
    )
    assert said[-1] == "Log-probability: not compared (no log-probabilities)."
    assert "logprob" in BASELINES


def test_without_any_detector_it_says_why(answers):
    said = own_answers(answers(row("length", None, reason="9 groups of texts, fewer than 10")))
    assert said[1:] == ("No detector was fitted: 9 groups of texts, fewer than 10.",)


def test_other_labelled_texts_say_nothing_of_a_model_s_answers(answers):
    assert own_answers(answers(*ALONE, judged=False)) == ()
