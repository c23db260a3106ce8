"""What else a checkpoint holds than the model that is loaded: other modalities, heads, later blocks, other names."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import Gemma3Config, Gemma3TextConfig, LlamaConfig, LlavaConfig

from bluffscope.errors import InputError
from bluffscope.model.checkpoint import check_keys, language_config, renamed_weights, weight_files
from bluffscope.model.names import INDEX, check_weight_names


def test_the_language_model_of_several_modalities_keeps_what_is_said_of_them_all():
    whole = Gemma3Config(text_config={"num_hidden_layers": 2}, dtype="bfloat16")
    whole.quantization_config = {"quant_method": "torchao"}
    text = language_config("m", whole)
    assert (text.model_type, text.num_hidden_layers) == ("gemma3_text", 2)
    assert (text.dtype, text.quantization_config) == (torch.bfloat16, {"quant_method": "torchao"})
    plain = LlamaConfig()
    assert language_config("m", plain) is plain
    with pytest.raises(InputError, match=r"^--model m: a model of several modalities \(llava\); give its text model"):
        language_config("m", LlavaConfig())


@pytest.mark.parametrize(("head", "name"), [(True, "model.layers.0"), (False, "layers.0")])
def test_weights_are_found_under_the_names_of_either_publication(head, name):
    renamed = renamed_weights(Gemma3TextConfig(), head=head)
    for published in ("language_model.model.layers.0", "model.language_model.layers.0"):
        found = published
        for pattern, into in renamed.items():
            found = re.sub(pattern, into, found)
        assert found == name
    assert renamed_weights(LlamaConfig(), head=head) == {}


@pytest.mark.parametrize(
    ("config", "info", "says"),
    [
        (LlamaConfig(), {"missing_keys": ["b", "a"]}, "2 weights are missing, first a: config.json and the weights do"),
        (LlamaConfig(), {"unexpected_keys": ["model.layers.1.mlp.weight"]}, "weight model.layers.1.mlp.weight has no"),
        (LlamaConfig(), {"unexpected_keys": ["model.layers.2.mlp.weight", "lm_head.weight"]}, None),
        (LlamaConfig(), {"unexpected_keys": ["vision_tower.weight"]}, "weight vision_tower.weight has no place in the"),
        (Gemma3TextConfig(), {"unexpected_keys": ["vision_tower.weight"]}, None),
    ],
)
def test_only_later_blocks_heads_and_other_modalities_may_be_left_out(config, info, says):
    if says is None:
        check_keys("m", config, info, 2)
        return
    with pytest.raises(InputError) as refusal:
        check_keys("m", config, info, 2)
    assert str(refusal.value).startswith(f"--model m: {says}")


def test_weights_are_those_of_the_index_or_the_single_file_or_all_there_are(tmp_path):
    for name in ("b.safetensors", "a.safetensors", "c.safetensors"):
        (tmp_path / name).touch()
    assert list(weight_files(tmp_path)) == ["a.safetensors", "b.safetensors", "c.safetensors"]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}))
    assert list(weight_files(tmp_path)) == ["a.safetensors", "b.safetensors"]
    (tmp_path / "model.safetensors").touch()
    assert list(weight_files(tmp_path)) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"adapter_config.json": {}}, "an adapter for another model (adapter_config.json); merge it into that model"),
        ({INDEX: {"weight_map": [1]}}, "model.safetensors.index.json is damaged (its weight_map is not an object)"),
        ({INDEX: {"weight_map": {"x": "../b.safetensors"}}}, "names '../b.safetensors' as weights; only *.safetensors"),
        ({INDEX: {"weight_map": {"x": 3}}}, "model.safetensors.index.json names '3' as weights; only *.safetensors in"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path, files, says):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError) as refusal:
        check_weight_names("m", str(tmp_path), None, LlamaConfig())
    assert says in str(refusal.value)


def test_weights_that_the_configuration_names_are_held_to_the_same(tmp_path):
    config = LlamaConfig()
    config.transformers_weights = "weights.bin"
    with pytest.raises(InputError, match="config.json names 'weights.bin' as weights"):
        check_weight_names("m", str(tmp_path), None, config)
    config.transformers_weights = "weights.safetensors"
    check_weight_names("m", str(tmp_path), None, config)
