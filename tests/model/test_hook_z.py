"""hook_z: what the attention heads give, one after the other, before the output projection."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM

import bluffscope
import compare
import made_saes as made
import measuring
import tiny
from bluffscope.api import config_from, run
from bluffscope.cli.main import main
from bluffscope.detectors.files import read_detector
from bluffscope.errors import InputError
from bluffscope.features.ablation import Removal
from bluffscope.features.logit_lens import promoted_tokens
from bluffscope.health import diagnose
from bluffscope.model import HookPoint, ResidualReader, load_model
from bluffscope.model.sublayers import placed
from bluffscope.pipeline.plan import pack
from bluffscope.records import Sequence
from bluffscope.sae import find_saes, load_coders
from bluffscope.table.reader import read_run
from random_pairs import random_pairs

POINT = "attn.hook_z"
TEXT = (1, *range(40, 300, 17))
WIDTH = 20
"""Two heads of ten: not the width of the residual stream."""


def wide(folder, architecture="llama", **options):
    """A model whose heads are together wider than its residual stream, where its family can be so."""
    changes = {} if architecture in ("gpt2", "gpt_neox") else {"head_dim": WIDTH // 2}
    return tiny.save_model(folder, architecture, **changes, **options)


def read(folder, points, dtype=torch.float64):
    model = load_model(str(folder), revision=None, blocks=tiny.LAYERS, device=torch.device("cpu"), dtype=dtype)
    points = placed(points, model.name, model.network, model.blocks)
    views = [Sequence(0, n, TEXT, reads=tuple(range(len(TEXT))) if n == 0 else (0,)) for n in range(3)]
    found = ResidualReader.create(model, points).read(pack(views, {0: 0}, 100)).residuals
    return model, points, {layer: states[: len(TEXT)] for layer, states in found.items()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "gpt_neox", "qwen3"])
def test_what_is_read_is_each_head_s_pattern_times_its_values_and_projects_to_attn_out(architecture, tmp_path):
    """TransformerLens's z of a head: attention pattern times value, here from transformers' own patterns."""
    folder = wide(tmp_path / "model", architecture)
    layers = range(tiny.LAYERS)
    model, points, found = read(folder, {layer: HookPoint.parse(f"blocks.{layer}.{POINT}") for layer in layers})
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    blocks = next(module for module in network.modules() if isinstance(module, torch.nn.ModuleList))
    values, given = {}, {}
    for layer, block in enumerate(blocks):
        modules = dict(block.named_modules())
        name = next(n for n in ("self_attn.v_proj", "attn.c_attn", "attention.query_key_value") if n in modules)
        modules[name].register_forward_hook(lambda _m, _a, out, layer=layer: values.update({layer: out[0]}))
        name = next(n for n in ("self_attn.o_proj", "attn.c_proj", "attention.dense") if n in modules)
        modules[name].register_forward_pre_hook(lambda _m, args, layer=layer: given.update({layer: args[0][0]}))
        assert points[layer].part == name
    with torch.no_grad():
        patterns = network(torch.tensor([TEXT]), output_attentions=True, use_cache=False).attentions
    for layer in layers:
        pattern = patterns[layer][0]  # (head, query, key)
        width = found[layer].shape[1]
        v = values[layer]  # (token, kv head * head_dim); of fused projections the last third
        if architecture == "gpt2":
            v = v[:, 2 * width :]
        if architecture == "gpt_neox":
            v = v.view(len(v), 2, 3, -1)[:, :, 2].reshape(len(v), -1)
        v = v.view(len(v), -1, width // 2)  # (token, kv head, head_dim)
        z = torch.einsum("hqk,khd->qhd", pattern.to(v), v.expand(-1, 2, -1)).flatten(1)
        assert width == (WIDTH if architecture in ("llama", "gemma2", "qwen3") else tiny.D_MODEL)
        # packed against alone: in most families the softmax is of float32
        torch.testing.assert_close(found[layer], given[layer], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[layer], z, rtol=1e-5, atol=1e-5)
    # its projection is the sublayer's part, before Gemma 2's norm
    _, parts, added = read(folder, {1: HookPoint.parse("blocks.1.hook_attn_out")})
    with torch.no_grad():
        out = model.blocks[1].get_submodule(points[1].part)(found[1])
        if architecture == "gemma2":
            out = model.blocks[1].get_submodule(parts[1].part)(out)
    torch.testing.assert_close(out, added[1], rtol=1e-5, atol=1e-5)


def save_saes(folder, layers=(0, 1, 3), width=WIDTH, **changes):
    """SAEs of hook_z, as SAELens saves them."""
    for layer in layers:
        file = tiny.save_sae(folder, layer, point=POINT, d_in=width) / "cfg.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"reshape_activations": "hook_z"} | changes))
    return folder


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "gated", "layer-normed", "matching_pursuit"])
def test_features_are_those_of_saelens_which_takes_the_heads_apart(architecture, tmp_path):
    file = made.make(architecture, tmp_path) / "layer_0" / "cfg.json"
    said = json.loads(file.read_text()) | {"reshape_activations": "hook_z"}
    said["metadata"]["hook_name"] = f"blocks.0.{POINT}"
    file.write_text(json.dumps(said))
    coder, theirs = (
        load_coders(find_saes(str(tmp_path), ()), device="cpu", dtype=torch.float32)[0],
        SAE.load_from_disk(file.parent),
    )
    x = made.residuals()
    heads = x.view(len(x), 3, made.D_IN // 3)
    features, reconstruction = coder.encode_decode(x)
    with torch.no_grad():
        expected = theirs.encode(heads)
        decoded = theirs.decode(expected)
    assert decoded.shape == heads.shape
    torch.testing.assert_close(features.values, expected[expected > 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reconstruction, decoded.flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_the_whole_analysis_of_hook_z_equals_the_reference(architecture, tmp_path):
    model = wide(tmp_path / "model", architecture)
    width = tiny.D_MODEL if architecture in ("gpt2", "gpt_neox") else WIDTH
    saes = save_saes(tmp_path / "saes", width=width, reshape_activations="none")
    pairs = measuring.as_pairs(random_pairs(3, count=8))
    table = measuring.measure(measuring.make_worker(model, saes, noise_draws=2), pairs)
    expected = measuring.load_oracle(model, saes).rows(pairs, noise_draws=2)
    compare.assert_same(table, expected, "float64", draws=2)
    strategy = measuring.measure(measuring.make_worker(model, saes, noise_draws=2, strategy="sequential"), pairs)
    compare.assert_same(strategy, expected, "float64", draws=2)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_run_is_checked_by_the_health_gate_and_its_rivals_are_other_layers_hook_z(architecture, tmp_path):
    model = wide(tmp_path / "model", architecture)
    width = WIDTH if architecture == "llama" else tiny.D_MODEL
    saes = save_saes(tmp_path / "saes", (0, 1), width=width)
    tiny.save_sae(saes, 3)  # of the residual stream, in the same run
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)
    options = {"model": str(model), "sae": str(saes), "data": str(data), "device": "cpu"}
    checks = diagnose(config_from(**options)).checks  # with SAELens's own features
    of_points = {check.layer: check.seen for check in checks if check.check.startswith("hook point")}
    assert "attn.hook_z" in of_points[0] and "attn.hook_z" in of_points[1]
    assert "resid_post" not in of_points[0] + of_points[1]
    for title in ("packed = single", "features = SAELens"):
        assert {check.severity for check in checks if check.check.startswith(title)} == {"ok"}, title
    done = run(config_from(out=tmp_path / "run", keep_residuals=True, **options), draw=False)
    assert "attn.hook_z" in json.dumps(done.manifest)
    kept = read_run(tmp_path / "run")
    with pytest.raises(InputError, match="--tokens: the SAE of layer 1 reads hook_z, no residual stream; leave"):
        promoted_tokens(kept, {1: [0]}, "cpu")
    assert promoted_tokens(kept, {3: [0]}, "cpu")
    loaded = bluffscope.read_run(tmp_path / "run")
    assert [loaded.residuals(layer, "fact").shape[1] for layer in (0, 3)] == [width, tiny.D_MODEL]


def test_hook_z_shifted_by_a_layer_fits_worse_there(tmp_path):
    """The rivals are tried in earnest: with another block's name the explained variance is another."""
    model = wide(tmp_path / "model")
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)
    seen = []
    for block in (0, 1):
        saes = save_saes(tmp_path / str(block), (1,))
        file = saes / "layer_1" / "cfg.json"
        file.write_text(file.read_text().replace("blocks.1.", f"blocks.{block}."))
        found = diagnose(config_from(model=str(model), sae=str(saes), data=str(data), device="cpu")).checks
        seen.append(next(check.seen for check in found if check.check == "explained variance"))
    assert seen[0] != seen[1]


