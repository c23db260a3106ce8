"""GGUF files as models: converted once, equal to what was written, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from bluffscope.cli.main import main
from bluffscope.errors import InputError
from bluffscope.host.weights_digest import sha256_of
from bluffscope.model import gguf as module
from bluffscope.model.load import load_model, load_tokenizer

TEXT = "The capital of France is Paris"
ARCHITECTURES: dict[str, dict[str, int]] = {"llama": {}, "gpt2": {"n_positions": (GPT2_CONTEXT := 1024)}}
"""With what is changed in the tiny models: transformers takes every GPT-2 in a GGUF file for one of 1024 positions."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bluffscope" / "gguf"


def write_gguf(model: Path, file: Path, architecture: str, *, blocks: int = tiny.LAYERS, leave_out: str = "-") -> Path:
    """A model in Hugging Face layout as llama.cpp writes it, in float32, with its byte-level tokenizer."""
    config = json.loads((model / "config.json").read_text())
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "gpt2": gguf.MODEL_ARCH.GPT2}[architecture]
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(blocks)
    writer.add_context_length(config.get("max_position_embeddings", GPT2_CONTEXT))
    writer.add_embedding_length(tiny.D_MODEL)
    writer.add_head_count(2)
    if architecture == "llama":
        writer.add_head_count_kv(1)
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(10000.0)
    else:
        writer.add_feed_forward_length(4 * tiny.D_MODEL)
        writer.add_layer_norm_eps(1e-5)
    add_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()))
    names = gguf.get_tensor_name_map(kind, tiny.LAYERS)
    for name, tensor in load_file(model / "model.safetensors").items():
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if leave_out not in written:
            writer.add_tensor(written, as_llama_cpp(written, tensor.numpy(), architecture))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def as_llama_cpp(name: str, weights: np.ndarray, architecture: str) -> np.ndarray:
    """Llama's queries and keys turn neighbours, not halves; GPT-2's layers lie the other way round."""
    if architecture == "gpt2" and name.endswith((*(f"{part}.weight" for part in ("qkv", "output", "up", "down")),)):
        return np.ascontiguousarray(weights.T)
    if architecture == "llama" and ("attn_q." in name or "attn_k." in name):
        heads = 2 if "attn_q." in name else 1
        return weights.reshape(heads, 2, len(weights) // heads // 2, -1).swapaxes(1, 2).reshape(weights.shape)
    return weights


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict) -> None:
    vocabulary = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens += [f"unused{index}" for index in range(tiny.VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Two tiny models, each with a GGUF file in a folder of its own."""
    folder = tmp_path_factory.mktemp("gguf")
    found = {name: tiny.save_model(folder / name, name, **changes) for name, changes in ARCHITECTURES.items()}
    for name, model in found.items():
        (folder / f"{name}-file").mkdir()
        write_gguf(model, folder / f"{name}-file" / "tiny.gguf", name)
    return found


def file_of(models: dict[str, Path], name: str) -> Path:
    return models[name].parent / f"{name}-file" / "tiny.gguf"


def load(file: Path):
    return load_model(str(file), revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float32, head=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_gguf_file_gives_the_logits_and_ids_of_the_model_it_was_written_from(models, name):
    ours, theirs = load(file_of(models, name)), AutoModelForCausalLM.from_pretrained(models[name]).eval()
    ids = AutoTokenizer.from_pretrained(models[name])(TEXT, return_tensors="pt")["input_ids"]
    assert ours.tokenizer(TEXT, add_special_tokens=False)["input_ids"] == ids[0].tolist()
    assert (ours.tokenizer.bos_token_id, ours.tokenizer.eos_token_id) == (1, 2)
    with torch.inference_mode():
        expected = theirs(ids).logits
        assert torch.allclose(
            ours.network(ids).logits, expected, rtol=0, atol=1e-5 * float(expected.norm(dim=-1).max())
        )


def test_a_gguf_file_is_converted_once_and_named_by_its_hash(models, cache, monkeypatch):
    file = file_of(models, "llama")
    identity = load(file).identity
    assert (identity["name"], list(identity["files"])) == (str(file), ["tiny.gguf"])
    assert identity["files"]["tiny.gguf"] == {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert folder.name.startswith(sha256_of(file)[:32])
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert not [path for path in folder.iterdir() if path.suffix == ".gguf"]
    monkeypatch.setattr(module, "_convert", lambda *_: pytest.fail("converted twice"))
    assert load(file).identity == identity
    assert load_tokenizer(str(file), None).context == tiny.CONTEXT


def test_a_run_takes_a_gguf_file_for_a_model(models, tiny_saes, pairs_file, tmp_path):
    rows = {}
    for place in (models["llama"], file_of(models, "llama")):
        out = tmp_path / place.name
        given = ["--model", place, "--sae", tiny_saes, "--data", pairs_file, "--layers", 1, "--out", out]
        assert main(["analyze", *map(str, given), "--allow-unsound"]) == 0
        rows[place.name] = json.loads((out / "manifest.json").read_text())
    assert rows["tiny.gguf"]["model"]["files"]["tiny.gguf"]["sha256"] == sha256_of(file_of(models, "llama"))
    assert rows["tiny.gguf"]["model"]["weights"] == rows["llama"]["model"]["weights"]


def refused(file: Path, *says: str) -> None:
    with pytest.raises(InputError) as error:
        load(file)
    message = str(error.value)
    assert message.startswith(f"--model {file}: ")
    assert "\n" not in message
    assert not [part for part in says if part not in message], message


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:3000],
        lambda data: data[:30],
        lambda data: b"",
        lambda data: b"no GGUF file at all" * 100,
        lambda data: data[:8] + b"\xff" * 7 + data[15:],
    ],
    ids=["half", "in the vocabulary", "in the header", "empty", "something else", "an exabyte of tensors"],
)
def test_a_damaged_gguf_file_is_refused_and_leaves_nothing(models, tmp_path, cache, damage):
    file = tmp_path / "damaged.gguf"
    file.write_bytes(damage(file_of(models, "llama").read_bytes()))
    refused(file, "the GGUF file is damaged", "copy it again")
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_gguf_file_of_another_architecture_is_refused(models, tmp_path):
    file = tmp_path / "other.gguf"
    file.write_bytes(file_of(models, "llama").read_bytes().replace(b"llama", b"lhama"))
    refused(file, "transformers cannot read it", "lhama", "give the model's folder or hub id")


def test_a_gguf_file_without_some_weights_is_refused(models, tmp_path, cache):
    file = write_gguf(models["llama"], tmp_path / "part.gguf", "llama", leave_out="blk.3.ffn_up")
    refused(file, "1 weights are missing", "layers.3.mlp.up_proj.weight", "holds the whole model")
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_gguf_file_that_claims_more_layers_than_it_holds_is_refused_before_they_are_made(models, tmp_path):
    refused(write_gguf(models["llama"], tmp_path / "deep.gguf", "llama", blocks=10**9), "claims 1000000000 layers")


def test_without_package_gguf_the_command_that_installs_it_is_named(models, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    refused(file_of(models, "llama"), "run: pip install 'bluffscope[gguf]'")


def test_a_folder_with_a_gguf_file_alone_says_which_file_to_name(models):
    file = file_of(models, "llama")
    with pytest.raises(InputError, match=rf"--model {file.parent}: no config.json .*: give --model {file}$"):
        load(file.parent)


def test_without_a_place_for_the_converted_model_it_says_so(models, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    refused(file_of(models, "llama"), "its float32 copy needs room in the cache folder")
