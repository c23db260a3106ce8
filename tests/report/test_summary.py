"""The summary equals numbers computed independently, and its terminal form shows them in 100 columns."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from bluffscope.metrics import ANALYSES
from bluffscope.report import render_summary, shape_table, summarize
from bluffscope.report.labels import (
    OTHER_GROUP,
    clean,
    distinct,
    group_title,
    number,
)
from bluffscope.table.metric_pairs import metric_pairs
from bluffscope.table.schema import table_columns

_SPEC = importlib.util.spec_from_file_location("report_tables", Path(__file__).with_name("tables.py"))
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)
synthetic = tables.synthetic


def shown(metrics: pl.DataFrame, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_summary(metrics))
    return console.file.getvalue()


def independent(metrics: pl.DataFrame, fact: str, hall: str, domain: str | None) -> dict[str, float | None]:
    """The definition in numpy, row by row."""
    kept = []
    for d, f, h in metrics.select("domain", fact, hall).iter_rows():
        if (domain is None or d == domain) and f is not None and h is not None and np.isfinite(f) and np.isfinite(h):
            kept.append((f, h))
    if not kept:
        return {"n": 0, "mean_fact": None, "mean_hall": None, "mean_diff": None, "sd_diff": None, "dz": None}
    facts, halls = np.array(kept, dtype=np.float64).T
    diff = halls - facts
    sd = diff.std(ddof=1) if len(diff) > 1 else None
    return {
        "n": len(diff),
        "mean_fact": facts.mean(),
        "mean_hall": halls.mean(),
        "mean_diff": diff.mean(),
        "sd_diff": sd,
        "dz": diff.mean() / sd if sd else None,
    }


def with_gaps(metrics: pl.DataFrame, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = []
    for name in metrics.columns:
        if metrics.schema[name] == pl.Float64:
            values = metrics[name].to_list()
            for i in np.flatnonzero(rng.random(len(values)) < 0.2):
                values[i] = [None, float("nan"), float("inf")][rng.integers(3)]
            columns.append(pl.Series(name, values, pl.Float64))
    return metrics.with_columns(columns)


@pytest.mark.parametrize("gaps", [False, True])
def test_every_number_equals_numpys(gaps):
    metrics = synthetic(60, layers=(5, 12), sweep=(0.3,))
    metrics = with_gaps(metrics, 1) if gaps else metrics
    found = summarize(metrics)
    assert len(found) == (2 * 9 + 7) * 5
    for row in found.iter_rows(named=True):
        layer = re.match(r"l(\d+)_(.*)", row["metric"])
        names = (f"l{layer[1]}_{{}}_{layer[2]}" if layer else f"{row['metric']}_{{}}").format
        expected = independent(metrics, names("fact"), names("hall"), None if row["pooled"] else row["domain"])
        for key, value in expected.items():
            assert row[key] == (value if value is None else pytest.approx(value, rel=1e-12, abs=1e-14)), (row, key)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "pooled"]),
            st.one_of(st.none(), st.floats(-1e6, 1e6)),
            st.one_of(st.none(), st.floats(-1e6, 1e6)),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_table_gives_the_definition(rows):
    schema = {"domain": pl.String, "m_fact": pl.Float64, "m_hall": pl.Float64}
    metrics = pl.DataFrame(rows, schema=schema, orient="row")
    for row in summarize(metrics).iter_rows(named=True):
        expected = independent(metrics, "m_fact", "m_hall", None if row["pooled"] else row["domain"])
        assert row["n"] == expected["n"]
        assert row["mean_diff"] == (None if not row["n"] else pytest.approx(expected["mean_diff"], rel=1e-9, abs=1e-6))
        if row["dz"] is not None:
            assert row["dz"] == pytest.approx(expected["dz"], rel=1e-3)


def test_metrics_are_in_the_tables_order_and_domains_in_order_of_appearance_with_pooled_last():
    found = summarize(synthetic(40, layers=(12, 5), domains=("z", "a")))
    metrics = found["metric"].unique(maintain_order=True).to_list()
    assert metrics[0] == "l12_l0_norm" and metrics[9] == "l5_l0_norm" and metrics[-1] == "cross_layer_alignment"
    assert found.filter(metric="entropy")["domain"].to_list() == ["z", "a", "pooled"]
    assert found.filter(metric="entropy")["layer"].to_list() == [None] * 3
    assert found.filter(metric="l5_gini")["layer"].to_list() == [5] * 3


def test_a_domain_called_pooled_is_not_mistaken_for_all_pairs():
    found = summarize(synthetic(40, domains=("pooled", "b"))).filter(metric="entropy")
    assert found.select("domain", "pooled", "n").rows() == [
        ("pooled", False, 20),
        ("b", False, 20),
        ("pooled", True, 40),
    ]


@pytest.mark.parametrize(
    ("facts", "halls"),
    [([1.0], [2.0]), ([1.0, 1.0], [1.0, 1.0]), ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4]), ([None, None], [1.0, 2.0])],
)
def test_dz_is_null_where_there_is_no_spread(facts, halls):
    metrics = pl.DataFrame(
        {"domain": ["a"] * len(facts), "m_fact": facts, "m_hall": halls},
        schema_overrides={"m_fact": pl.Float64, "m_hall": pl.Float64},
    )
    assert summarize(metrics)["dz"].to_list() == [None, None]


def test_text_and_columns_without_a_partner_are_passed_over():
    metrics = pl.DataFrame({"domain": ["a"], "x_fact": [1.0], "y_fact": ["t"], "y_hall": ["u"], "l3_fact_z": [1.0]})
    assert summarize(metrics).is_empty()
    assert "nothing to summarise" in shown(metrics)


def test_whole_numbers_count_as_numbers_and_a_table_without_domains_is_one_domain():
    found = summarize(pl.DataFrame({"k_fact": [1, 2, 3], "k_hall": [2, 4, 6]}))
    assert found.select("domain", "n", "mean_diff", "dz").rows() == [("all", 3, 2.0, 2.0), ("pooled", 3, 2.0, 2.0)]


def test_shape_classes_are_counted_by_layer_with_undefined_ones():
    metrics = pl.DataFrame(
        {
            "l5_fact_shape_class": ["Oblate", "Oblate", "Prolate", None],
            "l5_hall_shape_class": ["Oblate", "Oblate", "Triaxial", "Oblate"],
        }
    )
    assert shape_table(metrics).rows() == [
        (5, "Oblate", "Oblate", 2),
        (5, "Prolate", "Triaxial", 1),
        (5, None, "Oblate", 1),
    ]
    assert shape_table(pl.DataFrame({"domain": ["a"]})).is_empty()


def test_the_report_groups_metrics_by_the_analysis_that_declares_them():
    assert group_title("gini", 5) == "Layer sensitivity, layer 5"
    assert group_title("lens_rank", 5) == "Trajectory, layer 5"
    for name, title in {
        "centroid_drift": "Semantic misalignment",
        "axis_twist": "Semantic misalignment",
        "stability": "Stability",
        "stability_s0.3": "Stability",
        "entropy": "Entropy",
        "cross_layer_consistency": "Cross-layer",
        "cross_layer_alignment": "Cross-layer",
        "lens_rank": OTHER_GROUP,  # the same
        "logprob": "Log-probability",
        "logprob_per_token": "Log-probability",
        "my_own": OTHER_GROUP,
        "stability_score": OTHER_GROUP,
        "gini": OTHER_GROUP,  # declared for layers only
    }.items():
        assert group_title(name, None) == title
    assert group_title("my_own", 5) == f"{OTHER_GROUP}, layer 5"
    names = [column.name for column in table_columns([0, 11], [0.3])]
    counts = {
        per_layer: sum(len(a.metrics) for a in ANALYSES if a.per_layer is per_layer) for per_layer in (True, False)
    }
    assert len(metric_pairs(names)) == 2 * counts[True] + counts[False] + 1


def test_the_terminal_summary_shows_every_metric_and_domain_in_100_columns():
    metrics = synthetic(200, sweep=(0.3,))
    text = shown(metrics)
    assert max(map(cell_len, text.splitlines())) <= 100 and len(text.splitlines()) < 130
    for title in ("Layer sensitivity, layer 5", "Layer sensitivity, layer 20", "Semantic misalignment", "Cross-layer"):
        assert f"\n{title}" in text
    for domain in (*tables.DOMAINS, "all domains", "n = 50", "n = 200"):
        assert domain in text
    assert "d_z = mean / sd of the paired differences" in text
    assert "is not interpretable" in text
    assert "significan" not in text.casefold()
    entropy = summarize(metrics).filter(metric="entropy")
    after = text.split("\nEntropy")[1]
    lines = [line for line in after.splitlines() if line.strip()][2:4]
    means = [number(v) for pair in entropy.select("mean_fact", "mean_hall").iter_rows() for v in pair]
    assert lines[0].split() == ["entropy", *means]
    effects = [f"{v:+.2f}" for v in entropy["dz"]]
    assert lines[1].split()[1::2] == effects
    assert lines[1].split()[::2] == [number(v, signed=True) for v in entropy["mean_diff"]]


def test_a_smaller_n_stands_in_its_cell():
    metrics = synthetic(40, domains=("a", "b")).with_columns(
        entropy_hall=pl.when(pl.int_range(40) < 3).then(None).otherwise("entropy_hall")
    )
    after = shown(metrics).split("\nEntropy")[1].split("Cross-layer")[0]
    assert "n = 17" in after and "n = 37" in after


@pytest.mark.thorough
@pytest.mark.parametrize("width", [52, 80, 100, 200])
@pytest.mark.parametrize(
    "domains", [("all",), ("[red]x[/red]", "a\nb\x1b[31m", "漢字" * 20, "😀", ""), tuple("abcdefghijklmnop")]
)
def test_the_summary_fits_any_width_with_any_domains(width, domains):
    text = shown(synthetic(64, layers=tuple(range(12)), domains=domains), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text
    if len(domains) == 1:
        assert "all domains" not in text.split("Shape classes")[0]
    if len(domains) > 9:
        assert "7 smaller domains" in text
    assert "Not shown: layers 1, 2" in text
    if "😀" in domains:
        assert "[red]x[/red]" in text


def test_null_columns_are_shown_as_such():
    metrics = synthetic(20, layers=(0,))
    metrics = metrics.with_columns(pl.lit(None, pl.Float64).alias(n) for n in metrics.columns if n.startswith("cross"))
    after = shown(metrics).split("\nCross-layer")[1]
    assert re.search(r"consistency \*\s+- +- +", after) or re.search(r"cross_layer_ +- +-", after)


@given(st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_numbers_take_seven_characters_and_keep_their_sign_and_size(value, signed):
    text = number(value, signed=signed)
    assert len(text) <= 7
    if abs(value) < 1e-99 or abs(value) > 1e99:
        return
    assert float(text) == pytest.approx(value, rel=0.51, abs=0)
    assert signed == text.startswith(("+", "-")) or value <= 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (99.96, "100"),
        (9.996, "10.0"),
        (0.0123, "0.012"),
    ],
)
def test_numbers_are_written_with_about_three_digits(value, text):
    assert number(value) == text


@given(st.lists(st.text(max_size=60), unique=True, max_size=12))
def test_labels_are_distinct_single_lines(texts):
    labels = distinct(texts, 14, ["all domains"])
    assert len(set(labels.values())) == len(texts) and "all domains" not in labels.values()
    for label in labels.values():
        assert label and len(label) <= 14
        assert label.replace("\u200c", "").replace("\u200d", "").isprintable()
        assert clean(label, 14) == label


def test_reading_a_summary_imports_no_torch_no_ray_and_no_altair():
    code = "import sys, bluffscope.report; print({'torch', 'ray', 'altair', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
