"""Quantised weights: what is rounded and what is not, how little it changes, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from bluffscope.errors import InputError
from bluffscope.model import HookPoint, ResidualReader, load_model
from bluffscope.model.forward import _check_batches
from bluffscope.model.quantize import check_quantize

CPU = torch.device("cpu")
POINTS = {layer: HookPoint.parse(f"blocks.{layer}.hook_resid_post") for layer in (0, 3)}


def installed(name):
    return importlib.util.find_spec(name) is not None


needs_torchao = pytest.mark.skipif(not installed("torchao"), reason="torchao is not installed (extra quant)")
needs_bitsandbytes = pytest.mark.skipif(
    not (installed("bitsandbytes") and installed("accelerate")), reason="bitsandbytes is not installed (extra quant)"
)


def load(folder, quantize="int8", dtype=torch.float32, blocks=4):
    return load_model(str(folder), revision=None, blocks=blocks, device=CPU, dtype=dtype, quantize=quantize)


def residuals(model):
    packed, _ = _check_batches(tiny.VOCABULARY, apart=0)
    reader = ResidualReader.create(model, POINTS)
    assert reader.packs
    return reader.read(packed).residuals


def rounded(weight):
    """Each row to 256 levels of its own, by hand; the rows are outputs."""
    scale = weight.abs().amax(1, keepdim=True) / 127.5
    # Not a division: the largest of a row lies at a tie, which the last bit decides.
    return (weight * (1 / scale)).round().clamp(-128, 127) * scale


@needs_torchao
def test_int8_residuals_are_those_of_a_model_whose_weights_were_rounded_by_hand(any_model, tmp_path):
    weights = load_file(any_model / "model.safetensors")
    for name, weight in weights.items():
        if weight.ndim == 2 and any(part in name for part in (".h.", ".layers.")):
            transposed = ".h." in name  # GPT-2 keeps them so
            weights[name] = (rounded(weight.T).T if transposed else rounded(weight)).contiguous()
    model = AutoModelForCausalLM.from_pretrained(any_model)
    model.save_pretrained(tmp_path / "rounded")
    save_file(weights, tmp_path / "rounded" / "model.safetensors", metadata={"format": "pt"})
    tiny.save_tokenizer(tmp_path / "rounded")
    expected, exact = residuals(load(tmp_path / "rounded", "none")), residuals(load(any_model, "none"))
    for layer, residual in residuals(load(any_model)).items():
        torch.testing.assert_close(residual, expected[layer], rtol=1e-3, atol=1e-3)
        assert not torch.allclose(residual, exact[layer], rtol=1e-3, atol=1e-3)


@needs_torchao
def test_every_linear_layer_is_rounded_and_nothing_else(any_model):
    from torchao.quantization import Int8Tensor

    plain, model = load(any_model, "none", blocks=2), load(any_model, blocks=2)
    kept = dict(plain.network.named_parameters())
    for name, parameter in model.network.named_parameters():
        inside = name.endswith(".weight") and parameter.ndim == 2 and ("layers." in name or "h." in name)
        assert isinstance(parameter, Int8Tensor) == inside, name
        if not inside:
            assert torch.equal(parameter, kept[name]), name
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.identity["weights"] != plain.identity["weights"]
    assert model.identity["weights"] == load(any_model, blocks=2).identity["weights"]


@needs_torchao
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_int8_weights_pack_in_half_precision(any_model, dtype):
    model = load(any_model, dtype=dtype)
    assert {residual.dtype for residual in residuals(model).values()} == {dtype}


@needs_bitsandbytes
@pytest.mark.parametrize("architecture", ["gemma2", "gpt2"])
def test_int4_weights_are_near_the_model_s_and_pack(tmp_path, monkeypatch, architecture):
    from bitsandbytes.nn import Linear4bit

    # Its kernels want widths in multiples of 32 and 64.
    wide = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32} if architecture == "gemma2" else {"n_embd": 64}
    config = tiny.ARCHITECTURES[architecture]
    monkeypatch.setitem(tiny.ARCHITECTURES, architecture, type(config).from_dict({**config.to_dict(), **wide}))

    folder = tiny.save_model(tmp_path / "model", architecture)
    plain, model = load(folder, "none"), load(folder, "int4")  # bitsandbytes has a slow way on the CPU
    blocks = [module for module in model.blocks.modules() if isinstance(module, Linear4bit)]
    assert len(blocks) == {"gemma2": 7, "gpt2": 4}[architecture] * 4
    assert not isinstance(model.network.get_input_embeddings(), Linear4bit)
    for layer, residual in residuals(model).items():
        expected = residuals(plain)[layer]
        assert 1e-4 < float((residual - expected).norm() / expected.norm()) < 0.5
    assert model.identity["weights"] != plain.identity["weights"]


@pytest.mark.parametrize(
    ("quantize", "device", "dtype", "says"),
    [
        (
            "int8",
            "cpu",
            torch.float64,
            "it rounds the weights and cannot be combined with --dtype float64",
        ),
        ("int4", "cuda", torch.float64, "--quantize int4: it rounds the weights"),
        ("int4", "cpu", torch.float32, "it runs on cuda, not on cpu; use --quantize int8"),
        ("int4", "mps", torch.float32, "it runs on cuda, not on mps; use --quantize int8 --device cpu"),
        ("int8", "mps", torch.bfloat16, "it runs on cpu or cuda, not on mps; use --quantize int8 --device cpu"),
    ],
)
def test_what_cannot_be_quantised_is_refused(quantize, device, dtype, says):
    with pytest.raises(InputError) as caught:
        check_quantize(quantize, torch.device(device), dtype)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("quantize", "package"), [("int8", "torchao"), ("int4", "bitsandbytes")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, quantize, package):
    monkeypatch.setattr("bluffscope.model.quantize.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"needs {package}, .*; pip install 'bluffscope\[quant\]'$"):
        check_quantize(quantize, torch.device("cuda"), torch.bfloat16)
    check_quantize("none", torch.device("cuda"), torch.bfloat16)


def test_a_model_that_is_quantised_already_is_refused(tiny_model, tmp_path):
    folder = tiny.save_model(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="is quantised already; leave it out"):
        load(folder)


@pytest.mark.process
@needs_torchao
def test_the_libraries_say_nothing_while_they_are_imported(tiny_model, tiny_saes, pairs_file, tmp_path):
    command = [sys.executable, "-m", "bluffscope", "analyze", "--model", str(tiny_model), "--sae", str(tiny_saes)]
    command += ["--data", str(pairs_file), "--out", str(tmp_path / "run"), "--quantize", "int8", "--allow-unsound"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().startswith("Progress: 5/5")
    assert len(done.stderr.strip().splitlines()) == 1


def test_loggers_are_as_loud_afterwards_as_before():
    from bluffscope.host.quiet import libraries_quiet

    logger = logging.getLogger("torchao")
    before = logger.level
    with libraries_quiet():
        assert logger.getEffectiveLevel() == logging.ERROR
    assert logger.level == before
