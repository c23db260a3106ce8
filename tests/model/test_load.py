"""A truncated model computes what the whole one does, from whatever its checkpoint looks like."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import tiny
from bluffscope.errors import InputError
from bluffscope.model.folder import MOST_LAYERS, check_folder
from bluffscope.model.load import choose_device, load_model, truncate

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 70, 80, 90, 100, 110, 75, 85]])


def load(folder, blocks=4, dtype=torch.float32, revision=None):
    return load_model(str(folder), revision=revision, blocks=blocks, device=CPU, dtype=dtype)


def residual(network, blocks, block):
    """The output of a block on IDS."""
    seen = []
    handle = blocks[block].register_forward_hook(
        lambda module, args, output: seen.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    with torch.no_grad():
        network(IDS, use_cache=False)
    handle.remove()
    return seen[0]


def blocks_of(model):
    inner = getattr(model, "model", None) or getattr(model, "transformer", None) or model.gpt_neox
    return inner.h if hasattr(inner, "h") else inner.layers


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_truncated_model_has_the_whole_one_s_residual_bit_for_bit(any_model, blocks):
    model = load(any_model, blocks)
    whole = AutoModelForCausalLM.from_pretrained(any_model, attn_implementation=model.config._attn_implementation)
    assert len(model.blocks) == blocks
    assert (model.full_layers, model.d_model, model.context) == (tiny.LAYERS, tiny.D_MODEL, tiny.CONTEXT)
    expected = residual(whole.eval(), blocks_of(whole), blocks - 1)
    assert torch.equal(residual(model.network, model.blocks, blocks - 1), expected)
    assert not any("lm_head" in name or "embed_out" in name for name, _ in model.network.named_parameters())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_heads_load_alike(tmp_path, monkeypatch, architecture, tied):
    config = type(tiny.ARCHITECTURES[architecture]).from_dict(tiny.ARCHITECTURES[architecture].to_dict())
    config.tie_word_embeddings = tied
    monkeypatch.setitem(tiny.ARCHITECTURES, architecture, config)
    folder = tiny.save_model(tmp_path / "model", architecture)
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) != tied
    model = load(folder, 2)
    weights = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(model.network.get_input_embeddings().weight, weights)


def test_an_embedding_that_is_kept_only_as_the_tied_head_is_found(tmp_path):
    folder = tiny.save_model(tmp_path / "model", "gemma2")
    weights = load_file(folder / "model.safetensors")
    embedding = weights.pop("model.embed_tokens.weight")
    save_file({**weights, "lm_head.weight": embedding}, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load(folder).network.get_input_embeddings().weight, embedding)


@pytest.mark.parametrize("architecture", ["gemma2", "gpt2", "gpt_neox"])
def test_sharded_safetensors_are_the_single_file(tmp_path, architecture):
    folder = tiny.save_model(tmp_path / "whole", architecture)
    whole = load(folder)
    shards = tmp_path / "shards"
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(shards, max_shard_size="10KB")
    AutoTokenizer.from_pretrained(folder).save_pretrained(shards)
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) > 2
    assert load(shards).identity["weights"] == whole.identity["weights"]
    files[0].unlink()
    with pytest.raises(InputError, match=r"^--model .*shards: cannot load the model \(.*\); check the files") as caught:
        load(shards)
    assert "\n" not in str(caught.value)


def test_weights_saved_in_float16_are_widened_exactly(tmp_path):
    folder = tiny.save_model(tmp_path / "model", "qwen3")
    half = AutoModelForCausalLM.from_pretrained(folder).half()
    half.save_pretrained(folder)
    model = load(folder)
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    expected = load_file(folder / "model.safetensors")["model.layers.3.mlp.up_proj.weight"]
    assert expected.dtype == torch.float16
    assert torch.equal(model.network.layers[3].mlp.up_proj.weight, expected.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_asked_for_is_loaded(tiny_model, dtype):
    model = load(tiny_model, dtype=dtype)
    assert {parameter.dtype for parameter in model.network.parameters()} == {dtype}
    assert model.dtype == dtype


@pytest.mark.parametrize(
    ("architecture", "stray"),
    [
        (
            "gpt2",
            {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8), "transformer.h.0.attn.masked_bias": torch.ones(1)},
        ),
        ("gpt_neox", {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8)}),
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
    ],
)
def test_buffers_that_old_checkpoints_carry_along_are_no_fault(tmp_path, architecture, stray):
    folder = tiny.save_model(tmp_path / "model", architecture)
    before = load(folder).identity["weights"]
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, **stray}, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).identity["weights"] == before


def test_the_identity_changes_with_the_weights_and_the_depth(tmp_path):
    one = load(tiny.save_model(tmp_path / "one", "llama"))
    again = load(tiny.save_model(tmp_path / "again", "llama"))
    other = load(tiny.save_model(tmp_path / "other", "llama", seed=1))
    assert one.identity["weights"] == again.identity["weights"] != other.identity["weights"]
    assert load(tmp_path / "one", 3).identity["weights"] != one.identity["weights"]
    assert one.identity == {
        "name": str(tmp_path / "one"),
        "revision": None,
        "architecture": "LlamaModel",
        "layers": 4,
        "layers_loaded": 4,
        "d_model": 16,
        "weights": one.identity["weights"],
        "files": {
            "model.safetensors": {
                "bytes": (tmp_path / "one" / "model.safetensors").stat().st_size,
                "sha256": hashlib.sha256((tmp_path / "one" / "model.safetensors").read_bytes()).hexdigest(),
            }
        },
    }


def test_more_blocks_than_there_are_are_refused(tiny_model):
    with pytest.raises(InputError, match=r"^layer 4: .* has 4 layers, 0 to 3; choose among them with --layers"):
        load(tiny_model, 5)


def test_a_tokenizer_s_unembedded_special_tokens_are_no_fault(tmp_path):
    folder = tiny.save_model(tmp_path / "model", "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<tool{number}>" for number in range(400)]})
    tokenizer.save_pretrained(folder)
    assert load(folder).tokenizer.bos_token_id == 1
    tokenizer.add_tokens(["capital"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="the tokenizer belongs to another model"):
        load(folder)


def test_the_libraries_are_as_talkative_afterwards_as_before(tiny_model):
    from transformers.utils import logging as hf_logging

    before = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    load(tiny_model)
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before
    with pytest.raises(InputError):
        load("nobody/nothing")
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("claim", [MOST_LAYERS + 1, 0, -1, "4", 2.5, [4]])
def test_a_number_of_layers_that_no_model_has_is_refused_unparsed(tmp_path, claim):
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": claim}))
    with pytest.raises(InputError, match="config.json says num_hidden_layers is"):
        check_folder(str(tmp_path))


def test_a_device_that_is_not_there_is_refused_and_auto_takes_the_best(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(InputError, match="--device mps: not available here; use --device cpu or auto"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with caplog.at_level(logging.WARNING, "bluffscope"):
        assert choose_device("auto").type == "mps"
    assert "MPS has known numerical faults" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


def file_behind(tensor):
    """The file that a tensor's memory is mapped from; empty where it is the process's own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, name = line.split(maxsplit=5) if len(line.split()) > 5 else (*line.split(), "")
        first, last = (int(address, 16) for address in addresses.split("-"))
        if first <= tensor.data_ptr() < last:
            return name
    raise AssertionError("memory that is not mapped")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what memory is mapped")
def test_weights_used_as_they_are_stored_stay_in_their_file_for_all_processes_together(tiny_model):
    """The sizing of workers on one machine counts with it."""
    stored, converted = load(tiny_model), load(tiny_model, dtype=torch.bfloat16)
    for name, weights in stored.network.named_parameters():
        assert file_behind(weights).endswith("model.safetensors"), name
    assert not any(file_behind(weights).endswith(".safetensors") for weights in converted.network.parameters())


@pytest.mark.parametrize("family", ["jamba", "recurrent_gemma", "gemma3_text"])
def test_a_configuration_that_derives_its_kinds_of_layers_is_truncated_too(family):
    config = AutoConfig.for_model(family, num_hidden_layers=6)
    truncate(config, 2)
    assert config.num_hidden_layers == 2
    assert len(config.layer_types) == 2
