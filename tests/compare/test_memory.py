"""What float64 needs is read from configurations, and said before anything is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from bluffscope.compare import memory
from bluffscope.config import ModelOptions
from bluffscope.errors import InputError


def sizes(need):
    return {layer: (sae.d_in, sae.d_sae) for layer, sae in need.sae_configs.items()}


def test_the_parameters_of_the_whole_model_are_counted_without_its_weights(any_model, tiny_saes, monkeypatch):
    whole = AutoModelForCausalLM.from_pretrained(any_model)
    expected = sum(parameter.numel() for parameter in whole.parameters())
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    need = memory.float64_need(ModelOptions(model=str(any_model), sae=str(tiny_saes), layers=(0, 3)))
    assert need.parameters == expected
    assert sizes(need) == {0: (tiny.D_MODEL, tiny.D_SAE), 3: (tiny.D_MODEL, tiny.D_SAE)}
    assert need.weights == 8 * expected
    assert need.saes == 8 * 2 * (2 * tiny.D_MODEL * tiny.D_SAE)


def test_saes_in_gemma_scope_s_layout_and_those_of_the_demo_are_counted(tiny_model, tmp_path):
    saes = tiny.save_gemma_scope(tmp_path / "scope", (1,))
    need = memory.float64_need(ModelOptions(model=str(tiny_model), sae=str(saes)))
    assert sizes(need) == {1: (tiny.D_MODEL, tiny.D_SAE)}
    assert list(memory.float64_need(ModelOptions()).sae_configs) == [2, 5, 8]


def test_counting_leaves_no_trace_of_the_meta_device(tiny_model, tiny_saes):
    memory.float64_need(ModelOptions(model=str(tiny_model), sae=str(tiny_saes)))
    assert torch.zeros(1).device.type == "cpu"


@pytest.fixture
def enormous(tiny_model, tmp_path):
    """A model whose config.json speaks of more parameters than any machine holds."""
    folder = shutil.copytree(tiny_model, tmp_path / "enormous")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 10**12}))
    return folder


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs_and_what_there_is(enormous, tiny_saes, monkeypatch):
    monkeypatch.setattr(memory, "memory_available", lambda: 3_200_000_000)
    options = ModelOptions(model=str(enormous), sae=str(tiny_saes), device="cpu")
    with pytest.raises(InputError) as refusal:
        memory.check_memory(options)
    assert "128000.5 GB for the whole model (16000.00 billion parameters" in str(refusal.value)  # 16 x 10^12 x 8 bytes
    assert ", but 3.2 GB are free on this machine: " in str(refusal.value)
    assert "a machine with more memory or verify a smaller model" in str(refusal.value)


@pytest.mark.parametrize("spare", [-1, 0])
def test_the_limit_is_what_is_free(tiny_model, tiny_saes, monkeypatch, spare):
    options = ModelOptions(model=str(tiny_model), sae=str(tiny_saes), device="cpu")
    need = memory.float64_need(options)
    monkeypatch.setattr(memory, "memory_available", lambda: need.total + spare)
    if spare < 0:
        with pytest.raises(InputError, match="are free on this machine"):
            memory.check_memory(options)
    else:
        memory.check_memory(options)
