"""Explained variance by its definition, L0 against the published one, and what a row of the gate says."""

from __future__ import annotations

import pytest
import torch

from bluffscope.health import explained_variance
from bluffscope.health.check import found
from bluffscope.health.fit import Comparison, Fit
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


def made_fit(unexplained: float, *, pairs: int = 24, sinks: int = 0, seed: int = 0) -> Fit:
    """Ten tokens of each pair, of which a share is left unexplained; the first `sinks` are long and well explained."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(10 * pairs, 8, generator=generator)
    y = x + unexplained**0.5 * torch.randn(x.shape, generator=generator)
    if sinks:
        x[:sinks] = y[:sinks] = 300.0
    return Fit(x, y, torch.arange(len(x)) // 10)


def test_sinks_are_no_part_of_the_explained_variance():
    plain, with_sinks = made_fit(0.4), made_fit(0.4, sinks=2)
    assert (plain.tokens, with_sinks.tokens) == (240, 238)
    assert with_sinks.explained == pytest.approx(plain.explained, abs=0.02)
    assert float(explained_variance(with_sinks.x, with_sinks.y)) > 0.99  # what two tokens make of it otherwise


def test_tokens_weigh_alike_whatever_their_norm():
    fit = made_fit(0.4)
    longer = torch.where(torch.arange(len(fit.x)) % 3 == 0, 3.0, 1.0)[:, None]  # no sinks yet
    well_there = torch.where(longer > 1, fit.x, fit.y)
    scaled = Fit(longer * fit.x, longer * well_there, fit.pair)
    third = 1 - (1 - fit.explained) * 2 / 3
    assert scaled.explained == pytest.approx(third, abs=0.03)
    assert float(explained_variance(scaled.x, scaled.y)) > scaled.explained + 0.05


def test_tokens_that_are_sinks_on_one_side_are_left_out_on_both():
    here, there = made_fit(0.3, sinks=5), made_fit(0.3)
    compared = Comparison.of(there, here)
    assert compared.ratio == pytest.approx(1, abs=1e-9)
    assert compared.severity("BOS as in training") == "ok"


@pytest.mark.parametrize(
    ("there", "here", "pairs", "severity"),
    [
        (0.10, 0.30, 24, "error"),
        (0.26, 0.30, 24, "warning"),
        (0.10, 0.30, 5, "ok"),  # too few pairs to say so
        (0.30, 0.30, 24, "ok"),
        (0.30, 0.10, 24, "ok"),
        (0.80, 0.95, 24, "ok"),  # next to nothing is explained there either
    ],
)
def test_only_clear_evidence_is_held_against_an_sae(there, here, pairs, severity):
    compared = Comparison.of(made_fit(there, pairs=pairs), made_fit(here, pairs=pairs))
    assert compared.severity("hook point") == severity
