"""The memory model: weights to the byte or nearly, bounds as the code has them, batches that fit and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForCausalLM, Gemma2Config, LlamaConfig

import tiny
from bluffscope.metrics import geometry
from bluffscope.model import head
from bluffscope.pipeline import memory
from bluffscope.pipeline.memory import GEMMA_2_2B, READS_A_TOKEN, SMALLEST_BATCH, Footprint, SaeShape, Shape, pairs
from bluffscope.sae import coder

SMALL = Shape(
    blocks=4, d_model=256, d_mlp=1024, heads=4, kv_heads=2, head_dim=64, vocabulary=4096, saes=(), eager=True, masks=2
)
WIDE = {"hidden_size": 256, "intermediate_size": 768, "head_dim": 64, "num_attention_heads": 4, "vocab_size": 3000}
GPT2 = {"n_embd": 256, "n_head": 4, "vocab_size": 3000}


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("architecture", list(tiny.ARCHITECTURES))
def test_the_weights_of_eight_architectures_are_predicted_from_their_configurations(architecture, head):
    changed = tiny.ARCHITECTURES[architecture].to_dict() | (GPT2 if architecture == "gpt2" else WIDE)
    config = type(tiny.ARCHITECTURES[architecture]).from_dict(changed)
    with torch.device("meta"):
        network = (AutoModelForCausalLM if head else AutoModel).from_config(config, dtype=torch.bfloat16)
    real = sum(parameter.nbytes for parameter in network.parameters())
    shape = Shape.of(config, blocks=config.num_hidden_layers, number_bytes=2, head=head)
    assert shape.weights == pytest.approx(real, rel=0.01)  # norms and biases are left out


def test_the_weights_of_an_sae_are_predicted_to_the_byte():
    real = sum(tensor.nbytes for tensor in tiny.sae_weights(0, d_in=24, d_sae=96).values())
    assert SaeShape(d_sae=96, d_in=24).weights == real


def test_bounds_are_those_of_the_code_that_they_describe():
    assert memory.DENSE_CELLS == coder._DENSE_CELLS
    assert {**geometry.STACKED_CELLS, "mps": geometry.STACKED_CELLS["cpu"]} == memory.STACKED_CELLS
    assert memory.GROUPED_CELLS == geometry.GROUPED_CELLS
    assert (memory.HEAD_BLOCK, memory.HEAD_COPIES) == (head.SLICE_BYTES, head.COPIES)


def test_gemma_2_2b_is_as_its_configuration_says():
    config = Gemma2Config(
        vocab_size=256_000,
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        sliding_window=4096,
        attn_logit_softcapping=50.0,
    )
    written = GEMMA_2_2B["float32"]
    saes = [(sae.d_in, sae.d_sae, sae.l0) for sae in written.saes]
    assert Shape.of(config, blocks=21, number_bytes=4, saes=saes) == written
    found = Footprint(written)
    assert found.weights == pytest.approx(8.9e9, rel=0.005)
    assert found.saes == pytest.approx(0.906e9, rel=0.005)
    assert found.peak(2048, 512) < 1.15 * (found.weights + found.saes + 1e9)
    assert Footprint(GEMMA_2_2B["bfloat16"]).weights == found.weights // 2


def test_log_probabilities_take_a_head_where_it_has_weights_of_its_own_and_a_slice_of_logits():
    plain, tied = Footprint(SMALL), Footprint(replace(SMALL, head=True, tied=True))
    own = Footprint(replace(SMALL, head=True))
    assert tied.weights == plain.weights
    assert own.weights - plain.weights == SMALL.vocabulary * SMALL.d_model * SMALL.number_bytes
    large = replace(SMALL, vocabulary=256_000)
    bare, headed = (
        Footprint(replace(large, head=head, tied=head)).needed(SMALLEST_BATCH, 64) for head in (False, True)
    )
    assert headed > bare + memory.HEAD_BLOCK / 2
    assert headed - bare > tied.needed(SMALLEST_BATCH, 64) - plain.needed(SMALLEST_BATCH, 64)  # few words, few logits
    whole = Shape.of(LlamaConfig(tie_word_embeddings=True), blocks=1, number_bytes=4, head=True)
    assert (whole.head, whole.tied) == (True, True)


def test_attention_that_holds_its_scores_costs_the_square_of_a_row():
    eager, fused = (Footprint(replace(SMALL, eager=eager, masks=1)) for eager in (True, False))
    grown = eager.needed(8192, 1024) - eager.needed(8192, 512)
    assert grown >= 8192 * 512 * SMALL.heads * 2 * 4
    assert fused.needed(8192, 1024) - fused.needed(8192, 512) <= 8192 * 512 * 4
    assert eager.needed(256, 1024) == eager.needed(256, 256)
    usual = eager.usual_row  # such rows are predicted, since the planner makes no longer ones of short texts
    assert eager.peak(8192, 1024) == eager.peak(8192, usual) < eager.needed(8192, 1024)


@given(
    tokens=st.integers(1, 1 << 16),
    more=st.integers(0, 1 << 12),
    rows=st.integers(1, 2048),
    reads=st.sampled_from([READS_A_TOKEN, 1.0]),
)
def test_the_peak_never_falls_as_batches_and_rows_grow(tokens, more, rows, reads):
    found = Footprint(replace(SMALL, saes=(SaeShape(d_sae=4096, d_in=256),)), reads_a_token=reads)
    assert found.peak(tokens + more, rows) >= found.peak(tokens, rows)
    assert found.peak(tokens, rows + more) >= found.peak(tokens, rows)


@given(free=st.integers(0, 1 << 36), rows=st.integers(64, 1024), device=st.sampled_from(["cpu", "mps", "cuda"]))
def test_the_largest_batch_fits_and_one_token_more_does_not(free, rows, device):
    found = Footprint(GEMMA_2_2B["bfloat16"], device)
    tokens = found.largest_batch_tokens(free, rows)
    if tokens == 0:
        assert found.least_needed(rows) > free
    else:
        assert found.needed(tokens, rows) <= free
        assert found.needed(tokens + 1, rows) > free or tokens == 1 << 24


def test_a_file_of_another_dtype_counts_while_it_is_loaded_but_its_pages_need_not_be_free():
    plain = Footprint(SMALL)
    converted = Footprint(replace(SMALL, vocabulary=4_000_000, file_bytes=2))
    assert converted.loading == converted.weights // 2
    assert converted.peak(64, 64) == converted.weights + converted.process + converted.loading
    assert converted.needed(64, 64) < converted.peak(64, 64)
    assert plain.loading == 0
    assert plain.peak(64, 64) == plain.needed(64, 64)


def test_quantised_blocks_shrink_and_embeddings_stay():
    whole, quantised = replace(SMALL, number_bytes=2), replace(SMALL, number_bytes=2, linear_bytes=0.5)
    embeddings = SMALL.vocabulary * SMALL.d_model * 2
    assert quantised.weights - embeddings == (whole.weights - embeddings) // 4


def test_pairs_a_forward_are_whole_and_never_none():
    assert [pairs(2048), pairs(100, 30.0), pairs(10, 300)] == [128, 3, 1]
