"""Promoted tokens read from files alone: those of the loaded model, and none where the files cannot be trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from bluffscope.features.logit_lens import promotions
from bluffscope.features.promoted import promoted_in_files
from bluffscope.features.tensor_files import stored_tensors
from bluffscope.model import load_model
from bluffscope.table.reader import Run


def made(folder: Path, model: Path, *, dtype: torch.dtype = torch.float32, hook: str = "hook_resid_post") -> Run:
    """A run's folder that names a model and an SAE of 40 directions; its norm's gain is drawn, so that it matters."""
    shutil.copytree(model, folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    width = json.loads((model / "config.json").read_text()).get("hidden_size") or 16
    for name in weights:
        if name.endswith(("model.norm.weight", "ln_f.weight", "final_layer_norm.weight")):
            weights[name].normal_(0.3, 0.5, generator=torch.Generator().manual_seed(1))
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, folder / "model" / "model.safetensors")
    (folder / "sae").mkdir()
    decoder = torch.randn(40, width, generator=torch.Generator().manual_seed(2))
    save_file({"W_dec": decoder}, folder / "sae" / "sae_weights.safetensors")
    sae = {
        "folder": str(folder / "sae"),
        "hook_name": f"blocks.1.{hook}",
        "d_in": width,
        "d_sae": 40,
        "files": sizes(folder / "sae"),
    }
    manifest = {"model": {"name": "tiny", "files": sizes(folder / "model")}, "saes": {"1": sae}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"model": str(folder / "model"), "layers": [1]}}))
    return Run(folder)


def sizes(folder: Path) -> dict[str, dict[str, int]]:
    return {path.name: {"bytes": path.stat().st_size} for path in folder.glob("*.safetensors")}


def text_of(model, token: int) -> str:
    text = model.tokenizer.decode([token])
    return model.tokenizer.convert_ids_to_tokens(token) if "\N{REPLACEMENT CHARACTER}" in text else text


@pytest.mark.parametrize("any_model", ["gemma2", "llama", "gpt2", "gpt_neox"], indirect=True)
def test_they_are_those_of_the_loaded_model(any_model, tmp_path):
    run = made(tmp_path, any_model)
    model = load_model(
        str(tmp_path / "model"), revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float32, head=True
    )
    directions = load_file(tmp_path / "sae" / "sae_weights.safetensors")["W_dec"][[3, 17]]
    best = promotions(model, directions).topk(4, dim=1).indices.tolist()
    expected = {(1, at): [text_of(model, one) for one in row] for at, row in zip((3, 17), best, strict=True)}
    assert promoted_in_files(run, {1: [3, 17]}, 4) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_is_read_as_what_it_is(tmp_path, dtype):
    tensor = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_file({"x": tensor, "n": torch.arange(3)}, tmp_path / "a.safetensors")
    found = stored_tensors([tmp_path / "a.safetensors"])
    assert found.keys() == {"x"}
    assert np.array_equal(found["x"].rows([4, 1]), tensor[[4, 1]].float().numpy())
    assert [(first, len(rows)) for first, rows in found["x"].blocks(3)] == [(0, 3), (3, 3), (6, 1)]


def test_a_file_whose_header_names_bytes_that_it_has_not_is_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    with pytest.raises(ValueError, match="x does not fit"):
        stored_tensors([tmp_path / "a.safetensors"])
    (tmp_path / "a.safetensors").write_bytes(b"not")
    with pytest.raises(ValueError, match="no safetensors file"):
        stored_tensors([tmp_path / "a.safetensors"])


def test_there_are_none_where_files_have_changed_or_another_stream_is_read(tiny_model, tmp_path):
    assert promoted_in_files(made(tmp_path / "a", tiny_model), {1: [0]}).keys() == {(1, 0)}
    assert promoted_in_files(made(tmp_path / "b", tiny_model, hook="attn.hook_z"), {1: [0]}) == {}
    changed = made(tmp_path / "c", tiny_model)
    with (tmp_path / "c" / "model" / "model.safetensors").open("ab") as file:
        file.write(b"more")
    assert promoted_in_files(changed, {1: [0]}) == {}
    gone = made(tmp_path / "d", tiny_model)
    shutil.rmtree(tmp_path / "d" / "sae")
    assert promoted_in_files(gone, {1: [0]}) == {}
