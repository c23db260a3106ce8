"""The logit lens: the reference's, which lets the model finish from each layer, and plain transformers' by hand."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import polars as pl
import pytest
import scipy.spatial.distance
import torch

import bluffscope
import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.metrics import TRAJECTORY
from bluffscope.model import Head, load_model
from bluffscope.model import lens as lens_module
from bluffscope.model.hooks import HookPoint
from bluffscope.model.lens import Lens
from compare import assert_same
from random_pairs import random_pairs

CPU = torch.device("cpu")
LAYERS = (0, 1, 2, 3)
BARE = {"layers": "all", "logprob": True}


@functools.cache
def bare_oracle(model, dtype="float64"):
    """The whole model for the reference, without SAEs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    return measuring.Oracle(network, AutoTokenizer.from_pretrained(model), {})


def measured(model, pairs, **options):
    return measuring.measure(measuring.make_worker(model, "none", **{**BARE, **options}), pairs)


def expected(model, pairs, dtype="float64", **options):
    return bare_oracle(model, dtype).rows(pairs, layers=LAYERS, trajectory=True, logprob=True, **options)


def whole(folder, dtype=torch.float64):
    return load_model(str(folder), revision=None, blocks=None, device=CPU, dtype=dtype, head=True)


@pytest.mark.parametrize("strategy", ["packed", pytest.param("batched", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.thorough)])
def test_every_architecture_gives_the_reference_s_trajectory(any_model, strategy, dtype):
    pairs = measuring.as_pairs(random_pairs(8))
    table = measured(any_model, pairs, dtype=dtype, strategy=strategy)
    rows = expected(any_model, pairs, dtype)
    assert {column.name for column in TRAJECTORY.columns(LAYERS)} <= set(rows[0])
    result = assert_same(table, rows, dtype)
    for name in ("lens_logprob", "lens_entropy", "lens_js", "residual_norm"):
        assert result.largest[name].ratio < (1e-3 if dtype == "float64" else 1)
    assert result.largest["lens_rank"].ratio < (1e-9 if dtype == "float64" else 2)


def test_the_last_layer_s_lens_is_the_model_s_own_prediction(any_model):
    table = measured(any_model, measuring.as_pairs(tiny.PAIRS), dtype="float32")
    for view in ("fact", "hall"):
        own = table[f"logprob_per_token_{view}"].to_numpy()
        assert table[f"l3_{view}_lens_logprob"].to_numpy() == pytest.approx(own, abs=1e-5)
        assert table[f"l3_{view}_lens_js"].to_list() == [0.0] * len(table)
        assert (table[f"l0_{view}_lens_js"] > 0).all()


def test_its_definition_holds_by_hand(tiny_model):
    (pair,) = measuring.as_pairs(tiny.PAIRS[2:3])
    row = measured(tiny_model, [pair]).row(0, named=True)
    oracle = bare_oracle(tiny_model)
    text = oracle.tokenizer(pair.text("fact", "auto"), add_special_tokens=False)["input_ids"]
    prompt = oracle.tokenizer(pair.prompt, add_special_tokens=False)["input_ids"]
    ids = [oracle.tokenizer.bos_token_id, *text]
    with torch.no_grad():
        states = oracle.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        head = [oracle.model.lm_head(oracle.model.model.norm(states[2][0])), oracle.model.lm_head(states[-1][0])]
    cap = oracle.model.config.final_logit_softcapping
    first, last = ((cap * (logits / cap).tanh()).softmax(-1).double().numpy()[len(prompt) : -1] for logits in head)
    following = ids[len(prompt) + 1 :]
    chosen = first[np.arange(len(following)), following]
    assert row["l1_fact_lens_logprob"] == pytest.approx(np.log(chosen).mean(), rel=1e-5)
    assert row["l1_fact_lens_entropy"] == pytest.approx(-(first * np.log(first)).sum(1).mean(), rel=1e-5)
    js = [scipy.spatial.distance.jensenshannon(a, b, base=2) ** 2 for a, b in zip(first, last, strict=True)]
    assert row["l1_fact_lens_js"] == pytest.approx(np.mean(js), rel=1e-4)
    assert row["l1_fact_lens_rank"] == np.median((first > chosen[:, None]).sum(1) + 1)
    here, there = states[2][0, -1].numpy(), states[2][0, len(prompt)].numpy()
    assert row["l1_fact_residual_norm"] == pytest.approx(np.linalg.norm(here), rel=1e-5)
    cosine = here @ there / np.linalg.norm(here) / np.linalg.norm(there)
    assert row["l1_fact_prompt_cosine"] == pytest.approx(cosine, rel=1e-5)


