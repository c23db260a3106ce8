"""Explained variance by its definition, L0 against the published one, and what a row of the gate says."""

from __future__ import annotations

import pytest
import torch

from bluffscope.health import explained_variance
from bluffscope.health.check import found
from bluffscope.health.table import check_l0

ENTRY = {"d_in": 128, "trained_on": {"k": None}}


def test_explained_variance_by_hand():
    x, y = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert float(explained_variance(x, y)) == pytest.approx(0.8)
    assert float(explained_variance(x, x)) == 1
    assert float(explained_variance(x, x.mean(dim=0).expand(2, 2))) == 0


@pytest.mark.parametrize(
    ("measured", "severity"),
    [
        (68, "ok"),
        (135, "ok"),
        (136, "warning"),
        (34, "warning"),
        (271, "warning"),
        (272, "error"),
        (17, "error"),
        (0, "error"),
    ],
)
def test_l0_off_by_two_warns_and_by_four_fails(measured, severity):
    assert check_l0(5, measured, {**ENTRY, "published_l0": 68.0}).severity == severity


def test_without_a_published_l0_it_may_not_exceed_the_width():
    assert check_l0(5, 128.0, {**ENTRY, "published_l0": None}).severity == "ok"
    assert check_l0(5, 129.0, {**ENTRY, "published_l0": None}).severity == "error"
    assert check_l0(5, 129.0, {**ENTRY, "published_l0": None, "trained_on": {"k": 100}}).severity == "ok"


@pytest.mark.parametrize(("severity", "failed"), [("ok", False), ("note", False), ("warning", True), ("error", True)])
def test_what_is_well_needs_no_meaning_and_no_advice(severity, failed):
    row = found("pairs measured", severity, "b")
    means, do = ("Nothing was measured", "See quarantine.parquet for the reasons") if failed else ("", "")
    assert (row.means, row.do) == (means, do)
    assert row.message == "pairs measured: expected at least one, seen b" + (f". {means}. {do}" if failed else "")