def test_a_feature_is_removed_from_what_the_projection_is_given(tmp_path):
    folder = wide(tmp_path / "model")
    coders = load_coders(find_saes(str(save_saes(tmp_path / "saes", (1,))), ()), device="cpu", dtype=torch.float64)
    model, points, found = read(folder, {1: HookPoint.parse(f"blocks.1.{POINT}")})
    features = coders[1].encode(found[1])
    chosen = int(features.indices[0])
    removal = Removal(coders[1], points[1], [chosen])
    given = []
    with points[1].alter(model.blocks, removal.at(torch.ones(1, len(TEXT), dtype=torch.bool))):
        module = model.blocks[1].get_submodule(points[1].part)
        with module.register_forward_pre_hook(lambda _module, args: given.append(args[0][0])), torch.no_grad():
            model.network(torch.tensor([TEXT]), use_cache=False)
    dense = coders[1].sae.encode(found[1])[:, chosen, None]
    torch.testing.assert_close(given[0], found[1] - dense * coders[1].decoder[chosen], rtol=1e-5, atol=1e-5)
    assert removal.share > 0


def test_centring_the_writing_weights_leaves_the_heads_outputs_alone(tmp_path):
    folder = wide(tmp_path / "model", "gpt2")
    _, points, found = read(folder, {1: HookPoint.parse(f"blocks.1.{POINT}", centred=True)})
    assert not points[1].centred
    assert found[1].mean(dim=1).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hook_head_index": 3}, "layer 1: it reads head 3 alone; give SAEs of all heads' outputs, hook_z"),
        ({"model_from_pretrained_kwargs": {"fold_value_biases": True}}, "a model loaded with fold_value_biases=True"),
    ],
    ids=str,
)
def test_single_heads_and_models_whose_values_were_changed_are_refused(changes, says, tmp_path):
    file = save_saes(tmp_path, (1,)) / "layer_1" / "cfg.json"
    said = json.loads(file.read_text())
    said["metadata"] |= changes
    file.write_text(json.dumps(said))
    with pytest.raises(InputError, match=says):
        load_coders(find_saes(str(tmp_path), ()), device="cpu", dtype=torch.float32)


