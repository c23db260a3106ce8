"""Models that take no custom masks, or ignore them, are measured text by text: slower, the same numbers."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig
from transformers.models.llama.modeling_llama import LlamaModel

import compare
import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.pipeline.plan import pack
from bluffscope.records import Sequence, Tokenized
from random_pairs import random_pairs

PAIRS = measuring.as_pairs(random_pairs(51, count=12))


def ignores_masks(forward):
    def changed(self, input_ids=None, attention_mask=None, position_ids=None, **options):
        if attention_mask is not None and attention_mask.ndim == 4:
            attention_mask = None  # as an implementation does that builds its own causal mask
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    return changed


def ignores_positions(forward):
    def changed(self, input_ids=None, attention_mask=None, position_ids=None, **options):
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    return changed


def refuses_masks(forward):
    def changed(self, input_ids=None, attention_mask=None, position_ids=None, **options):
        if attention_mask is not None and attention_mask.ndim != 2:
            raise ValueError("attention_mask must be (batch, token)")
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    return changed


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [ignores_masks, ignores_positions, refuses_masks])
def test_such_a_model_falls_back_to_padded_rows_says_so_and_gives_the_reference_s_table(
    llama, tiny_saes, monkeypatch, caplog, kind
):
    asked = {"noise_draws": 2, "position": "completion-mean"}
    expected = measuring.load_oracle(llama, tiny_saes).rows(PAIRS, **asked)
    monkeypatch.setattr(LlamaModel, "forward", kind(LlamaModel.forward))
    with caplog.at_level(logging.WARNING, "bluffscope"):
        worker = measuring.make_worker(llama, tiny_saes, **asked)
    assert not worker.reader.packs
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "each text gets a row of its own" in caplog.text
    table = measuring.measure(worker, PAIRS)
    compare.assert_same(table, expected, "float64", position="completion-mean", draws=2)


def test_local_windows_that_count_slots_fall_back_though_short_rows_pack(tmp_path, tiny_saes, caplog):
    """GPT-Neo (TinyStories): a branch further down the row than a window would lose its prompt."""
    config = GPTNeoConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=tiny.D_MODEL, num_layers=4, num_heads=2, window_size=40,
        max_position_embeddings=1024, attention_types=[[["global", "local"], 2]], bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = tiny.save_random(tmp_path / "model", config)
    with caplog.at_level(logging.WARNING, "bluffscope"):
        worker = measuring.make_worker(model, tiny_saes, dtype="float32", noise_draws=1)
    assert "each text gets a row of its own" in caplog.text
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    pairs = [pair for pair in worker.tokenizer.tokenize(PAIRS) if isinstance(pair, Tokenized)]
    found = worker.reader.read(worker.lay_out(pairs, packed=worker.reader.packs)).residuals[1]
    for state, text in zip(found, (text for pair in pairs for text in pair.sequences), strict=True):
        with torch.no_grad():
            hidden = network(torch.tensor([text.ids]), output_hidden_states=True).hidden_states[2][0, -1]
        torch.testing.assert_close(state, hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["packed", "batched"])
def test_a_model_that_looks_ahead_is_refused(tmp_path, tiny_saes, strategy):
    model = tiny.save_model(tmp_path / "model", "gemma3", use_bidirectional_attention=True)  # as EmbeddingGemma
    with pytest.raises(InputError, match=r"^--model .*Gemma3DecoderLayer 0 looks at later tokens; give a causal"):
        measuring.make_worker(model, tiny_saes, strategy=strategy)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_no_tiny_model_falls_back_in_any_precision(any_model, tiny_saes, caplog, dtype):
    with caplog.at_level(logging.WARNING, "bluffscope"):
        assert measuring.make_worker(any_model, tiny_saes, dtype=dtype).reader.packs
    assert not caplog.records


def test_such_a_model_refuses_packed_rows(llama, tiny_saes, monkeypatch):
    monkeypatch.setattr(LlamaModel, "forward", ignores_masks(LlamaModel.forward))
    reader = measuring.make_worker(llama, tiny_saes).reader
    batch = pack([Sequence(item=0, view=0, ids=(1, 5), reads=(1,))], {0: 0}, 8)
    with pytest.raises(InputError, match="lay the batch out with"):
        reader.read(batch)


def test_an_error_of_the_forward_itself_is_not_taken_for_a_refusal_of_packed_rows(llama, tiny_saes, monkeypatch):
    def broken(self, **inputs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(LlamaModel, "forward", broken)
    with pytest.raises(InputError, match=r"cannot load the model \(out of luck\)"):
        measuring.make_worker(llama, tiny_saes)
    assert torch.is_grad_enabled()
