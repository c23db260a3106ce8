"""What the page opens with: the spread of the leading metric, typical items and exceptions, each number by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bluffscope.report.answer import answer
from bluffscope.report.contents import read_contents
from bluffscope.report.first_screen import axis_title, beyond_length, examples, holds, metric_name, picture
from bluffscope.report.labels import ending, percent
from bluffscope.report.results import Results, ScopeAnswer
from bluffscope.report.write import write_report
from made_runs import UNSOUND, make_run
from made_texts import make_texts


def opened(folder):
    write_report(folder)
    contents = read_contents(folder)
    return contents, answer(Results.of(contents))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Pairs with an effect planted in "entropy"."""
    return opened(make_run(tmp_path_factory.mktemp("runs") / "run", 90, effect=1.5))


def test_the_picture_holds_every_value_of_both_sides_once(run):
    contents, said = run
    assert said.effects[0].metric == "entropy"
    rows = pl.DataFrame(picture(contents, said))
    assert metric_name(contents, said) == "entropy"
    assert axis_title(contents, said) == "entropy (nats)"
    for panel in rows["panel"].unique():
        # A panel is called by its domain, or is all pairs.
        metrics = contents.metrics if panel == "all pairs" else contents.metrics.filter(domain=panel)
        for view, column in (("fact", "entropy_fact"), ("hallucination", "entropy_hall")):
            part, values = rows.filter(panel=panel, view=view), metrics[column].drop_nulls().to_numpy()
            borders = [*part["lo"], part["hi"][-1]]
            for low, high, share in part.select("lo", "hi", "share").iter_rows():
                inside = ((values >= low - 1e-3) & (values < high + 1e-3)).sum()
                assert inside >= round(share * len(values) / 100)
            assert part["share"].sum() == pytest.approx(100, abs=0.1)
            assert borders == sorted(borders)


def test_typical_pairs_lie_next_to_the_median_and_exceptions_farthest_the_other_way(run):
    contents, said = run
    metrics = contents.metrics
    inside = np.ones(metrics.height, bool)
    if said.effects[0].scope != "pooled":
        inside = metrics["domain"].eq(said.effects[0].scope).to_numpy()
    differences = (metrics["entropy_hall"] - metrics["entropy_fact"]).fill_null(float("nan")).to_numpy()
    by_id = dict(zip(metrics["pair_id"], differences, strict=True))
    usable = differences[inside & np.isfinite(differences)]
    found = examples(contents, said)
    median = np.median(usable[usable > 0])
    apart = [abs(by_id[one.name] - median) for one in found.typical]
    assert sorted(np.abs(usable[usable > 0] - median))[:3] == pytest.approx(apart)
    assert [by_id[one.name] for one in found.exceptions] == pytest.approx(sorted(usable)[:3])
    assert (found.against, found.of) == ((usable < 0).sum(), len(usable))
    assert found.typical[0].value.startswith("+")


def test_of_texts_exceptions_are_those_that_look_like_the_other_label(tmp_path):
    contents, said = opened(make_texts(tmp_path / "run", 120, said=("one", "two", "three"), stats=False))
    assert said.effects[0].metric == "entropy"  # planted: higher in false texts
    metrics = contents.metrics
    true, false = metrics["entropy_fact"].drop_nulls(), metrics["entropy_hall"].drop_nulls()
    middle = (true.mean() + false.mean()) / 2
    found = examples(contents, said)
    assert found.against == (true > middle).sum() + (false < middle).sum()
    rows = {row["text_id"]: row for row in metrics.iter_rows(named=True)}
    for one in found.exceptions:
        value = rows[one.name]["entropy_fact" if one.true else "entropy_hall"]
        assert (value > middle) is one.true


def test_where_nothing_differs_the_largest_differences_are_no_rule(tmp_path):
    contents, said = opened(make_run(tmp_path / "run"))
    assert said.kind == "nothing"
    found = examples(contents, said)
    assert len(found.typical) == 3 and found.exceptions == ()
    assert beyond_length(said).startswith("0 of ")
    assert set(picture(contents, said)["panel"]) == {"all pairs"}  # what differs most between domains is chance too
    page = (contents.path / "report.html").read_text("utf-8")
    assert "Nowhere: nothing is shown to differ in any part (<bdi>entity, temporal, logical</bdi>)." in page


def test_an_unsound_run_has_neither_picture_nor_examples(tmp_path):
    contents, said = opened(make_run(tmp_path / "run", 90, effect=1.5, manifest={"health": UNSOUND}))
    assert said.kind == "withheld"
    assert picture(contents, said)["panel"] == [] and examples(contents, said).of == 0
    assert beyond_length(said) == ""


def test_a_scope_says_what_would_have_been_found_only_where_nothing_was():
    part = ScopeAnswer("a", "a", "a", "a", 48, separate=0, tested=32, strongest=None, least=0.41, why="")
    assert holds(part) == "0 of 32 metrics differ (an effect of 0.41 would be found)"
    assert holds(replace(part, separate=3)) == "3 of 32 metrics differ"
    assert holds(replace(part, tested=0)) == "cannot be judged"


def test_shares_are_none_or_all_only_where_they_are():
    assert percent(0.845) == "85 %" and percent(0.065) == "7 %"
    assert [percent(share) for share in (0, 0.001, 0.004, 0.5, 0.996, 1)] == [
        "0 %",
        "< 1 %",
        "< 1 %",
        "50 %",
        "> 99 %",
        "100 %",
    ]


def test_the_end_of_a_long_text_begins_with_a_whole_word():
    assert ending("a b\nc", 10) == "a b c"
    assert ending("one two three four", 12) == "…three four"
    assert ending("x" * 30, 12) == "…" + "x" * 11
    assert all(len(ending("word " * 20, width)) <= width for width in range(2, 40))
