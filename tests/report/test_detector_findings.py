"""Titles of the detectors' pictures say what the curves come to; what is drawn is what was measured."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from statsmodels.stats.proportion import proportion_confint

from bluffscope.detectors.evaluate import CURVES_SCHEMA, DETECTORS_SCHEMA
from bluffscope.detectors.measures import reliability, risk_coverage
from bluffscope.errors import InputError
from bluffscope.report.detector_findings import (
    MOST_POINTS,
    checked_table,
    compared,
    curves,
    points,
    reliability_title,
    risk_title,
    sweep_rows,
    sweep_title,
    titles,
)
from bluffscope.table.reader import read_run
from made_runs import make_run, sweep_and_carry


def table(scores, labels, detector="sae", scope="pooled"):
    """The rows that `detect` would write of (text,) scores and labels."""
    rows = [
        (detector, scope, "reliability", x, y, int(n))
        for x, y, n in zip(*reliability(scores, labels), strict=True)
        if n
    ]
    risk = risk_coverage(scores, labels)
    rows += [(detector, scope, "risk_coverage", (k + 1) / len(risk), risk[k], k + 1) for k in range(len(risk))]
    return pl.DataFrame(rows, schema=CURVES_SCHEMA, orient="row")


def scored(sharpness, size=4000, seed=0):
    """Labels drawn from probabilities, and the probabilities sharpened in log odds."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, size)
    return 1 / (1 + np.exp(-sharpness * odds)), (rng.random(size) < 1 / (1 + np.exp(-odds))).astype(int)


@pytest.mark.parametrize(
    ("sharpness", "says"), [(1.0, "as sure as it may be"), (4.0, "too sure"), (0.25, "not sure enough")]
)
def test_a_reliability_title_says_whether_the_probabilities_hold(sharpness, says):
    (curve,) = (found["pooled"] for found in curves(table(*scored(sharpness))).values())
    assert f"SAE features: {says}; " in curve["titles"][0]


def test_one_value_for_all_texts_and_no_texts_are_said():
    assert reliability_title("length", [{"x": 0.5, "y": 0.5, "n": 9}]) == "Length: the same for all texts, about 0.50"
    assert reliability_title("sae", []) == risk_title("sae", []) == "SAE features: no curve"


def test_points_are_thinned_to_the_last_one_and_have_wilsons_intervals():
    scores, labels = scored(1.0, 400)
    found = curves(table(scores, labels))["sae"]["pooled"]
    drawn = points(found["risk"])
    assert len(drawn) <= MOST_POINTS + 1
    wrong = np.mean((scores >= 0.5) != labels)
    assert drawn[-1] == {"x": 1.0, "y": pytest.approx(wrong, abs=1e-3)}
    assert found["titles"][1].startswith(f"SAE features: wrong in {100 * wrong:.0f} % of texts, in ")
    for point in points(found["reliability"]):
        lo, hi = proportion_confint(round(point["y"] * point["n"]), point["n"], method="wilson")
        assert (point["lo"], point["hi"]) == (pytest.approx(lo, abs=2e-3), pytest.approx(hi, abs=2e-3))


def test_beside_a_detector_is_the_best_baseline_of_its_scope():
    scores, labels = scored(1.0, 100)
    both = [table(scores, labels), table(np.full(100, 0.5), labels, "length")]
    found = curves(pl.concat(both))
    rows = compared(found, "sae", "pooled", "length")
    assert {(row["name"], row["other"]) for row in rows} == {("SAE features", False), ("length", True)}
    assert compared(found, "sae", "elsewhere", None) == []


def row(detector, auroc, **more):
    known = {"detector": detector, "scope": "pooled", "auroc": auroc, "lo": auroc - 0.05, "hi": auroc + 0.05}
    return dict.fromkeys(DETECTORS_SCHEMA) | known | more


def test_titles_name_the_best_baseline_and_what_is_better():
    gain = {"gain": 0.2, "gain_lo": 0.1, "gain_hi": 0.3}
    rows = [
        row("length", 0.6),
        row("text", 0.7),
        row("residual", 0.9, **gain),
        row("sae", 0.8, **gain | {"gain_lo": -0.1}),
    ]
    found = titles(pl.DataFrame(rows, schema=DETECTORS_SCHEMA))["pooled"]
    assert found == {
        "auroc": "SAE features: AUROC 0.80 (0.75 to 0.85); the best baseline, completion text, 0.70",
        "gain": "Better than the best baseline: residuals",
        "baseline": "text",
    }
    alone = titles(pl.DataFrame(rows[:2], schema=DETECTORS_SCHEMA))["pooled"]
    assert (alone["auroc"], alone["gain"]) == (
        "AUROC of the baselines",
        "Better than the best baseline: none is shown to be",
    )


def test_a_sweeps_title_has_the_best_layer_and_what_the_choice_is_worth():
    cells = [("residual", 2, 0.7, 0.6, 0.8), ("residual", 5, 0.9, 0.8, 1.0), ("sae", 5, 0.8, 0.7, 0.9)]
    names = ["detector", "layer", "auroc", "lo", "hi"]
    found = pl.DataFrame([*cells, ("chosen", None, 0.85, 0.75, 0.95)], schema=names, orient="row")
    found = found.with_columns(position=pl.when(pl.col("layer").is_not_null()).then(pl.lit("last")))
    title = "Best at layer 5: residuals, AUROC 0.90; chosen without looking at the test, 0.85 (0.75 to 0.95)"
    assert sweep_title(found) == title
    drawn = sweep_rows(found).to_dicts()
    assert [line["name"] for line in drawn] == ["residuals", "residuals", "SAE features", "chosen"]
    # At one layer, none covers the other; what is chosen is of no layer.
    assert drawn[1]["x"] < 5 < drawn[2]["x"] and drawn[3]["x"] is None
    assert sweep_title(found.clear()) == "AUROC by layer"


def test_tables_of_other_columns_are_one_clear_line_and_rows_without_numbers_are_left_out(tmp_path):
    folder = make_run(tmp_path / "run")
    assert checked_table(read_run(folder), "sweep.parquet") is None
    sweep_and_carry(folder)
    run = read_run(folder)
    sweep = checked_table(run, "sweep.parquet")
    assert set(sweep["position"]) == {"last"}  # which tables of before lack
    assert sweep.height == 5 and checked_table(run, "transfer_matrix.parquet").height == 9
    sweep.with_columns(auroc=pl.lit(None, pl.Float64)).write_parquet(folder / "sweep.parquet")
    assert checked_table(run, "sweep.parquet").height == 0
    for damaged in (sweep.drop("lo"), sweep.with_columns(auroc=pl.lit("much"))):
        damaged.write_parquet(folder / "sweep.parquet")
        with pytest.raises(InputError, match="sweep.parquet is damaged"):
            checked_table(run, "sweep.parquet")
    nameless = pl.read_parquet(folder / "transfer_matrix.parquet").with_columns(train=pl.lit(None, pl.String))
    nameless.write_parquet(folder / "transfer_matrix.parquet")
    assert set(checked_table(run, "transfer_matrix.parquet")["train"]) == {"null"}