@pytest.mark.thorough
def test_all_that_stands_behind_the_last_block_is_applied(tmp_path):
    """Soft-capping, scales, a head with bias, a head that is the embedding, LayerNorm, a projection."""
    from transformers import CohereConfig, GraniteConfig, OPTConfig, PhiConfig

    keep = {name: value for name, value in tiny.ARCHITECTURES["llama"].to_dict().items() if name in tiny._COMMON}
    configs = {
        "cohere": CohereConfig(**keep, logit_scale=0.25),
        "granite": GraniteConfig(**keep, logits_scaling=4.0),
        "phi": PhiConfig(**{name: value for name, value in keep.items() if name != "head_dim"}),
        "opt": OPTConfig(
            vocab_size=tiny.VOCABULARY,
            hidden_size=tiny.D_MODEL,
            ffn_dim=32,
            num_hidden_layers=tiny.LAYERS,
            num_attention_heads=2,
            max_position_embeddings=tiny.CONTEXT,
            word_embed_proj_dim=8,
            bos_token_id=1,
        ),
        "tied": type(tiny.ARCHITECTURES["llama"])(**{**keep, "tie_word_embeddings": True}),
    }
    pairs = measuring.as_pairs(tiny.PAIRS)
    for name, config in configs.items():
        model = tiny.save_random(tmp_path / name, config)
        table = measured(model, pairs)
        for view in ("fact", "hall"):
            own = table[f"logprob_per_token_{view}"].to_numpy()
            assert table[f"l3_{view}_lens_logprob"].to_numpy() == pytest.approx(own, abs=1e-9), name
        if name != "opt":  # the reference knows no list of its blocks
            assert_same(table, expected(model, pairs), "float64")
    capped = tiny.save_model(tmp_path / "capped", "gemma2", final_logit_softcapping=0.5)
    assert_same(measured(capped, pairs), expected(capped, pairs), "float64")


def test_blocks_of_any_size_give_the_same(any_model, monkeypatch):
    pairs = measuring.as_pairs(tiny.PAIRS)
    together = measured(any_model, pairs)
    monkeypatch.setattr(lens_module, "LENS_BYTES", {"cpu": 1})
    monkeypatch.setattr(lens_module, "_CELLS", {"cpu": 1})
    assert_same(measured(any_model, pairs), together, "float64")


def test_what_the_lens_holds_is_bounded_whatever_the_vocabulary(tiny_model):
    model = whole(tiny_model, torch.float32)
    points = {layer: HookPoint(layer, "hook_resid_post") for layer in LAYERS}
    lens = Lens.create(model, Head.create(model), points)
    sizes = []

    class Watching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.device.type == "cpu":
                sizes.append(out.numel())
            return out

    wide = dataclasses.replace(lens.head, weight=torch.randn(400_000, tiny.D_MODEL))
    states = {layer: torch.randn(200, tiny.D_MODEL) for layer in LAYERS}
    with torch.inference_mode(), Watching():
        dataclasses.replace(lens, head=wide).read(states, states[3], torch.arange(200))
    assert 4 * max(sizes) <= lens_module.LENS_BYTES["cpu"] < 4 * 200 * 400_000


