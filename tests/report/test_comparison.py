"""Runs compared, in a terminal: what is compared with what, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from rich.console import Console

from bluffscope.compare.runs import COMPARE_SCHEMA, RunComparison, RunPair
from bluffscope.report.comparison import render_comparison

PAIR = RunPair(
    run="runs/other",
    shared=20,
    pairs=(25, 22),
    other_texts=0,
    differences={},
    same_model=True,
    layers=((2, 2), (5, 5)),
    unmatched=(),
    fidelity=None,
    notes=(),
)


def said(pair):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render_comparison(RunComparison("runs/first", (pair,), pl.DataFrame(schema=COMPARE_SCHEMA))))
    return captured.get()


def test_runs_of_equal_options_say_which_pairs_they_share():
    text = said(PAIR)
    assert text.startswith("other against first: 20 shared pairs (of 25 in the first run and 22 in this one)\n")
    assert "Options: the same, as far as they change numbers." in text
    assert "Verdicts cannot be compared: over all pairs no metric could be judged in both runs." in text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"other_texts": 3}, "in this one); 3 with the same id but other texts are left out"),
        ({"differences": {"engine.batch_size": (1, 2)}}, "Options: the same, as far as they change numbers."),
        ({"differences": {"data.by": ([], ["a", "b"])}}, "Options: data.by is a b here, empty in the first run."),
        ({"differences": {"data.limit": (None, 5)}}, "Options: data.limit is 5 here, not set in the first run."),
        (
            {"differences": {"measure.join": ("auto", " ")}},
            "Options: measure.join is ' ' here, 'auto' in the first run.",
        ),
        ({"same_model": False}, "Other models: metrics in activation units or features have other scales;"),
        ({"layers": ((2, 3), (5, 5))}, "Layers: 3 with 2 of the first run, matched by name and order."),
        ({"unmatched": ("l9_gini", "own")}, "Not compared, in one run only: 2 metrics (l9_gini, own)."),
        ({"notes": ("500 of 9,000 shared pairs were\ndrawn.",)}, "500 of 9,000 shared pairs were drawn."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_not_alike_is_one_line(change, line):
    assert line in said(replace(PAIR, **change))
