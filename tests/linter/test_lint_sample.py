"""A sample of whole groups: what the linter finds between its pairs is all there, and it is said to be a sample."""

from __future__ import annotations

import pytest

import bluffscope.api.closing
import bluffscope.runs.run
import tiny
from bluffscope.config import DataOptions, MeasureOptions, ModelOptions, OutputOptions, RunConfig
from bluffscope.linter import GroupSample, lint_source
from bluffscope.pairs import open_source
from bluffscope.report.contents import read_contents
from bluffscope.report.sections import doubts


@pytest.fixture
def source(tmp_path):
    """Three hundred groups of three pairs that share a prompt; the first two of each contradict each other."""
    pairs = [
        {
            "id": f"p{i}",
            "prompt": f"The river {i // 3} flows",
            "fact": f"north {i // 3}" if i % 3 < 2 else f"slowly {i}",
            "hallucination": f"north {i // 3}" if i % 3 == 1 else f"never {i}",
        }
        for i in range(900)
    ]
    pairs = [pair | ({"fact": f"south {i}"} if i % 3 == 1 else {}) for i, pair in enumerate(pairs)]
    return open_source(DataOptions(data=str(tiny.write_pairs(tmp_path / "pairs.jsonl", pairs))))


def test_groups_come_whole_in_order_and_no_more_than_asked_for(source):
    sample = GroupSample(source, 100, 0)
    rows = [pair.index for _, pair in sample.rows()]
    assert 97 < len(rows) <= 100
    assert rows == sorted(rows)
    assert all({3 * (row // 3) + place for place in range(3)} <= set(rows) for row in rows)
    assert sample.total == 900


def test_the_sample_depends_on_the_seed_alone(source):
    def rows(seed: int) -> list[int]:
        return [pair.index for _, pair in GroupSample(source, 100, seed).rows()]

    assert rows(1) == rows(1) != rows(2)


@pytest.mark.thorough
def test_what_is_found_between_pairs_is_found_in_the_sample_as_in_the_whole(source):
    whole, some = lint_source(source), lint_source(GroupSample(source, 300, 0))
    assert len(whole.of("contradiction")) == 300
    assert len(some.of("contradiction")) == 100
    named = {(finding.pairs, finding.rows) for finding in whole.of("contradiction")}
    assert {(finding.pairs, finding.rows) for finding in some.of("contradiction")} <= named


@pytest.mark.thorough
def test_a_run_lints_a_sample_of_a_large_input_and_the_report_says_so(
    tiny_model, tiny_saes, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(bluffscope.runs.run, "LINT_ROWS", 90)
    config = RunConfig(
        data=DataOptions(data=str(tmp_path / "pairs.jsonl")),
        model=ModelOptions(model=str(tiny_model), sae=str(tiny_saes), device="cpu"),
        measure=MeasureOptions(noise_draws=1),
        output=OutputOptions(out=tmp_path / "run"),
    )
    result = bluffscope.api.run(config, draw=False)
    lint = result.manifest["lint"]
    assert (lint["rows"], lint["rows_in_all"]) == (90, 900)
    assert lint["headline"].startswith("1 error (contradiction: 60 pairs)")
    said = [doubt.text for doubt in doubts(read_contents(result.path))]
    assert "Of 900 pairs, 90 were linted: whole groups drawn at random. bluffscope lint takes all." in said
