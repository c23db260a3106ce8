"""`bluffscope analyze --dry-run`: what a run would take, from configurations and a sample, and nothing written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

import hub_cache
import tiny
from bluffscope.api import run
from bluffscope.cli.dry_run import duration
from bluffscope.config import DataOptions, EngineOptions, ForecastOptions, MeasureOptions, ModelOptions, RunConfig
from bluffscope.host import machine
from bluffscope.runs.forecast import forecast
from bluffscope.runs.gpus import GPUS


@pytest.fixture
def dry(call, tiny_model, tiny_saes, pairs_file):
    """Foretell a run of the tiny model."""

    def told(*flags: object) -> str:
        outcome = call(
            *("analyze", "--dry-run", "--model", tiny_model, "--sae", tiny_saes, "--data", pairs_file), *flags
        )
        assert outcome.code == 0, outcome
        return outcome.out

    return told


def test_it_says_what_the_run_takes_and_writes_nothing(dry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    said = dry()
    for part in (
        "Pairs: 5",
        "Distinct tokens:",
        "Operations:",
        "FLOP",
        "memory per worker",
        "measuring",
        "this processor",
    ):
        assert part in said
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.thorough
@pytest.mark.parametrize(("dtype", "flags", "said"), [("bfloat16", "avx2", True), ("bfloat16", "avx512_bf16", False)])
def test_run_and_dry_run_say_that_bfloat16_is_emulated(
    call, dry, tiny_model, tiny_saes, pairs_file, tmp_path, monkeypatch, dtype, flags, said
):
    monkeypatch.setattr(machine, "_cpuinfo", lambda name: flags if name == "flags" else "")
    line = "--dtype bfloat16: this processor has no bfloat16 arithmetic"
    assert (line in dry("--device", "cpu", "--dtype", dtype)) == said
    asked = ("--model", tiny_model, "--sae", tiny_saes, "--data", pairs_file, "--device", "cpu", "--dtype", dtype)
    outcome = call("analyze", *asked, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    assert [line in told for told in outcome.err.splitlines()].count(True) == said


def test_it_says_that_there_are_too_few_clusters_and_which_answers_are_closed(call, tiny_model, tiny_saes, tmp_path):
    flags = ("analyze", "--dry-run", "--model", tiny_model, "--sae", tiny_saes, "--data")
    answers = ("yes", "no"), ("no", "yes")
    rows = [
        {"prompt": f"Is {i} even?", "fact": fact, "hallucination": hall} for i in range(5) for fact, hall in answers
    ]
    said = call(*flags, tiny.write_pairs(tmp_path / "pairs.jsonl", rows)).out
    assert "Few clusters: No verdict will be given: only 5 clusters in 10 pairs" in said
    assert "Closed answers: Answers of a closed set, 'no' (10 pairs), 'yes' (10 pairs), link no pairs" in said


def test_gpus_of_a_kind_stand_beside_this_machine_with_what_is_assumed(dry):
    said = dry("--gpus", 8, "--gpu-kind", "a100", "--dtype", "bfloat16")
    assert "8 x a100" in said
    assert "Assumed of a100: 40% of its published peak for bfloat16" in said


def test_gpus_without_a_dry_run_and_unknown_kinds_are_refused(refused, tiny_model, tiny_saes, pairs_file):
    flags = ("--model", tiny_model, "--sae", tiny_saes, "--data", pairs_file)
    refused("analyze", *flags, "--gpus", 8, says="--gpus and --gpu-kind require --dry-run")
    refused("analyze", *flags, "--dry-run", "--gpu-kind", "abacus", says="--gpu-kind abacus: unknown; choose from b200")
    refused("analyze", *flags, "--dry-run", "--gpus", 0, "--gpu-kind", "l4", says="--gpus 0: give at least 1")
    refused("analyze", *flags, "--dry-run", "--strategy", "separate", says="no forecast for --strategy separate")
    refused("analyze", *flags, "--dry-run", "--shard-pairs", 0, says="--shard-pairs 0: give at least 1")


def planned(model, saes, pairs, **options) -> RunConfig:
    return RunConfig(
        data=DataOptions(data=str(pairs)),
        model=ModelOptions(model=str(model), sae=str(saes), device="cpu"),
        engine=EngineOptions(shard_pairs=options.pop("shard_pairs", 256)),
        measure=MeasureOptions(**{"logprob": "off", **options}),
    )


def numbered(path, count: int):
    """Pairs whose prompts come in twos."""
    pairs = [
        {"id": f"p{i}", "prompt": f"The number {i // 2} is", "fact": f"even {i}", "hallucination": f"odd {i}"}
        for i in range(count)
    ]
    return tiny.write_pairs(path, pairs)


@pytest.mark.thorough
def test_the_tokens_of_a_whole_input_are_those_that_the_run_computes(tiny_model, tiny_saes, tmp_path):
    config = planned(tiny_model, tiny_saes, numbered(tmp_path / "pairs.jsonl", 300), shard_pairs=64)
    found = forecast(config, ForecastOptions())
    result = run(replace(config, output=replace(config.output, out=tmp_path / "run")), draw=False)
    counts = result.manifest["counts"]
    work = found.work
    assert (work.tokens, work.slots, work.reads, work.forwards) == tuple(
        counts[name] for name in ("tokens", "slots", "reads", "forwards")
    )
    assert found.here.memory == result.manifest["memory"]["predicted_bytes"]


def test_a_sample_of_whole_shards_stands_for_the_rest(tiny_model, tiny_saes, tmp_path, monkeypatch):
    config = planned(tiny_model, tiny_saes, numbered(tmp_path / "pairs.jsonl", 1200), shard_pairs=32)
    whole = forecast(config, ForecastOptions())
    monkeypatch.setattr("bluffscope.runs.forecast.SAMPLE_PAIRS", 200)
    some = forecast(config, ForecastOptions())
    assert whole.work.sampled == 1200
    assert 160 <= some.work.sampled <= 200
    assert some.work.tokens == pytest.approx(whole.work.tokens, rel=0.05)
    assert some.work.total == pytest.approx(whole.work.total, rel=0.05)


def test_more_draws_longer_texts_and_more_gpus_change_what_they_should(tiny_model, tiny_saes, pairs_file):
    plain = forecast(planned(tiny_model, tiny_saes, pairs_file), ForecastOptions())
    noisy = forecast(planned(tiny_model, tiny_saes, pairs_file, noise_draws=80), ForecastOptions())
    assert noisy.work.encode > 2 * plain.work.encode
    assert noisy.work.products == plain.work.products
    one, eight = (
        forecast(planned(tiny_model, tiny_saes, pairs_file), ForecastOptions(gpus=n, gpu_kind="l4")).there
        for n in (1, 8)
    )
    assert one is not None
    assert eight is not None
    assert eight.seconds["forward"] == pytest.approx(one.seconds["forward"] / 8)
    assert eight.total > one.total / 8


def test_pairs_that_nothing_can_be_made_of_are_said(refused, tiny_model, tiny_saes, tmp_path):
    long = {"prompt": "word " * 400, "fact": "a", "hallucination": "b"}
    data = tiny.write_pairs(tmp_path / "long.jsonl", [long])
    says = "none of 1 sampled pairs can be measured"
    refused("analyze", "--dry-run", "--model", tiny_model, "--sae", tiny_saes, "--data", data, says=says)


def test_a_folder_without_weights_is_enough(dry, call, tiny_model, tiny_saes, pairs_file, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    outcome = call("analyze", "--dry-run", "--model", bare, "--sae", tiny_saes, "--data", pairs_file)
    assert outcome.code == 0, outcome
    assert "Distinct tokens" in outcome.out


@pytest.mark.thorough
def test_a_preset_by_its_name_needs_configuration_and_tokenizer_only(tmp_path):
    model = tiny.save_model(tmp_path / "model", "gemma2", hidden_size=hub_cache.D_MODEL_2B, num_hidden_layers=22)
    for weights in model.glob("*.safetensors*"):
        weights.unlink()
    hub_cache.add_repository(tmp_path / "home", hub_cache.GEMMA_2_2B, model)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bluffscope",
            "analyze",
            "--dry-run",
            "--preset",
            "gemma-2-2b",
            "--limit",
            "20",
            "--no-logprob",
        ],
        env=hub_cache.offline(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Model: google/gemma-2-2b, 21 blocks and 3 SAEs" in done.stdout


def test_durations_are_read_at_a_glance():
    shown = [duration(seconds) for seconds in (0.0, 0.01, 0.5, 12, 720, 86_400, 10 * 86_400)]
    assert shown == ["0.0 s", "< 0.1 s", "0.5 s", "12 s", "12 min", "24 h", "10.0 days"]


def test_half_precision_is_the_faster_one_on_every_gpu():
    assert all(re.fullmatch(r"[a-z0-9]+", kind) for kind in GPUS)
    assert all(gpu.half >= gpu.single for gpu in GPUS.values())
