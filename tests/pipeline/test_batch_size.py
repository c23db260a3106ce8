"""Batches from the memory that is free, and predictions that hold in fresh processes."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

import tiny
from bluffscope.config import EngineOptions, MeasureOptions, ModelOptions
from bluffscope.config.demo import model_dir
from bluffscope.pipeline import batch_size as sizing
from bluffscope.pipeline.batch_size import batch_tokens, plan_run, predicted_peak, run_footprint, sized
from bluffscope.pipeline.memory import GEMMA_2_2B, TOKENS_A_PAIR

GEMMA = run_footprint(GEMMA_2_2B["float32"], "cpu", MeasureOptions())


@pytest.fixture
def free(monkeypatch):
    """Have so many bytes free."""
    return lambda size: monkeypatch.setattr(sizing, "free_memory", lambda device: size)


def test_with_memory_to_spare_a_batch_is_as_large_as_brings_speed(free, caplog):
    free(64 * 10**9)
    chosen = sized(EngineOptions(), "cpu", GEMMA)
    assert (chosen.batch_tokens, chosen.row_tokens) == (1024, 1024)
    assert not caplog.records


def test_where_memory_is_short_the_batch_is_what_fits(free, caplog):
    size = int(GEMMA.needed(1000, sizing.ROW_TOKENS) / sizing.SHARE) + 1
    free(size)
    tokens = sized(EngineOptions(), "cpu", GEMMA).batch_tokens
    assert tokens == 960  # a whole multiple of 64
    assert not caplog.records


def test_where_nothing_fits_one_line_names_what_is_needed_and_the_run_goes_on(free, caplog):
    free(6 * 10**9)
    with caplog.at_level(logging.WARNING, logger="bluffscope"):
        chosen = sized(EngineOptions(), "cpu", GEMMA)
    assert chosen.batch_tokens == 64
    (record,) = caplog.records
    assert record.getMessage().startswith("this run needs about 11.7 GB of memory and 6.0 GB are free")


def test_limits_that_are_given_stay(free):
    free(64 * 10**9)
    given = EngineOptions(batch_tokens=100, row_tokens=33, batch_size=4)
    assert sized(given, "cpu", GEMMA) == given


def test_prediction_knows_batches_in_pairs_and_data_smaller_than_a_batch():
    frozen = EngineOptions(batch_tokens=2048, row_tokens=512)
    assert predicted_peak(frozen, GEMMA, 200) == GEMMA.peak(2048, 512)
    assert predicted_peak(frozen, GEMMA, 5) == GEMMA.peak(5 * TOKENS_A_PAIR, 512)
    by_pairs = EngineOptions(batch_tokens=2048, row_tokens=512, batch_size=4)
    assert predicted_peak(by_pairs, GEMMA, 200) == GEMMA.peak(4 * TOKENS_A_PAIR, 512)
    assert predicted_peak(EngineOptions(strategy="sequential", batch_tokens=1, row_tokens=1), GEMMA, 9) is None


def test_completions_read_as_a_whole_take_more():
    whole = run_footprint(GEMMA_2_2B["float32"], "cpu", MeasureOptions(position="completion-mean"))
    assert whole.peak(2048, 512) > GEMMA.peak(2048, 512)


def test_half_the_bytes_a_weight_leave_room_for_a_batch():
    half = run_footprint(GEMMA_2_2B["bfloat16"], "cuda", MeasureOptions())
    whole = run_footprint(GEMMA_2_2B["float32"], "cuda", MeasureOptions())
    budget = 8 * 10**9
    assert batch_tokens(whole, "cuda", 512, budget) == 0
    assert batch_tokens(half, "cuda", 512, budget) > 1000


def test_a_run_is_planned_as_it_is_then_loaded(tiny_model, tiny_saes):
    from measuring import make_worker

    planned = plan_run(ModelOptions(model=str(tiny_model), sae=str(tiny_saes), device="cpu"))
    worker = make_worker(tiny_model, tiny_saes, dtype="float32")
    loaded = sizing.loaded_shape(worker.reader.model, worker.coders.values(), "none")
    assert planned.shape == replace(loaded, counted=None)
    # Rows follow from the weights that are there, norms and biases too: their length is part of a run's numbers.
    assert loaded.block_weights == sum(weight.numel() for weight in worker.reader.model.blocks[0].parameters())
    assert loaded.block_weights > planned.shape.block_weights
    options = ModelOptions(model=str(tiny_model), sae=str(tiny_saes), layers=(0,), device="cpu")
    whole = plan_run(options, whole=True)
    worker = make_worker(tiny_model, tiny_saes, dtype="float32", layers=(0,), logprob=True)
    loaded = sizing.loaded_shape(worker.reader.model, worker.coders.values(), "none", head=True)
    assert whole.shape == replace(loaded, counted=None)
    assert (whole.shape.blocks, plan_run(options).shape.blocks) == (4, 1)


def analyse(out: Path, *flags: object) -> dict[str, int]:
    """What the manifest of a run in a fresh process says of memory."""
    command = [
        sys.executable,
        "-m",
        "bluffscope",
        "analyze",
        "--device",
        "cpu",
        "--out",
        out,
        *flags,
        "--allow-unsound",
        "--verbose",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    memory = json.loads((out / "manifest.json").read_text())["memory"]
    peak, predicted = memory["peak_bytes"], memory["predicted_bytes"]
    assert f"Peak memory: {peak / 1e9:.1f} GB (predicted {predicted / 1e9:.1f})" in done.stdout.splitlines()
    return memory


@pytest.mark.parametrize("tokens", [256, 8192])
def test_the_peak_of_the_demo_in_a_fresh_process_is_predicted_within_15_percent(tmp_path, tokens):
    memory = analyse(tmp_path / "run", "--batch-tokens", tokens)
    assert memory["predicted_bytes"] == pytest.approx(memory["peak_bytes"], rel=0.15)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> tuple[Path, Path]:
    """A random Gemma-2 of a quarter of a gigabyte and SAEs of 8192 features that are active as rarely as real ones."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    sizes = {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "query_pre_attn_scalar": 64}
    AutoModelForCausalLM.from_config(Gemma2Config(**sizes, **heads)).save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir() / name, folder / "model" / name)
    from safetensors.torch import load_file, save_file

    for layer, threshold in ((2, 6.0), (5, 8.35), (9, 10.7)):
        sae = tiny.save_sae(folder / "sae", layer, d_in=512, d_sae=8192) / "sae_weights.safetensors"
        weights = {name: tensor.clone() for name, tensor in load_file(sae).items()}
        weights["W_enc"] = weights["W_dec"].T.contiguous()
        save_file(weights | {"threshold": torch.full((8192,), threshold)}, sae)
    return folder / "model", folder / "sae"


@pytest.mark.parametrize("limits", [(256, 128), (2048, 512)], ids=str)
def test_the_peak_of_a_wider_model_in_a_fresh_process_is_predicted_within_15_percent(tmp_path, wide, limits):
    model, saes = wide
    flags = ["--model", model, "--sae", saes, "--batch-tokens", limits[0], "--row-tokens", limits[1]]
    memory = analyse(tmp_path / "run", *flags)
    assert memory["predicted_bytes"] == pytest.approx(memory["peak_bytes"], rel=0.15)
