"""Detectors in a terminal: what is shown of a scope, of transfer and of a detector that is kept."""

from __future__ import annotations

import polars as pl
import pytest
from rich.console import Console

from bluffscope.detectors.evaluate import (
    AGAINST_SCHEMA,
    CURVES_SCHEMA,
    DETECTORS_SCHEMA,
    TRANSFER_SCHEMA,
    Detection,
)
from bluffscope.report.detectors import _elsewhere, render_detection

_GAIN = {"gain": 0.1, "gain_lo": 0.02, "gain_hi": 0.2}


def row(detector, scope, auroc, **more):
    known = {"detector": detector, "scope": scope, "n": 40, "auroc": auroc}
    if auroc is not None:
        known |= {"lo": auroc - 0.1, "hi": auroc + 0.1, "ece": 0.05}
    return dict.fromkeys(DETECTORS_SCHEMA) | known | more


def crossed(detector, train, test, auroc, learnt=True):
    return {"detector": detector, "train": train, "test": test, "n": 40, "auroc": auroc, "learnt": learnt}


def printed(detection):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(render_detection(detection))
    return captured.get()


@pytest.fixture(scope="module")
def lines():
    surface = {"surface_gain": 0.3, "surface_gain_lo": 0.1, "surface_gain_hi": 0.5}
    rows = [
        row("length", "pooled", 0.6),
        row("sae", "pooled", 0.9, **_GAIN, **surface),
        row("length", "known=yes", None, reason="4 groups, fewer than 10"),
        row("sae", "known=yes", None, reason="4 groups, fewer than 10"),
    ]
    transfer = [
        crossed("sae", "a", "a", 0.9),
        crossed("sae", "b", "b", 0.7, learnt=False),
        crossed("sae", "a", "b", 0.6),
        crossed("sae", "b", "a", 0.1, learnt=False),
        crossed("length", "a", "a", 0.5, learnt=False),
        crossed("length", "a", "b", 0.2, learnt=False),
        crossed("sae", "known=yes", "known=yes", 0.8),
        crossed("sae", "known=yes", "known=no", 0.75),
    ]
    detection = Detection(
        pl.DataFrame(rows, schema=DETECTORS_SCHEMA),
        pl.DataFrame(
            [{"detector": "sae", "against": "residual", "scope": "pooled", "gain": 0.05, "lo": -0.02, "hi": 0.12}],
            schema=AGAINST_SCHEMA,
        ),
        pl.DataFrame(schema=CURVES_SCHEMA),
        pl.DataFrame(transfer, schema=TRANSFER_SCHEMA),
        {"notes": ["2,000 of 9,000 pairs drawn at random"]},
    )
    return printed(detection).splitlines()


def test_what_saes_add_to_residuals_is_the_first_line_of_a_scope(lines):
    place = lines.index("SAE features against residuals, pooled: +0.05 (-0.02 to +0.12)")
    assert "pooled, n = 40" in lines[place + 1]


def test_each_scope_has_a_table_with_the_gain_over_the_baselines_that_are_there(lines):
    assert "Detectors: can a single text be recognised as hallucinated?" in lines
    said = " ".join(" ".join(lines).split())
    assert "gain over length (log-probability and P(True) were not measured: analyze with --logprob --p-true)" in said
    (head,) = (line for line in lines if line.startswith("pooled, n = 40"))
    assert head.split()[4:] == ["AUROC", "95", "%", "ECE", "gain", "95", "%"]
    cells = {line.split()[0]: line.split() for line in lines if line.startswith(("length ", "sae "))}
    assert cells["length"] == ["length", "0.60", "0.50", "to", "0.70", "0.05"]
    assert cells["sae"][1:6] == ["0.90", "0.80", "to", "1.00", "0.05"]
    assert cells["sae"][6:] == ["+0.10", "+0.02", "to", "+0.20"]


def test_a_scope_without_detectors_says_why_once(lines):
    assert [line for line in lines if line.startswith("known=yes")] == [
        "known=yes: no detectors (4 groups, fewer than 10)"
    ]


def test_transfer_counts_elsewhere_only_what_learnt_something_and_keeps_columns_apart(lines):
    said = " ".join(" ".join(lines).split())
    assert "Transfer between values of domain (mean AUROC where trained -> elsewhere, from where it learnt some" in said
    assert "sae 0.80 -> 0.60, length 0.50 -> -" in said
    assert "Transfer between values of known" in said
    assert "sae 0.80 -> 0.75" in said
    assert lines[-1] == "2,000 of 9,000 pairs drawn at random"


def test_other_pairs_of_the_run_are_judged_by_their_interval():
    found = {"n": 30, "auroc": 0.7, "lo": 0.6, "hi": 0.8, "groups": 12}
    assert _elsewhere(found) == "AUROC 0.70 (0.60 to 0.80), also better than chance."
    assert _elsewhere(found | {"lo": 0.4}).endswith("no better than chance: it does not generalise.")
    few = "AUROC 0.70, of 3 groups: too few for an interval."
    assert _elsewhere(found | {"lo": None, "groups": 3}) == few