def test_a_run_with_saes_measures_it_where_it_is_asked_to(tmp_path, tiny_model, tiny_saes):
    pairs = measuring.as_pairs(tiny.PAIRS)
    oracle = measuring.load_oracle(tiny_model, tiny_saes)
    worker = measuring.make_worker(tiny_model, tiny_saes, trajectory=True, noise_draws=1)
    assert_same(measuring.measure(worker, pairs), oracle.rows(pairs, trajectory=True, noise_draws=1), "float64")
    plain = measuring.measure(measuring.make_worker(tiny_model, tiny_saes, noise_draws=1), pairs)
    assert not [name for name in plain.columns if "lens" in name or "residual_norm" in name]
    sublayers = tiny.save_saes(tmp_path / "saes", (1,), point="hook_mlp_out")
    with pytest.raises(InputError, match="hook_mlp_out, which is no residual stream; use --no-trajectory"):
        measuring.make_worker(tiny_model, sublayers, trajectory=True)


def test_half_precision_keeps_logits_in_float32(tiny_model):
    pairs = measuring.as_pairs(tiny.PAIRS)
    table, exact = measured(tiny_model, pairs, dtype="bfloat16"), measured(tiny_model, pairs, dtype="float32")
    own = table["logprob_per_token_fact"].to_numpy()
    assert table["l3_fact_lens_logprob"].to_numpy() == pytest.approx(own, abs=1e-5)
    assert table["l1_fact_lens_logprob"].to_list() == pytest.approx(exact["l1_fact_lens_logprob"].to_list(), rel=0.1)


def test_a_model_that_does_more_than_call_modules_is_refused(tiny_model):
    model = whole(tiny_model)
    model.network.model.register_forward_hook(
        lambda _module, _args, output: type(output)(last_hidden_state=output.last_hidden_state + 1)
    )
    with pytest.raises(InputError, match="--no-trajectory"):
        Lens.create(model, Head.create(model), {0: HookPoint(0, "hook_resid_post")})


@pytest.mark.parametrize("position", ["completion-mean", pytest.param("divergence", marks=pytest.mark.thorough)])
def test_positions_move_the_residual_and_not_the_lens(tiny_model, position):
    pairs = measuring.as_pairs(tiny.PAIRS)
    last, other = measured(tiny_model, pairs), measured(tiny_model, pairs, position=position)
    assert_same(other, expected(tiny_model, pairs, position=position), "float64", position=position)
    assert not np.allclose(other["l1_fact_residual_norm"], last["l1_fact_residual_norm"])
    assert np.allclose(other["l1_fact_lens_rank"], last["l1_fact_lens_rank"])


def test_it_is_on_by_default_without_saes_and_can_be_switched_off(tmp_path, tiny_model):
    pairs = [{name: pair[name] for name in ("prompt", "fact", "hallucination")} for pair in tiny.PAIRS]
    asked = {"model": str(tiny_model), "sae": "none", "layers": [0, 3], "dtype": "float64", "logprob": False}
    table = bluffscope.analyze(pairs, out=tmp_path / "run", **asked)
    columns = [name for name in table.columns if name.startswith("l")]
    assert columns == [column.name for column in TRAJECTORY.columns((0, 3))]
    assert bluffscope.read_run(tmp_path / "run").config["measure"]["trajectory"] == "on"
    off = bluffscope.analyze(pairs, **asked | {"trajectory": False, "logprob": True})
    assert [name for name in off.columns if name.startswith("l")] == [
        f"{name}_{part}" for name in ("logprob", "logprob_per_token") for part in ("fact", "hall", "diff")
    ]
    for strategy in ("sequential", "batched"):
        other = bluffscope.analyze(pairs, strategy=strategy, **asked)
        assert_same(other.cast({pl.Categorical: pl.String}), table.cast({pl.Categorical: pl.String}), "float64")
