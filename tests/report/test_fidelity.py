"""The fidelity tables as a terminal shows them."""

from __future__ import annotations

import polars as pl
import pytest
from rich.console import Console

from bluffscope.compare.precision import SCHEMA, Fidelity
from bluffscope.report import render_fidelity


def printed(rows, quantize="none", width=100):
    table = pl.DataFrame([dict.fromkeys(SCHEMA) | row for row in rows], schema=SCHEMA)
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render_fidelity(Fidelity(("a", "b"), "bfloat16", quantize, 1.0, table)))
    return console.export_text()


NUMBERS = {"n": 6, "median_delta": 0.125, "max_delta": 2.5, "median_relative": 0.01, "max_relative": 0.25}
ROWS = [
    {"metric": "features", "layer": 5, "part": "text", "n": 1234, "surviving": 0.987, "new": 0.0123},
    {"metric": "gini", "layer": 5, "part": "text", "changed": 0.5, **NUMBERS},
    {
        "metric": "gini",
        "layer": 5,
        "part": "diff",
        "n": 2,
        "changed": 0.0,
        "median_relative": 0.75,
        "max_relative": 1.5,
    },
    {"metric": "shape_class", "layer": 5, "part": "text", "n": 6, "changed": 0.25},
    {"metric": "entropy", "part": "text", "changed": 0.0, **NUMBERS},
]


def line(text, start):
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found.split()


@pytest.mark.parametrize("width", [80, 100])
def test_each_metric_has_a_line_with_its_difference_beside_it(width):
    text = printed(ROWS, "int8", width)
    assert "Fidelity: bfloat16, int8 weights against float32, 2 pairs measured again" in text
    assert line(text, "layer 5") == ["layer", "5", "1,234", "98.7%", "1.2%"]
    assert line(text, "gini") == ["gini", "0.125", "2.50", "0.010", "0.250", "0.750", "1.50", "50.0%"]
    assert line(text, "shape_class") == ["shape_class", *["-"] * 6, "25.0%"]
    assert line(text, "entropy") == ["entropy", "0.125", "2.50", "0.010", "0.250", "-", "-", "0.0%"]
    assert max(map(len, text.splitlines())) <= width


def test_weights_that_were_not_quantised_are_not_mentioned():
    assert "Fidelity: bfloat16 against float32" in printed(ROWS)
