"""The benchmark in processes of its own, and its tables."""

from __future__ import annotations

import os

import pytest

from bluffscope.compare.bench import tables
from bluffscope.compare.bench.jobs import PIECES, STEPS, Job, Measurement, batch_sizes, growth, ladder, sharing
from bluffscope.compare.bench.processes import JobFailed, fresh, run_job
from bluffscope.compare.bench.texts import pairs


@pytest.mark.process
def test_a_step_of_the_ladder_is_measured_in_a_fresh_process():
    job = Job(shape="demo", step="packed", measurements=(Measurement(pairs=3), Measurement(pairs=5, batch_size=2)))
    first, second = run_job(job)
    assert (first["pairs"], second["pairs"], second["batch_size"]) == (3, 5, 2)
    assert (first["computed"]["forwards"], second["computed"]["forwards"]) == (1, 3)
    assert first["computed"]["reads"] == 9
    assert first["seconds_per_pair"] * 3 == pytest.approx(first["seconds"])
    assert {"forward", "sae", "geometry", "write"} <= first["stages"].keys()
    assert 0.3e9 < first["peak_bytes"] < 2e9
    assert first["held_bytes"] < first["predicted_bytes"]


@pytest.mark.process
def test_a_process_that_fails_says_so_in_one_line():
    job = Job(shape="demo", step="too long", measurements=(Measurement(pairs=2, sharing="bundled", batch_size=0),))
    with pytest.raises(JobFailed, match="step 'too long' of shape demo failed: .*--batch-size 0"):
        list(run_job(job))


def test_a_process_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr("bluffscope.compare.bench.processes.RECORD_SECONDS", 0.2)
    job = Job(shape="demo", step="hanging", measurements=(Measurement(pairs=2),))
    with pytest.raises(JobFailed, match="step 'hanging' of shape demo failed: nothing was heard of it for 0.2 s"):
        list(run_job(job))


def test_what_a_process_yields_comes_before_what_ends_it_early_is_said():
    counted, numbers = [], fresh("counting", map, int, ["1", "2", "three"])
    with pytest.raises(JobFailed, match="^counting failed: ValueError: invalid literal for int"):
        counted.extend(numbers)
    assert counted == [1, 2]
    with pytest.raises(JobFailed, match="^counting failed: exit code 7$"):
        list(fresh("counting", os._exit, 7))


def test_the_ladder_has_every_step_each_on_top_of_the_one_before():
    jobs = list(ladder("gemma-2-2b"))
    assert [job.step for job in jobs] == list(STEPS)
    assert [job.strategy for job in jobs[:2]] == ["separate", "sequential"]
    assert [job.older for job in jobs[2:]] == [PIECES[left:] for left in (0, 1, 2, 3, 4, 4, 5, 6, 6, 6)]
    assert len(PIECES) == 6
    assert [job.strategy for job in jobs[2:8]] == ["batched"] * 5 + ["packed"]
    assert [job.dtype for job in jobs[-2:]] == ["bfloat16", "bfloat16"]


def test_batch_sizes_are_tried_in_order_and_then_as_many_as_auto_takes():
    batched, packed = batch_sizes("mid", [16, 1])
    assert [job.strategy for job in (batched, packed)] == ["batched", "packed"]
    for job, most in ((batched, 64), (packed, 200)):
        assert [(one.batch_size, one.pairs) for one in job.measurements] == [(1, 32), (16, 32), ("auto", most)]
    assert [one.pairs for one in next(batch_sizes("demo", [300])).measurements] == [300, 200]


def test_the_small_shape_shares_prompts_in_five_times_as_many_pairs_and_grows_in_fresh_processes():
    kinds = ["none", "short", "long"]
    for small, large in zip(sharing("demo"), sharing("gemma-2-2b"), strict=True):
        assert [one.sharing for one in small.measurements] == [one.sharing for one in large.measurements] == kinds
        assert [one.pairs for one in small.measurements] == [5 * one.pairs for one in large.measurements]
    assert [[one.pairs for one in job.measurements] for job in growth()] == [[100], [1000], [10_000]]


def test_pairs_are_told_apart_and_share_what_they_are_to_share():
    made = list(pairs(450))
    assert len({pair["id"] for pair in made}) == 450
    assert len({pair["prompt"] for pair in made}) == 450
    assert len({pair["prompt"][:5] for pair in pairs(60, "none")}) == 60
    short, long = ({pair["prompt"][:40] for pair in pairs(60, kind)} for kind in ("short", "long"))
    assert len(short) == len(long) == 1
    assert 290 <= min(len(pair["prompt"].split()) for pair in pairs(5, "long")) <= 320


def record(step, seconds, **more):
    return {
        "shape": "mid",
        "step": step,
        "strategy": "packed",
        "dtype": "float32",
        "quantize": "none",
        "pairs": 10,
        "seconds": 10 * seconds,
        "seconds_per_pair": seconds,
        "peak_bytes": 2e9,
        "marks": [],
        **more,
    }


