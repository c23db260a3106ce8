"""Models that cannot be loaded: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import struct
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from bluffscope.errors import InputError
from bluffscope.model.failures import model_errors


class Panic(BaseException):
    """As Rust's panics arrive in Python."""


@pytest.fixture
def folder(copied, tiny_model):
    return copied(tiny_model)


@pytest.fixture
def model_refused(refused, folder, tiny_saes, pairs_file, tmp_path):
    """Run on the (damaged) copy of the model; it must be refused with these words."""

    def check(*says: str, model: object = folder, saes: object = tiny_saes, head: str = "--logprob=auto") -> str:
        flags = ["--data", pairs_file, "--out", tmp_path / "run", head]
        return refused("analyze", "--model", model, "--sae", saes, *flags, says=(str(model), *says))

    return check


def configure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_without_tokenizer_config_or_weights_is_refused(model_refused, folder, tiny_model):
    (folder / "tokenizer.json").unlink()
    model_refused("no tokenizer in this folder; copy the model's tokenizer.json there")
    shutil.copy(tiny_model / "tokenizer.json", folder)
    (folder / "model.safetensors").unlink()
    model_refused("no *.safetensors in this folder")
    (folder / "config.json").unlink()
    model_refused("no config.json in this folder; give a folder in Hugging Face layout")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_of_which_only_the_link_is_left_is_named_with_its_folder(model_refused, folder, file):
    (folder / file).unlink()
    (folder / file).symlink_to("../blobs/gone")
    model_refused(f"{file} in {folder} is a link to a file that is gone (../blobs/gone); remove the link and download")


def test_pickled_weights_are_refused_with_the_conversion(model_refused, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    model_refused("pytorch_model.bin is a pickle, which can run code", "save_pretrained(DIR) writes safetensors")


def test_a_pickle_beside_safetensors_is_never_opened(call, folder, tiny_flags):
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert call("analyze", "--model", folder, *tiny_flags[2:]).code == 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-1000], "the weights are damaged"),
        (lambda data: b"", "the weights are damaged"),
        (lambda data: b"garbage" * 100, "the weights are damaged"),
        (lambda data: struct.pack("<Q", 2**60) + data[8:], "the weights are damaged"),
        (lambda data: data[:8] + data[8:].replace(b'"shape":[', b'"shape":[9', 1), "the weights are damaged"),
    ],
    ids=["truncated", "empty", "garbage", "header of an exabyte", "shape beyond the data"],
)
def test_damaged_weights_are_refused(model_refused, folder, damage, says):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    model_refused(says, "copy them again")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a":\n ', "config.json is not valid JSON (line 2)"),
        ("", "config.json is not valid JSON"),
        ("[]", "config.json is not a JSON object"),
        ("{}", "cannot load the config.json"),
        ('{"model_type": "nope"}', "does not recognize this architecture"),
        ('{"model_type": "gemma2", "num_hidden_layers": 1000000000}', "num_hidden_layers is 1000000000"),
        ('{"model_type": "gemma2", "hidden_size": "wide"}', "config.json is damaged"),
        ('{"model_type": "t5"}', "t5 is not a causal language model"),
        ('{"model_type": "clip"}', "a model of several modalities (clip) without a causal language model"),
        ('{"model_type": "llava"}', "the weights have other shapes than config.json says"),
        ('{"model_type": "llava", "text_config": {"num_hidden_layers": 1000000}}', "num_hidden_layers is 1000000"),
    ],
)
def test_a_config_that_is_none_is_refused(model_refused, folder, text, says):
    (folder / "config.json").write_text(text)
    model_refused(says)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_an_architecture_whose_other_parts_need_a_package_is_refused_with_its_name(model_refused, folder):
    (folder / "config.json").write_text('{"model_type": "fast_vlm"}')
    model_refused("its architecture needs a package that is not installed (TimmWrapperModel requires")


@pytest.mark.parametrize("claim", [{"intermediate_size": 40}, {"hidden_size": 10**9}, {"vocab_size": 10**12}], ids=str)
def test_weights_of_other_shapes_than_the_config_says_are_refused(model_refused, folder, claim):
    configure(folder, **claim)
    model_refused("the weights have other shapes than config.json says")


def test_weights_that_are_missing_or_left_over_are_refused(model_refused, folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    stray = {**weights, "model.layers.0.mlp.extra.weight": torch.zeros(2)}
    save_file(stray, folder / "model.safetensors", metadata={"format": "pt"})
    model_refused("layers.0.mlp.extra.weight has no place in the model")
    lost = {key: value for key, value in weights.items() if "layers.2.mlp" not in key}
    save_file(lost, folder / "model.safetensors", metadata={"format": "pt"})
    model_refused("3 weights are missing, first layers.2.mlp.down_proj.weight")


def test_the_weights_of_another_architecture_are_refused(model_refused, folder, tmp_path):
    llama = tiny.save_model(tmp_path / "llama", "llama")
    shutil.copy(llama / "model.safetensors", folder)
    model_refused("weights are missing", "do not belong together")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("tokenizer.json", '{"a": ', "tokenizer.json is not valid JSON (line 1); copy it again"),
        ("tokenizer.json", "{}", "check the files in the folder"),
        ("tokenizer.json", '{"normalizer": [1]}', "the rules of its tokenizer.json are damaged"),
        ("tokenizer_config.json", '{"a": ', "tokenizer_config.json is not valid JSON (line 1); copy it again"),
    ],
)
def test_a_damaged_tokenizer_is_refused(model_refused, folder, name, text, says):
    (folder / name).write_text(text)
    model_refused(says)


