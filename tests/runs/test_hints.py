"""Why a run was slow: said with what to do, and only where it was."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
import torch

from bluffscope.config import EngineOptions, MeasureOptions, ModelOptions, RunConfig
from bluffscope.runs.hints import SLOW_SECONDS, STABLE, noise_hints, slow_hints

DONE = {"forwards": 100, "tokens": 3000}
SLOW = 2 * SLOW_SECONDS


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def config(**engine):
    return RunConfig(model=ModelOptions(device="cpu"), engine=EngineOptions(**engine))


def test_a_run_that_was_not_disturbed_or_not_slow_gets_no_hint():
    assert slow_hints(config(), SLOW, (), DONE) == []
    assert slow_hints(config(batch_size=1), SLOW_SECONDS / 2, ("swapping",), DONE) == []


def test_what_disturbed_it_is_named_with_what_to_do():
    swapping, load = slow_hints(config(), SLOW, ("swapping", "other load 0.80 cores"), DONE)
    assert swapping.startswith("the machine was swapping: use a smaller --batch-size")
    assert load == "other load 0.80 cores while this ran: close other programs for full speed"


def test_small_batches_are_named_and_large_ones_are_not():
    (hint,) = slow_hints(config(batch_size=2), SLOW, (), DONE)
    assert hint == "2 pairs per forward pass are few: --batch-size auto uses about 68"
    assert slow_hints(config(batch_size=40), SLOW, (), {"forwards": 5, "tokens": 3000}) == []
    assert slow_hints(config(batch_size=2), SLOW, (), {"forwards": 1, "tokens": 30}) == []


def test_a_gpu_that_was_left_idle_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert slow_hints(config(), SLOW, (), DONE) == ["this machine's GPU was not used: --device auto takes it"]
    used = replace(config(), model=ModelOptions(device="cuda"))
    assert slow_hints(used, SLOW, (), DONE) == []


@pytest.mark.parametrize("strategy", ["sequential", "separate"])
def test_the_old_patterns_are_named(strategy):
    (hint,) = slow_hints(config(strategy=strategy), SLOW, (), {"forwards": 13})
    assert f"--strategy {strategy} measures one text at a time" in hint


def test_noise_too_small_for_the_residuals_is_named_with_what_to_do():
    stable = pl.DataFrame({"stability_fact": [0.98, None], "stability_hall": [0.99, 0.97]})
    (hint,) = noise_hints(config(), stable)
    assert hint.startswith("stability is 0.98 on average: noise of 0.1 is small") and "--noise-mode relative" in hint
    assert noise_hints(replace(config(), measure=MeasureOptions(noise_mode="relative")), stable) == []
    assert noise_hints(config(), stable.with_columns(pl.all() + STABLE - 1)) == []
    assert noise_hints(config(), stable.select(pl.all() * float("nan")).fill_nan(None)) == []
    assert noise_hints(config(), pl.DataFrame({"pair_id": ["a"]})) == []
