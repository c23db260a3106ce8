"""What the answer counts: metrics that were tested, over all pairs, and each further scope for itself."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from bluffscope.report.features import found_sentence
from bluffscope.report.verdicts import headline, render_verdicts
from bluffscope.stats import analyse_table
from studies import QUICK


def table(pairs: int = 120, shift: float = 1.0, **columns) -> pl.DataFrame:
    """Metrics "a" with an effect and "b" without one, and the one that is not interpretable, with an effect."""
    rng = np.random.default_rng(0)
    fact, noise = rng.normal(size=(3, pairs)), rng.normal(size=(3, pairs))
    hall = fact + noise + np.array([[shift], [0.0], [3.0]])
    lengths = rng.integers(4, 9, (2, pairs))
    names = ("a", "b", "cross_layer_consistency")
    sides = {f"{name}_fact": fact[place] for place, name in enumerate(names)}
    sides |= {f"{name}_hall": hall[place] for place, name in enumerate(names)}
    return pl.DataFrame({"fact_tokens": lengths[0], "hall_tokens": lengths[1]} | sides | columns)


def said(frame: pl.DataFrame, **options) -> str:
    return headline(analyse_table(frame, resampling=QUICK, **options).rows)


def printed(frame: pl.DataFrame) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(render_verdicts(analyse_table(frame, resampling=QUICK)))
    return console.export_text()


def test_over_all_pairs_and_each_scope_are_counted_apart():
    frame = table(domain=["x", "y"] * 60)
    assert said(frame) == (
        "1 of 2 metrics separate fact from hallucination at equal lengths; strongest over all pairs: a; "
        "1 inconclusive. By scope: x 1 of 2, y 1 of 2."
    )
    assert "strongest over all pairs: a; 1 equivalent." in said(table(900))
    assert said(table(shift=0.0)).startswith(
        "Nothing separates fact from hallucination at equal lengths: 2 metrics tested over all pairs; "
    )


def test_what_is_measured_under_two_names_is_named_once():
    frame = table()
    twice = frame.with_columns(l9_fact_a="a_fact", l9_hall_a="a_hall").select("^l9.*$", *frame.columns)
    assert "2 of 3 metrics separate" in said(twice)
    assert "strongest over all pairs: a; " in said(twice)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (table(1), "1 pair with a value on both sides, fewer than 5"),
        (table(4), "4 pairs with a value on both sides, fewer than 5"),
        (table(shift=2.0).drop("fact_tokens"), "lengths unknown, so that length cannot be ruled out"),
        (table(12), "not adjustable for length: fewer than 10 pairs have"),
        (table().select("fact_tokens", "hall_tokens", "^cross.*$"), "there is no metric"),
    ],
)
def test_where_nothing_could_be_tested_nothing_is_said_to_separate_nothing(frame, why):
    assert said(frame).startswith(f"Whether anything separates fact from hallucination cannot be judged: {why}")
    assert "Nothing separates" not in printed(frame)
    assert "80 % power" not in printed(frame)


def test_metrics_that_could_not_be_tested_are_named_apart():
    frame = table().with_columns(few_fact=pl.Series([1.0, 2, 3] + [None] * 117), few_hall=pl.lit(0.5))
    assert "1 of 2 metrics separate" in said(frame)
    assert "1 not judged." in said(frame)
    assert "1 of 4 metrics cannot be judged over all pairs: 3 pairs with a value on both sides" in printed(frame)


@pytest.mark.thorough
def test_a_metric_that_is_not_interpretable_is_in_no_family_and_changes_no_other():
    with_it, without = table(), table().select(pl.exclude("^cross.*$"))
    for family in ("scope", "all"):
        rows = analyse_table(with_it, resampling=QUICK, family=family).rows
        others = analyse_table(without, resampling=QUICK, family=family)
        kept = rows.filter(pl.col("metric") != "cross_layer_consistency")
        assert_frame_equal(kept, others.rows, rel_tol=1e-12)  # sums of more columns at once may round otherwise
        one = rows.filter(metric="cross_layer_consistency").row(0, named=True)
        assert [one[name] for name in ("q", "raw_q", "adj_q", "skew_q", "equivalence_q")] == [None] * 5
        assert (one["verdict"], one["reason"]) == ("inconclusive", "not interpretable: two dictionaries share no index")
        assert one["p_wilcoxon"] < 1e-9
    for control in ("null", "planted"):
        found = [analyse_table(frame, resampling=QUICK, control=control).control for frame in (with_it, without)]
        assert found[0].equals(found[1])


def test_layers_with_too_few_groups_cannot_be_judged():
    layer = {"layer": 3, "active": 9, "tested": 4, "found": 0}
    assert found_sentence(layer, 5) == "cannot be judged: with 5 groups of pairs no p is below 0.0625"
    assert found_sentence(layer, 6).startswith("none of 4 tested features differs")
    assert found_sentence(layer | {"tested": 0}, 6).startswith("cannot be judged: no feature fires often enough")
