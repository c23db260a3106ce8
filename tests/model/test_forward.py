"""Residuals at every hook point equal those of the whole Hugging Face model, truncated and packed as ours is."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.model import HookPoint, ResidualReader, load_model
from bluffscope.model.sublayers import placed
from bluffscope.pipeline.plan import pack, pad
from bluffscope.records import VIEWS, Sequence
from random_pairs import random_pairs

CPU = torch.device("cpu")
BLOCK = 2
POINTS = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


def load(folder, blocks=tiny.LAYERS, dtype=torch.float64):
    return load_model(str(folder), revision=None, blocks=blocks, device=CPU, dtype=dtype)


def texts(seed=0, count=6):
    """Views of two pairs that share prefixes in several ways; every token is read."""
    rng = np.random.default_rng(seed)
    stem = (1, *rng.integers(3, 300, size=9).tolist())
    made = []
    for number in range(count):
        ids = (*stem[: 4 + number], *rng.integers(3, 300, size=8).tolist())
        made.append(Sequence(item=number // 3, view=number % 3, ids=ids, reads=tuple(range(len(ids)))))
    return made


SLOTS = {0: 0, 1: 1}


def full_residuals(folder, sequences, layers, dtype=torch.float64):
    """Residuals of each text alone in the whole model, by its own `hidden_states`, in the order of the reads."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found = {layer: [] for layer in layers}
    for sequence in sequences:
        with torch.no_grad():
            hidden = network(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states
        for layer in layers:
            found[layer].append(hidden[layer + 1][0, list(sequence.reads)])
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def apart(ours, theirs):
    """Largest relative difference over the reads."""
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_packed_residuals_equal_the_hidden_states_of_the_whole_model(any_model, dtype):
    sequences, layers = texts(), (2, 0, 1)  # the last layer's hidden state is after the final norm
    points = {layer: HookPoint(layer, "hook_resid_post") for layer in layers}
    reader = ResidualReader.create(load(any_model, blocks=3, dtype=dtype), points)
    batch = pack(sequences, SLOTS, 1000)
    assert len(batch.row_lengths) == 1
    residuals = reader.read(batch).residuals
    assert tuple(residuals) == layers
    expected = full_residuals(any_model, sequences, layers, dtype)
    for layer in layers:
        assert apart(residuals[layer], expected[layer]) < (1e-6 if dtype == torch.float64 else 1e-5)


def test_the_last_layer_is_read_before_the_final_norm(any_model):
    network = AutoModelForCausalLM.from_pretrained(any_model, dtype=torch.float64).eval()
    sequence = dataclasses.replace(texts()[0], item=0)
    last = tiny.LAYERS - 1
    reader = ResidualReader.create(load(any_model), {last: HookPoint(last, "hook_resid_post")})
    ours = reader.read(pack([sequence], {0: 0}, 100)).residuals[last]
    base = network.base_model
    norm = next(getattr(base, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(base, name))
    with torch.no_grad():
        after = network(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states[-1][0]
        assert apart(norm(ours), after) < 1e-6
    assert apart(ours, after) > 0.01


def test_a_block_s_input_and_what_its_sublayers_add_make_its_output(any_model):
    """Right only if each hook point is the one that TransformerLens means."""
    points = {number: HookPoint(BLOCK, point) for number, point in enumerate(POINTS)}
    points[4] = HookPoint(BLOCK + 1, "hook_resid_pre")
    model = load(any_model)
    reader = ResidualReader.create(model, placed(points, model.name, model.network, model.blocks))
    residuals = reader.read(pack(texts(), SLOTS, 1000)).residuals
    before, attention, mlp, after, following = (residuals[number] for number in range(5))
    assert apart(before + attention + mlp, after) < 1e-10
    assert torch.equal(after, following)
    assert attention.norm() > 0.01 * before.norm()
    assert mlp.norm() > 0.01 * before.norm()


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_truncated_equals_full_bit_for_bit(any_model, dtype, layout):
    points = {layer: HookPoint(layer, "hook_resid_post") for layer in (0, 1)}
    sequences = texts(1)
    batch = pack(sequences, SLOTS, 30) if layout == "packed" else pad(sequences, SLOTS)
    truncated, full = (load(any_model, blocks, dtype) for blocks in (2, tiny.LAYERS))
    ours, theirs = (ResidualReader.create(model, points).read(batch).residuals for model in (truncated, full))
    for layer in points:
        assert torch.equal(ours[layer], theirs[layer])


def test_truncation_loads_neither_later_blocks_nor_the_head(any_model):
    model = load(any_model, blocks=2)
    assert len(model.blocks) == 2
    assert model.full_layers == tiny.LAYERS
    names = dict(model.network.named_parameters())
    assert not any("head" in name or "embed_out" in name for name in names)
    whole = dict(AutoModelForCausalLM.from_pretrained(any_model, dtype=torch.float64).base_model.named_parameters())
    assert names.keys() < whole.keys()
    assert all(torch.equal(parameter, whole[name]) for name, parameter in names.items())
    assert not any(parameter.requires_grad for parameter in names.values())
    assert not model.network.training


class Adding(torch.nn.Module):
    def forward(self, hidden_states, further=0):
        return (hidden_states + 1 + further, "a cache")


@pytest.mark.parametrize("point", ["hook_resid_pre", "hook_resid_post"])
def test_what_a_block_is_given_or_gives_is_replaced_however_it_is_passed(point):
    blocks, states = torch.nn.ModuleList([Adding()]), torch.zeros(1, 2, 3)
    handle = HookPoint(0, point).alter(blocks, lambda x: 10 * (x + 1))
    expected = 10 + 1 + 5 if point == "hook_resid_pre" else 10 * (1 + 5 + 1)
    for output in (blocks[0](states, 5), blocks[0](further=5, hidden_states=states)):
        assert output[0].unique().item() == expected
        assert output[1] == "a cache"
    handle.remove()
    assert blocks[0](states)[0].unique().item() == 1


def test_a_sublayer_s_output_is_taken_and_replaced_as_the_block_scales_it():
    block = torch.nn.Module()
    block.mlp = Adding()
    blocks, states, seen = torch.nn.ModuleList([block]), torch.zeros(1, 2, 3), []
    point = HookPoint(0, "hook_mlp_out", part="mlp", scale=0.5)
    handles = [point.alter(blocks, lambda x: x + 2), point.attach(blocks, seen.append)]
    assert block.mlp(states)[0].unique().item() == 5, "half of it is what is added"
    assert seen[0].unique().item() == 2.5
    for handle in handles:
        handle.remove()
    with pytest.raises(ValueError, match="hook_mlp_out of block 0: expected a point from model.sublayers.placed"):
        HookPoint(0, "hook_mlp_out").attach(blocks, seen.append)


def test_a_block_that_is_not_there_is_refused(tiny_model):
    with pytest.raises(InputError, match="has 4 layers"):
        load(tiny_model, blocks=5)


def test_an_embedding_kept_only_as_the_tied_head_is_found(tmp_path):
    folder = tiny.save_model(tmp_path, "llama")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    weights = load_file(folder / "model.safetensors")
    embedding = weights.pop("model.embed_tokens.weight")
    save_file({**weights, "lm_head.weight": embedding}, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load(folder, blocks=1).network.embed_tokens.weight, embedding.double())
    (folder / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"embed_tokens\.weight"):
        load(folder, blocks=1)


def test_a_row_s_pads_beyond_the_sliding_window_stay_finite(any_model):
    """Padded rows of very different lengths: a pad that could see nothing would fill the row with NaN."""
    sequences = [
        Sequence(item=0, view=view, ids=(1, *range(5, 5 + length)), reads=(length,))
        for view, length in enumerate((2, 4, 5 * tiny.WINDOW))
    ]
    points = {layer: HookPoint(layer, "hook_resid_post") for layer in (0, 2)}
    reader = ResidualReader.create(load(any_model), points)
    residuals = reader.read(pad(sequences, {0: 0})).residuals
    expected = full_residuals(any_model, sequences, (0, 2))
    assert all(apart(residuals[layer], expected[layer]) < 1e-6 for layer in points)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_runs_on_a_cpu_without_a_nan_and_near_float32(any_model, tiny_saes, dtype):
    pairs = measuring.as_pairs(random_pairs(3, count=11))
    reduced = measuring.make_worker(any_model, tiny_saes, dtype=dtype, noise_draws=1)
    assert reduced.reader.packs
    assert reduced.reader.model.dtype == getattr(torch, dtype)
    assert {coder.decoder.dtype for coder in reduced.coders.values()} == {torch.float32}
    table = measuring.measure(reduced, pairs)
    exact = measuring.measure(measuring.make_worker(any_model, tiny_saes, dtype="float32", noise_draws=1), pairs)
    assert table["_reason"].null_count() == len(pairs)
    numbers = table.select(pl.selectors.float())
    assert not any(numbers[name].is_nan().any() or numbers[name].is_infinite().any() for name in numbers.columns)
    allowed = 0.15 if dtype == "bfloat16" else 0.02
    for name in ("l0_fact_reconstruction_error", "l3_hall_reconstruction_error", "l3_prompt_dimensionality"):
        difference = (table[name] - exact[name]).abs() / exact[name]
        assert difference.median() < allowed, name


def test_a_residual_that_overflows_is_quarantined_with_its_pair_alone(tiny_model, tiny_saes):
    records = random_pairs(3, count=11)
    pairs = measuring.as_pairs(records)
    worker = measuring.make_worker(tiny_model, tiny_saes, noise_draws=1)
    before = measuring.measure(worker, pairs)
    tokenizer = worker.tokenizer.tokenizer
    poison = tokenizer.encode(" \N{SNOWFLAKE}", add_special_tokens=False)[-1]
    holds = [
        any(poison in tokenizer.encode(pair.text(view, " "), add_special_tokens=False) for view in VIEWS)
        for pair in pairs
    ]
    assert 0 < sum(holds) < len(pairs) - 3
    worker.reader.model.network.get_input_embeddings().weight[poison] = torch.inf
    after = measuring.measure(worker, pairs)
    assert after["_reason"].is_not_null().to_list() == holds
    assert after["l0_fact_l0_norm"].is_null().to_list() == holds
    same = [name for name in before.columns if name.endswith(("l0_norm", "_tokens"))]
    assert after.filter(~pl.Series(holds)).select(same).equals(before.filter(~pl.Series(holds)).select(same))
