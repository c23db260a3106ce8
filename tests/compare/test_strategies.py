"""What float64 needs is read from configurations, and refused before anything is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoModelForCausalLM

from bluffscope.compare import strategies
from bluffscope.config import ModelOptions
from bluffscope.errors import InputError
from bluffscope.pipeline.batch_size import plan_run
from bluffscope.pipeline.memory import Footprint


@pytest.fixture
def enormous(tiny_model, tmp_path):
    """A model whose config.json speaks of more parameters than any machine holds."""
    folder = shutil.copytree(tiny_model, tmp_path / "enormous")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 10**12}))
    return folder


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs_and_what_there_is(enormous, tiny_saes, monkeypatch):
    monkeypatch.setattr(strategies, "memory_available", lambda: 3_200_000_000)
    options = ModelOptions(model=str(enormous), sae=str(tiny_saes), device="cpu", dtype="float64")
    with pytest.raises(InputError) as refusal:
        strategies.check_memory(options)
    assert "128000.5 GB for the whole model (16000.00 billion parameters" in str(refusal.value)  # 16 x 10^12 x 8 bytes
    assert ", but 3.2 GB are free on this machine: " in str(refusal.value)
    assert "a machine with more memory or verify a smaller model" in str(refusal.value)


@pytest.mark.parametrize("spare", [-1, 0])
def test_the_limit_is_what_is_free(tiny_model, tiny_saes, monkeypatch, spare):
    options = ModelOptions(model=str(tiny_model), sae=str(tiny_saes), device="cpu", dtype="float64")
    found = Footprint(plan_run(options, whole=True).shape)
    total = found.weights + found.saes + strategies.WORKING_BYTES
    monkeypatch.setattr(strategies, "memory_available", lambda: total + spare)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    if spare < 0:
        with pytest.raises(InputError, match="are free on this machine"):
            strategies.check_memory(options)
    else:
        strategies.check_memory(options)