def test_gains_are_ratios_within_the_run():
    done = {"forwards": 130, "encodes": 330, "eigendecompositions": 90}
    slow = record(
        "sequential",
        4.0,
        strategy="sequential",
        computed=done,
        load_seconds=3.2,
        plain_forward_seconds=0.10,
        baseline_forward_seconds=0.11,
    )
    table = tables.ladder_table([slow, record("async I/O", 0.04, marks=["swapping"])])
    assert [table.rows[1][name] for name in ("s a pair", "gain", "to sequential")] == ["0.04000", "100.00x", "100.0x"]
    assert table.rows[1]["marks"] == "swapping"
    assert "sequential: 13 forwards, 33 encodes, 9 eigendecompositions a pair" in table.notes[0]
    assert "a forward takes 0.110 s, a plain AutoModelForCausalLM call 0.100 s" in table.notes[1]


def test_the_limit_is_what_the_products_take_at_the_peak():
    limit = {"peak_flops": 1e9, "flops_per_token": 1e6, "flops_per_encode": 2e6, "encode_peak_flops": 1e9}
    run = {"computed": {"tokens": 500, "reads": 30}, "layers": 3}
    possible = tables.possible_seconds(limit, run, noise_draws=8)
    assert possible["forward"] == pytest.approx(0.5)
    assert possible["sae"] == pytest.approx((30 * 3 + 20 * 8) * 2e6 / 1e9)


def test_batched_and_packed_are_compared_at_their_best():
    records = [
        record("batch sizes", seconds, strategy=strategy, batch_size=size)
        for strategy, size, seconds in (
            ("batched", 1, 0.4),
            ("batched", 8, 0.2),
            ("packed", 1, 0.3),
            ("packed", 8, 0.1),
        )
    ]
    table = tables.batch_table(records)
    assert [row["speed-up"] for row in table.rows] == ["1.00x", "2.00x", "1.00x", "3.00x"]
    assert table.notes == ("packed at its best is 2.00 times as fast as batched at its best",)


def test_the_limit_is_compared_with_the_run_of_its_precision():
    stages = {"forward": 2.0, "sae": 1.0, "geometry": 0.5, "write": 0.25, "tokenise": 0.25}
    limit = record("limit", 0.1) | {
        **{"peak_flops": 1e9, "flops_per_token": 1e6, "flops_per_encode": 2e6, "encode_peak_flops": 1e9, "threads": 2},
    }
    measured = {"tokens": 500, "slots": 600, "reads": 30}
    run = record("async I/O", 0.5, computed=measured, stages=stages, layers=3, limit=True)
    known = run | {"predicted_bytes": 4e9, "held_bytes": 1e9}
    table = tables.limit_table([limit], [record("token tries", 9, computed=measured, limit=False), known])
    assert [row["stage"] for row in table.rows] == list(stages)
    assert [row["share"] for row in table.rows] == ["40.0%", "20.0%", "10.0%", "5.0%", "5.0%"]
    assert [row["of the limit"] for row in table.rows] == ["25%", "50%", "", "", ""]
    assert "1 GFLOP/s at the model's sizes (2 threads); 500 distinct tokens in 600 slots for 10 pairs" in table.notes[0]
    assert table.notes[0].endswith("together 40.0% of the run")
    assert table.notes[1] == "float32: peak memory 2.00 GB, 0.50 of the prediction; weights and SAEs are 1.00 GB"
    assert len(tables.limit_table([limit], [run]).notes) == 1, "nothing was predicted"


def test_growth_is_told_of_the_last_two_sizes():
    small, large = record("growth", 0.10), record("growth", 0.12) | {"pairs": 1000, "seconds": 120.0, "peak_bytes": 3e9}
    table = tables.growth_table([small, large])
    assert [(row["pairs"], row["seconds"], row["peak GB"]) for row in table.rows] == [
        ("10", "1.0", "2.000"),
        ("1,000", "120.0", "3.000"),
    ]
    assert table.notes == ("from 10 to 1,000 pairs: time a pair x1.200, peak memory x1.500",)
    assert tables.growth_table([small]).notes == ()


def test_sharing_is_shown_by_kind_and_packed_is_compared_with_batched():
    records = [
        record("sharing", seconds, strategy=strategy, sharing=kind, computed={"tokens": 120})
        for strategy, kind, seconds in (
            ("batched", "none", 0.3),
            ("batched", "long", 2.0),
            ("packed", "none", 0.2),
            ("packed", "long", 0.1),
        )
    ]
    rows = tables.sharing_table(records).rows
    assert [(row["shared prompt"], row["strategy"]) for row in rows] == [
        ("none", "batched"),
        ("none", "packed"),
        ("long", "batched"),
        ("long", "packed"),
    ]
    assert [row["to batched"] for row in rows] == ["", "1.5x", "", "20.0x"]
    assert {row["tokens a pair"] for row in rows} == {"12.0"}
