"""The rules of the verdicts, row by row: the first that holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bluffscope.stats import Evidence, judge
from bluffscope.stats.verdicts import NAMES

FOUND = Evidence(
    n=200,
    varies=True,
    lengths="adjustable",
    dz=0.5,
    q=0.001,
    q_grouped=0.002,
    adj_dz=0.45,
    adj_q=0.004,
    adj_q_grouped=0.005,
    equivalence_p=0.9,
    mde80=0.2,
    n_equal_length=60,
    equal_length_dz=0.4,
)

RULES = [
    ("separates", "d_z +0.50 (q 0.001), at equal lengths +0.45 (q 0.004)", {}),
    ("separates", "all lengths equal", {"lengths": "equal"}),
    ("separates", "", {"q": 0.0499, "adj_q": 0.0499}),
    ("separates", "q < 0.001", {"dz": -0.5, "adj_dz": -0.45, "q": 1e-9}),
    ("separates", "the 60 pairs of equal length point the other way (-0.10)", {"equal_length_dz": -0.1}),
    ("separates", "", {"equivalence_p": 0.01}),
    ("confounded", "length accounts for more than half of it", {"adj_dz": 0.1, "adj_q": 0.2}),
    ("confounded", "", {"adj_dz": 0.2499, "adj_q": 0.05}),
    ("confounded", "", {"adj_dz": -0.1, "adj_q": 0.2, "equivalence_p": 0.01}),
    ("inconclusive", "neither accounts for nor leaves standing", {"adj_dz": 0.25, "adj_q": 0.2}),
    ("inconclusive", "changes its sign", {"adj_dz": -0.45}),
    ("inconclusive", "pairs that share a text count as one (q 0.050)", {"q_grouped": 0.05}),
    ("inconclusive", "pairs that share a text count as one", {"q_grouped": None}),
    ("inconclusive", "not shown at equal lengths where pairs that share a text count as", {"adj_q_grouped": 0.05}),
    ("inconclusive", "count as one (q -)", {"adj_q_grouped": None}),
    ("inconclusive", "changes its sign", {"adj_dz": -0.45, "adj_q_grouped": 0.5}),
    ("inconclusive", "at equal lengths only", {"q": 0.05}),
    ("inconclusive", "no effect shown; 200 pairs show d_z 0.20 with 80 % power", {"q": 0.3, "adj_q": 0.3}),
    ("inconclusive", "fewer than about 70 cannot show that there is none", {"n": 69, "q": 0.3, "adj_q": 0.3}),
    ("inconclusive", "no effect shown", {"q": None, "adj_q": None, "mde80": None}),
    ("equivalent", "within 0.2 of 0 (p 0.010)", {"q": 0.3, "adj_q": 0.3, "adj_dz": 0.02, "equivalence_p": 0.01}),
    ("inconclusive", "", {"q": 0.3, "adj_q": 0.3, "adj_dz": 0.02, "equivalence_p": 0.05}),
    ("equivalent", "", {"q": 0.3, "adj_q": 0.01, "adj_dz": 0.1, "equivalence_p": 0.04}),
    ("equivalent", "", {"adj_dz": -0.02, "equivalence_p": 0.001}),
    ("inconclusive", "4 pairs with a value on both sides, fewer than 5", {"n": 4}),
    ("inconclusive", "0 pairs", {"n": 0, "varies": False, "lengths": "unknown", "dz": None, "adj_dz": None}),
    ("inconclusive", "zero variance", {"varies": False}),
    ("inconclusive", "lengths unknown", {"lengths": "unknown", "adj_dz": None, "adj_q": None}),
    ("inconclusive", "not adjustable for length: fewer than 10", {"lengths": "one-sided", "adj_dz": None}),
    ("inconclusive", "one pair alone sets the slope", {"adj_dz": None}),
]


@pytest.mark.parametrize(("verdict", "reason", "changed"), RULES, ids=[f"{r[0]} {r[2]}" for r in RULES])
def test_the_first_rule_that_holds_gives_the_verdict_and_its_reason(verdict, reason, changed):
    found = judge(replace(FOUND, **changed))
    assert found.verdict == verdict
    assert reason in found.reason
    assert "significant" not in found.reason


def test_every_verdict_stands_in_the_table_above():
    assert {rule[0] for rule in RULES} == set(NAMES)
