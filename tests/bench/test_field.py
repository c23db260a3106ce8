"""The comparison with TransformerLens and SAELens runs, does the work it says, and finds the same results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "field.py"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Of the embedded model on two pairs, by way."""
    out = tmp_path_factory.mktemp("field") / "field.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--shape", "demo", "--pairs", "2", "--out", str(out)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return {record["way"]: record for record in json.loads(out.read_text())}


@pytest.mark.parametrize("way", ["guide", "careful"])
def test_every_metric_is_the_one_that_the_field_s_tools_give(records, way):
    assert records[way]["agrees"], records[way]["agreement"]
    compared = int(re.search(r"(\d+) cells compared", records[way]["agreement"])[1])
    assert 200 < compared <= 2 * 109, "some may be left out for a feature that flips at its threshold"


def test_each_way_does_the_work_that_it_is_described_by(records):
    done = {
        way: [records[way][f"{work}_per_pair"] for work in ("forwards", "encodes", "eigendecompositions")]
        for way in ("guide", "careful")
    }
    assert done == {"guide": [13, 17 + 2, 9], "careful": [3, 9 + 2, 9]}


def test_ratios_are_those_of_the_seconds(records):
    packed = records["packed"]["seconds_per_pair"]
    assert records["packed"]["pairs"] == 200
    for way in ("guide", "careful"):
        assert records[way]["times_slower"] == pytest.approx(records[way]["seconds_per_pair"] / packed)
        assert records[way]["pairs"] == 2
