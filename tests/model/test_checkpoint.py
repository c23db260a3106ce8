"""What else a checkpoint holds than the model that is loaded: other modalities, heads, later blocks, other names."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, Gemma3Config, Gemma4Config, LlamaConfig

import families
import tiny
from bluffscope.errors import InputError
from bluffscope.model import load_model
from bluffscope.model.checkpoint import check_keys, language_config, weight_files
from bluffscope.model.names import INDEX, check_weight_names
from bluffscope.pipeline.reload import weights_as_loaded


def test_the_language_model_of_several_modalities_keeps_what_is_said_of_them_all():
    whole = Gemma3Config(text_config={"num_hidden_layers": 2}, dtype="bfloat16")
    text = language_config("m", whole)
    assert (text.model_type, text.num_hidden_layers, text.dtype) == ("gemma3_text", 2, torch.bfloat16)
    assert whole.get_text_config().dtype is None, "what transformers is given stays as it is"
    assert language_config("m", LlamaConfig(vocab_size=7)).vocab_size == 7
    with pytest.raises(
        InputError, match=r"^--model m: a model of several modalities \(clip\) without a causal language"
    ):
        language_config("m", CLIPConfig())


def test_what_differs_between_blocks_can_be_asked_for():
    text = language_config("m", Gemma4Config())
    assert (text.head_dim, text.num_key_value_heads) == (256, 4)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """Folders of one whole model: with names as published, and as transformers has them."""
    whole = families.build_whole("llava").network
    folders = {}
    for original in (True, False):
        folders[original] = tmp_path_factory.mktemp("llava")
        whole.save_pretrained(folders[original], save_original_format=original)
        tiny.save_tokenizer(folders[original])
    return folders


def changed(folder, tmp_path, change):
    weights = load_file(folder / "model.safetensors")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    return str(tmp_path)


def load(folder, **options):
    return load_model(folder, revision=None, device=torch.device("cpu"), dtype=torch.float32, **options)


@pytest.mark.parametrize(
    ("original", "begins"), [(True, "language_model.model.layers."), (False, "model.language_model.")]
)
def test_the_same_language_model_is_loaded_from_either_publication_and_nothing_else(llava, original, begins):
    folder = llava[original]
    assert any(name.startswith(begins) for name in load_file(folder / "model.safetensors"))
    model = load(str(folder), blocks=2, head=True)
    assert model.identity["architecture"] == "LlavaForConditionalGeneration"
    assert (model.full_layers, len(model.blocks)) == (families.LAYERS, 2)
    assert type(model.network.base_model).__name__ == "LlamaModel"
    assert [name for name in model.network.state_dict() if "vision" in name or "projector" in name] == []
    body = load(str(folder), blocks=2)
    assert type(body.network).__name__ == "LlamaModel"
    assert body.identity["weights"] == weights_as_loaded(model, body.identity)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda weights: weights.pop("language_model.model.norm.weight"),
            "1 weights are missing, first model.language_",
        ),
        (
            lambda weights: weights.update(other=torch.ones(1)),
            "weight other has no place in the model: config.json and",
        ),
        (
            lambda weights: weights.update({"language_model.model.layers.0.extra.weight": torch.ones(1)}),
            "weight model.language_model.layers.0.extra.weight has no place in the model",
        ),
        (lambda weights: weights.update({"vision_tower.position_ids": torch.ones(1)}), None),
        (lambda weights: weights.update({"language_model.model.layers.7.mlp.weight": torch.ones(1)}), None),
    ],
    ids=["missing", "unknown", "unknown in a block", "of the vision tower", "of a later block"],
)
def test_every_weight_of_a_multimodal_checkpoint_has_its_place(llava, tmp_path, change, says):
    folder = changed(llava[True], tmp_path, change)
    if says is None:
        load(folder, blocks=2)
        return
    with pytest.raises(InputError) as refusal:
        load(folder, blocks=2)
    assert says in str(refusal.value)


def test_a_multimodal_model_that_claims_endless_blocks_is_refused_before_they_are_made(llava, tmp_path):
    shutil.copytree(llava[True], tmp_path, dirs_exist_ok=True)
    said = json.loads((tmp_path / "config.json").read_text())
    said["text_config"]["num_hidden_layers"] = 10**6
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="config.json says num_hidden_layers is 1000000; copy it again"):
        load(str(tmp_path), blocks=2)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"missing_keys": ["b", "a"]}, "2 weights are missing, first a: config.json and the weights do"),
        ({"unexpected_keys": ["model.layers.1.mlp.weight"]}, "weight model.layers.1.mlp.weight has no"),
        ({"unexpected_keys": ["model.layers.2.mlp.weight", "lm_head.weight"]}, None),
        ({"unexpected_keys": ["vision_tower.weight"]}, "weight vision_tower.weight has no place in the"),
    ],
)
def test_only_later_blocks_and_heads_may_be_left_out(info, says):
    if says is None:
        check_keys("m", info, 2)
        return
    with pytest.raises(InputError) as refusal:
        check_keys("m", info, 2)
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
