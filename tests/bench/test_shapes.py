"""The benchmark's shapes: the same weights whatever is built, SAEs as sparse as real ones, files others can load."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from bluffscope.compare.bench.shapes import L0, SHAPES, build_coders, build_language_model, save_shape
from bluffscope.config import DataOptions
from bluffscope.config.presets import PRESETS
from bluffscope.errors import InputError
from bluffscope.host.weights_digest import weights_digest
from bluffscope.model import HookPoint, LanguageModel, ResidualReader, load_model
from bluffscope.pairs import open_source
from bluffscope.pipeline.plan import BatchLimits, TextTokenizer, pack, plan_batches
from bluffscope.records import Tokenized
from bluffscope.sae import find_saes, load_coders

MID = SHAPES["mid"]
SMALL = dataclasses.replace(  # Gemma 2 2B with a fifth of its blocks, an eighth of its width and a 16th of its ids
    SHAPES["gemma-2-2b"],
    name="small",
    sizes={
        "num_hidden_layers": 5,
        "hidden_size": 288,
        "intermediate_size": 1152,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "vocab_size": 16_000,
    },
    layers=(1, 2, 3),
    d_sae=2048,
    thresholds=(3.6, 4.3, 4.9),
)
SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "sliding_window", "attn_logit_softcapping", "tie_word_embeddings"),
)
IDS = torch.tensor([[2, *range(300, 324)]])


@pytest.fixture(scope="module")
def mid() -> LanguageModel:
    return build_language_model(MID, blocks=max(MID.layers) + 1)


def residuals(model: LanguageModel, layers: tuple[int, ...], every: int) -> dict[int, torch.Tensor]:
    """(read, d_model) by layer at the last tokens of the texts of each `every`-th bundled pair."""
    tokenizer = TextTokenizer(
        tokenizer=model.tokenizer, bos=model.tokenizer.bos_token_id, position="last", join=" ", context=model.context
    )
    pairs = list(open_source(DataOptions()).pairs())[::every]
    tokenized = [pair for pair in tokenizer.tokenize(pairs) if isinstance(pair, Tokenized)]
    assert len(tokenized) == len(pairs)
    reader = ResidualReader.create(model, {layer: HookPoint(layer, "hook_resid_post") for layer in layers})
    assert reader.packs
    found = {layer: [] for layer in layers}
    for batch in plan_batches(tokenized, BatchLimits(batch_size="auto", batch_tokens=2048, row_tokens=512)):
        slots = {pair.item.index: slot for slot, pair in enumerate(batch)}
        packed = pack([sequence for pair in batch for sequence in pair.sequences], slots, 512)
        for layer, residual in reader.read(packed).residuals.items():
            found[layer].append(residual)
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def own_weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    """By name without the wrapper that carries the LM head."""
    return {name.removeprefix("model."): weight for name, weight in model.network.state_dict().items()}


@torch.inference_mode()
def hidden(model: LanguageModel, layer: int) -> torch.Tensor:
    caught = []
    handle = HookPoint(layer, "hook_resid_post").attach(model.blocks, caught.append)
    model.network(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False)
    handle.remove()
    return caught[0][0]


@pytest.mark.thorough
def test_the_random_saes_of_mid_have_the_l0_they_are_calibrated_for_on_the_bundled_pairs(mid):
    coders = build_coders(MID)
    read = residuals(mid, MID.layers, every=5)
    for layer, residual in read.items():
        counts = coders[layer].encode(residual).counts.double()
        assert 60 <= counts.mean() <= 80, f"layer {layer}: {counts.mean()}"
        assert counts.min() >= 4, "a shape needs four features"
    assert L0 == 70


def test_residual_norms_stay_near_the_root_of_what_was_added(mid):
    for layer, residual in residuals(mid, MID.layers, every=20).items():
        expected = (1 + 2 * (layer + 1)) ** 0.5
        spread = residual.square().mean(dim=1).sqrt() / expected
        assert residual.isfinite().all()
        assert ((spread > 0.5) & (spread < 2)).all(), f"layer {layer}: {spread.min()} to {spread.max()}"


def test_residuals_differ_between_texts_and_depend_on_what_stands_before(mid):
    last = hidden(mid, 9)
    assert torch.pdist(torch.nn.functional.normalize(last, dim=1)).min() > 0.3
    changed = IDS.clone()
    changed[0, 3] = 9
    with torch.inference_mode():
        other = mid.network(input_ids=changed, attention_mask=torch.ones_like(IDS), use_cache=False).last_hidden_state
        same = mid.network(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).last_hidden_state
    apart = (other - same)[0].norm(dim=1) / same[0].norm(dim=1)
    assert (apart[:3] == 0).all()
    assert (apart[3:] > 1e-3).all(), "attention carries nothing"


def test_the_first_blocks_of_a_shape_are_the_same_however_many_are_built_and_with_or_without_head():
    whole = build_language_model(SMALL, head=True)
    part = build_language_model(SMALL, blocks=3)
    assert type(whole.network).__name__ == "Gemma2ForCausalLM"
    assert (len(part.blocks), len(whole.blocks), part.full_layers) == (3, 5, 5)
    theirs = own_weights(whole)
    assert {name for name in own_weights(part) if not torch.equal(own_weights(part)[name], theirs[name])} == set()
    assert torch.equal(hidden(part, 2), hidden(whole, 2))
    assert not torch.equal(theirs["layers.0.mlp.up_proj.weight"], theirs["layers.1.mlp.up_proj.weight"])


def test_the_head_is_the_embedding_and_is_not_held_twice():
    network = build_language_model(SMALL, head=True).network
    assert network.lm_head.weight is network.model.embed_tokens.weight
    logits = network(input_ids=IDS).logits
    assert logits.isfinite().all()
    assert 0.3 < logits.std() < 3
    assert logits.abs().max() < 30, "the soft cap"


@pytest.mark.process
def test_another_process_builds_the_same_weights():
    digests = [weights_digest(build_language_model(SMALL, blocks=2).network.state_dict().items())]
    digests += [weights_digest(coder.sae.state_dict().items()) for coder in build_coders(SMALL).values()]
    field_values = ", ".join(f"{name}={value!r}" for name, value in dataclasses.asdict(SMALL).items())
    code = (
        "from bluffscope.compare.bench.shapes import *; "
        "from bluffscope.host.weights_digest import weights_digest as digest; "
        f"shape = Shape({field_values}); model = build_language_model(shape, blocks=2); "
        "print(digest(model.network.state_dict().items()), "
        "*(digest(coder.sae.state_dict().items()) for coder in build_coders(shape).values()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    assert done.stdout.split() == digests, done.stderr[-2000:]


def test_another_seed_gives_other_weights_and_another_dtype_the_same_ones_rounded():
    single = build_language_model(SMALL, blocks=2)
    half = build_language_model(SMALL, blocks=2, dtype=torch.bfloat16)
    double = build_language_model(SMALL, blocks=2, dtype=torch.float64)
    other = build_language_model(dataclasses.replace(SMALL, seed=1), blocks=2)
    rotary = {name: buffer for name, buffer in single.network.named_buffers() if "inv_freq" in name}
    assert rotary
    for name, buffer in half.network.named_buffers():
        if name in rotary:
            assert torch.equal(buffer, rotary[name]), "rotary frequencies are never rounded"
    for name, weight in own_weights(single).items():
        assert torch.equal(own_weights(half)[name], weight.bfloat16())
        assert torch.equal(own_weights(double)[name], weight.double())
        assert not torch.equal(own_weights(other)[name], weight)


def test_decoder_rows_have_length_one_and_the_encoder_is_the_decoder_transposed():
    for layer, coder in build_coders(SMALL).items():
        assert (coder.layer, coder.d_in, coder.d_sae) == (layer, 288, 2048)
        assert (coder.hook_name, coder.prepend_bos) == (f"blocks.{layer}.hook_resid_post", True)
        torch.testing.assert_close(coder.decoder.norm(dim=1), torch.ones(2048))
        assert torch.equal(coder.sae.W_enc, coder.decoder.T)
        assert not coder.sae.b_enc.any()
        assert not coder.sae.b_dec.any()
    doubles = build_coders(SMALL, torch.float64)
    assert torch.equal(doubles[1].decoder.float(), build_coders(SMALL)[1].decoder)


def test_a_shape_saved_is_loaded_by_the_ordinary_ways(tmp_path):
    save_shape(SMALL, tmp_path)
    loaded = load_model(
        str(tmp_path / "model"), revision=None, blocks=4, device=torch.device("cpu"), dtype=torch.float32
    )
    built = build_language_model(SMALL, blocks=4)
    assert loaded.full_layers == 5
    assert {name: w.shape for name, w in own_weights(loaded).items()} == {
        name: w.shape for name, w in own_weights(built).items()
    }
    assert torch.equal(hidden(loaded, 3), hidden(built, 3))
    source = find_saes(str(tmp_path / "sae"), ())
    assert source.layers == SMALL.layers
    coders = load_coders(source, device="cpu", dtype=torch.float32)
    residual = hidden(built, 3)
    for layer, coder in build_coders(SMALL).items():
        theirs, ours = coders[layer].encode(residual), coder.encode(residual)
        assert torch.equal(theirs.indices, ours.indices)
        assert torch.equal(theirs.values, ours.values)
        assert coders[layer].identity["published_l0"] == L0


def test_the_demo_is_the_embedded_model():
    shape = SHAPES["demo"]
    model = build_language_model(shape, blocks=max(shape.layers) + 1)
    whole = build_language_model(shape, head=True)
    assert (len(model.blocks), len(whole.blocks), model.full_layers) == (9, 10, 10)
    assert {layer: coder.d_sae for layer, coder in build_coders(shape).items()} == dict.fromkeys(
        shape.layers, shape.d_sae
    )
    torch.testing.assert_close(hidden(model, 8), hidden(whole, 8))


def test_the_large_shape_is_gemma_2_2b_s():
    large, published = SHAPES["gemma-2-2b"], PRESETS["gemma-2-2b"].architecture
    config = large.config()
    assert [getattr(config, name) for name in SIZES] == [getattr(published, name) for name in SIZES]
    assert (config.query_pre_attn_scalar, config.final_logit_softcapping) == (256, 30.0)
    assert (config.max_position_embeddings, config.rms_norm_eps) == (8192, 1e-6)
    assert config.hidden_activation == "gelu_pytorch_tanh"
    assert config.rope_parameters == {"rope_theta": 10_000.0, "rope_type": "default"}
    model = build_language_model(dataclasses.replace(large, sizes={"vocab_size": 2560}), blocks=1)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("blocks", [0, 6])
def test_more_blocks_than_the_shape_has_are_refused(blocks):
    with pytest.raises(InputError, match="small has 5 blocks"):
        build_language_model(SMALL, blocks=blocks)


def test_an_sae_without_a_threshold_is_refused():
    with pytest.raises(InputError, match="3 SAEs but 1 thresholds"):
        build_coders(dataclasses.replace(SMALL, thresholds=(1.0,)))