def test_an_sae_of_another_width_is_refused_by_the_width_that_the_heads_have(tmp_path):
    model, saes = wide(tmp_path / "model"), save_saes(tmp_path / "saes", (1,), width=tiny.D_MODEL)
    with pytest.raises(InputError, match=r"layer 1: it reads 16 dimensions, but attn.hook_z of .* has 20; give SAEs"):
        measuring.make_worker(model, saes)


def test_the_trajectory_is_refused_in_one_line(tmp_path):
    model, saes = wide(tmp_path / "model"), save_saes(tmp_path / "saes", (1,))
    with pytest.raises(InputError, match="reads attn.hook_z, which is no residual stream; use --no-trajectory"):
        measuring.make_worker(model, saes, trajectory=True)


def test_a_detector_on_what_layers_of_several_widths_read_is_trained_and_scores(tmp_path, capsys):
    model = wide(tmp_path / "model")
    saes = save_saes(tmp_path / "saes", (1,))
    tiny.save_sae(saes, 3)
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", random_pairs(5, count=40))
    options = {"model": str(model), "sae": str(saes), "data": str(data), "keep_residuals": True}
    run(config_from(out=tmp_path / "run", device="cpu", **options), draw=False)
    kept, texts = tmp_path / "detector", tmp_path / "texts.jsonl"
    forced = ["--allow-unsound", "--allow-weak", "--out", str(kept)]  # of random SAEs and labels
    assert main(["detect", "train", str(tmp_path / "run"), "--on", "residual", *forced]) == 0, capsys.readouterr().err
    pl.DataFrame({"prompt": ["The capital of France is"], "completion": ["Paris"]}).write_ndjson(texts)
    out = tmp_path / "scores.jsonl"
    assert main(["detect", "score", str(kept), "--data", str(texts), "--out", str(out)]) == 0, capsys.readouterr().err
    assert 0 < json.loads(out.read_text())["probability"] < 1
    assert len(read_detector(kept).linear.weights) == WIDTH + tiny.D_MODEL