def test_the_tokenizer_of_a_larger_model_is_refused(model_refused, folder):
    weights = load_file(folder / "model.safetensors")
    cut = {key: value[:100].clone() if "embed" in key else value for key, value in weights.items()}
    save_file(cut, folder / "model.safetensors", metadata={"format": "pt"})
    configure(folder, vocab_size=100)
    model_refused("its tokenizer has ids up to", "the model embeds 100; the tokenizer belongs to another model")


@pytest.mark.parametrize("head", ["--logprob", "--no-logprob"])
def test_a_model_with_fewer_layers_than_the_saes_read_is_refused(model_refused, tiny_model, tmp_path, head):
    saes = tiny.save_saes(tmp_path / "deep", (0, 9))
    model_refused("layer 9:", "has 4 layers, 0 to 3", head=head, model=tiny_model, saes=saes)


def test_code_that_comes_with_a_model_is_refused(model_refused, folder):
    configure(folder, model_type="mine", auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"})
    (folder / "code.py").write_text("raise SystemExit('this code ran')")
    model_refused("requires its own code, which is refused")


def test_paths_that_are_no_model_folder_are_refused(model_refused, tmp_path, pairs_file):
    model_refused("no such folder", model="./nowhere")
    model_refused("no such folder", model=tmp_path / "nowhere")
    model_refused("a file; give the folder that holds config.json", model=pairs_file)
    model_refused("neither a folder nor a hub id", model="a b/c")


def test_a_hub_name_that_is_not_cached_says_what_to_do_offline(model_refused):
    model_refused("not (wholly) in the Hugging Face cache", "HF_HUB_OFFLINE", "give a folder", model="nobody/nothing")
    model_refused("no such folder here", "unset that, or give a folder", model="nosuchmodel")


def index(folder, name):
    """Have the weights be those that an index names."""
    keys = list(load_file(folder / "model.safetensors"))
    weight_map = dict.fromkeys(keys, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("kind", ["pickle", "absolute", "above", "below", "number"])
def test_an_index_that_names_anything_but_safetensors_beside_it_is_refused(model_refused, folder, tmp_path, kind):
    single = folder / "model.safetensors"
    names = {"pickle": "weights.dat", "absolute": str(tmp_path / "other.safetensors"), "above": "../other.safetensors"}
    name = names.get(kind, 5 if kind == "number" else "inside/other.safetensors")
    index(folder, name)
    (folder / "inside").mkdir()
    for place in (folder / "weights.dat", tmp_path / "other.safetensors", folder / "inside" / "other.safetensors"):
        shutil.copy(single, place)
    single.rename(folder / "part.safetensors")
    model_refused(
        f"model.safetensors.index.json names {str(name)[:80]!r} as weights",
        "only *.safetensors in the model's own folder are read",
    )


def test_a_config_that_names_its_weights_is_refused(model_refused, folder):
    (folder / "weights.bin").write_bytes(b"a pickle")
    configure(folder, transformers_weights="weights.bin")
    model_refused("config.json names 'weights.bin' as weights")


def test_an_adapter_for_another_model_is_refused(model_refused, folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else"}))
    model_refused("an adapter for another model (adapter_config.json)")


def test_a_tokenizer_in_files_of_other_names_is_refused(model_refused, folder):
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said["fast_tokenizer_files"] = ["../elsewhere/tokenizer.1.json"]
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    model_refused("tokenizer_config.json names other tokenizer files")


def test_weights_that_the_user_linked_into_the_folder_are_read(call, folder, tiny_flags, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "kept.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "kept.safetensors")
    assert call("analyze", "--model", folder, *tiny_flags[2:]).code == 0


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ({"num_attention_heads": 0}, "cannot load the config.json"),
        ({"rope_parameters": {"rope_type": "linear"}}, "cannot load the config.json"),
        ({"query_pre_attn_scalar": 0}, "cannot load the model"),
        ({"hidden_activation": "nope"}, "cannot load the model"),
    ],
    ids=str,
)
def test_a_config_that_makes_a_library_fail_in_its_own_way_is_refused(model_refused, folder, claim, says):
    configure(folder, **claim)
    model_refused(says, "check the files in the folder")


def test_a_config_that_claims_more_than_the_weights_hold_takes_no_memory(model_refused, folder, monkeypatch):
    configure(folder, vocab_size=10**9)
    with monkeypatch.context() as patched:
        patched.setattr("bluffscope.model.load._load_network", lambda *_, **__: pytest.fail("it was loaded"))
        model_refused("the weights have other shapes than config.json says: it claims 16,0", "copy both from one place")


def test_a_model_without_attention_is_refused(model_refused, folder):
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    model_refused("mamba has no num_attention_heads; give a transformer with attention")


@pytest.mark.parametrize("kind", [RuntimeError, IndexError, ZeroDivisionError, AssertionError, RecursionError, Panic])
def test_whatever_a_library_raises_on_a_model_s_folder_names_the_folder(kind):
    says = pytest.raises(InputError, match=r"^--model x: cannot load the model \(.*why.*\); check")
    with says, model_errors("x", "model"):
        raise kind("why")


def test_stopping_is_no_fault_of_the_folder():
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), model_errors("x", "model"):
            raise kind
