"""The schema names exactly the columns written out here, and docs/columns.md is made from it."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.metrics import METRICS
from bluffscope.table.schema import ANALYSES, LOGPROB, PAIR_COLUMNS, SHARD_COLUMNS, Column, table_columns

ROOT = Path(__file__).resolve().parents[2]

# Written out by hand, not taken from the schema.
IDENTITY = [
    "pair_id",
    "domain",
    "complexity",
    "group",
    "prompt_tokens",
    "fact_tokens",
    "hall_tokens",
    "prompt_read_token",
    "fact_read_token",
    "hall_read_token",
]
BY_LAYER = [
    "l0_norm",
    "reconstruction_error",
    "relative_error",
    "gini",
    "sphericity",
    "elongation",
    "dimensionality",
    "eigenvalue_entropy",
    "misalignment_angle",
    "shape_class",
]
BY_PAIR = ["centroid_drift", "axis_twist", "stability", "entropy", "cross_layer_consistency", "cross_layer_alignment"]


def names(columns: tuple[Column, ...]) -> list[str]:
    return [column.name for column in columns]


def test_the_table_has_every_column_of_the_design_in_its_order():
    own = Column("length_ratio", "float", "dimensionless", 0, None, "Mine.")
    found = table_columns([5, 12], [0.03, 1.0], [("note", "str"), ("score", "float")], added=[own])
    expected = [
        *IDENTITY,
        *(f"l{layer}_{view}_{m}" for layer in (5, 12) for view in ("prompt", "fact", "hall") for m in BY_LAYER),
        *(f"{m}_{part}" for m in BY_PAIR for part in ("fact", "hall", "diff")),
        *(f"stability_s{s}_{part}" for s in ("0.03", "1") for part in ("fact", "hall", "diff")),
        "length_ratio",
        "note",
        "score",
    ]
    assert names(found) == expected
    assert [column.section for column in found[-3:]] == ["added", "carried", "carried"]


def test_types_are_float64_int64_and_text():
    dtypes = {column.name: column.dtype for column in table_columns([0], [0.1], [("flag", "bool")])}
    assert dtypes["pair_id"] == dtypes["domain"] == dtypes["hall_read_token"] == pl.String
    assert dtypes["l0_fact_shape_class"] == pl.String
    assert dtypes["complexity"] == dtypes["prompt_tokens"] == pl.Int64
    assert dtypes["flag"] == pl.Boolean
    text = {"l0_prompt_shape_class", "l0_fact_shape_class", "l0_hall_shape_class"}
    measured = set(dtypes) - set(IDENTITY) - text - {"flag"}
    assert measured and all(dtypes[name] == pl.Float64 for name in measured)


def test_every_column_says_what_it_is():
    for column in table_columns([3], [0.1]):
        assert column.doc.endswith(".") and "{" not in column.doc, column
        assert column.version >= 1
        assert column.section == "pair" or column.section in ANALYSES
        assert column.unit or column.kind in ("str", "category")
        if column.low is not None and column.high is not None:
            assert column.low < column.high
    assert {metric.unit for metric in METRICS if metric.kind == "float"} == {
        "bits",
        "degrees",
        "nats",
        "activation units",
        "dimensionless",
        "features",
    }


def test_ranges_of_differences_follow_from_those_of_the_values():
    by_name = {column.name: column for column in table_columns([0])}
    assert (by_name["axis_twist_fact"].low, by_name["axis_twist_fact"].high) == (0, 90)
    assert (by_name["axis_twist_diff"].low, by_name["axis_twist_diff"].high) == (-90, 90)
    assert (by_name["cross_layer_alignment_diff"].low, by_name["cross_layer_alignment_diff"].high) == (-2, 2)
    assert by_name["entropy_hall"].high == pytest.approx(math.log(50))
    assert (by_name["l0_fact_l0_norm"].low, by_name["l0_fact_l0_norm"].high) == (0, None)


def test_consistency_is_declared_not_interpretable():
    column = next(c for c in table_columns([0]) if c.name == "cross_layer_consistency_fact")
    assert "not interpretable" in column.doc


def test_log_probabilities_are_columns_only_when_asked_for():
    plain, asked = table_columns([0], [0.1]), table_columns([0], [0.1], analyses=[*ANALYSES, LOGPROB])
    added = [column for column in asked if column not in plain]
    parts = ("fact", "hall", "diff")
    compared = [f"{m}_{p}" for m in ("logprob", "logprob_per_token") for p in parts]
    assert [column.name for column in added] == [*compared, "knows"]
    assert {column.section for column in added} == {"logprob"}
    assert [(column.low, column.high) for column in added[:3]] == [(None, 0), (None, 0), (None, None)]


@pytest.mark.parametrize("left_out", ANALYSES)
def test_columns_of_an_analysis_that_did_not_run_are_left_out(left_out):
    ran = [name for name in ANALYSES if name != left_out]
    full, part = table_columns([0, 1], [0.1]), table_columns([0, 1], [0.1], analyses=ran)
    gone = [column for column in full if column not in part]
    assert gone and {column.section for column in gone} == {left_out}
    assert names(part) == [name for name in names(full) if name not in names(tuple(gone))]


def test_an_unknown_analysis_is_named():
    with pytest.raises(InputError, match="unknown analysis 'stabilty'.*layer_sensitivity"):
        table_columns([0], analyses=["stabilty"])


@pytest.mark.parametrize("name", ["entropy_fact", "domain", "l0_prompt_gini", *SHARD_COLUMNS])
def test_a_carried_column_may_not_take_the_name_of_a_result(name):
    with pytest.raises(InputError, match=f"named '{name}': rename the one in the data"):
        table_columns([0], [], [(name, "str")])


def test_the_same_noise_level_twice_is_refused():
    with pytest.raises(InputError, match="stability_s0.1_fact.*in the options"):
        table_columns([0], [0.1, 0.1])


def test_pair_columns_are_the_ones_of_the_design():
    assert names(PAIR_COLUMNS) == IDENTITY


def test_the_page_of_columns_is_current(capsys):
    spec = importlib.util.spec_from_file_location("make_column_docs", ROOT / "tools" / "make_column_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(["--check"]) == 0, capsys.readouterr().out
    page = tool.page()
    for metric in METRICS:
        assert f"| `{metric.name}` |" in page
