"""The packed engine gives the table of the slow reference, for every architecture, position and kind of text."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import measuring
import tiny
from bluffscope.errors import PairError
from bluffscope.records import Tokenized
from compare import assert_same
from random_pairs import random_pairs

SEED = 20
DRAWS = 2


@pytest.fixture
def exact_softmax(monkeypatch):
    """A float64 softmax in eager attention, which Gemma 2 needs and which rounds it to float32 whatever the dtype.

    That rounding depends on the row's length and alone moves a column by 1e-6. Both sides get the exact one, so that
    the tolerance is left to the engine; what the rounding does is tested by itself below.
    """
    softmax = torch.nn.functional.softmax

    def exact(x, dim=None, dtype=None, **options):
        return softmax(x, dim=dim, dtype=torch.float64 if x.dtype == torch.float64 else dtype, **options)

    monkeypatch.setattr(torch.nn.functional, "softmax", exact)


def both(model, saes, dtype, pairs, *, position="last", join=" ", **options):
    """The engine's table, and the reference's with the gaps of its axes where the comparison needs them."""
    oracle = measuring.load_oracle(model, saes, dtype=dtype)
    asked = {"position": position, "join": join, "noise_draws": DRAWS, **options}
    table = measuring.measure(measuring.make_worker(model, saes, dtype=dtype, **asked), pairs)
    assert table["_reason"].null_count() == len(pairs)
    gaps = oracle.gaps(pairs, **asked) if dtype == "float32" and position == "completion-mean" else None
    return table, oracle.rows(pairs, **asked), {"position": position, "draws": DRAWS, "gaps": gaps}


@pytest.mark.usefixtures("exact_softmax")
@pytest.mark.parametrize(
    ("position", "join"), [pytest.param("last", "", marks=pytest.mark.thorough), ("completion-mean", " ")]
)
def test_in_float64_every_column_is_the_reference_s(any_model, tiny_saes, position, join):
    pairs = measuring.as_pairs(random_pairs(SEED))
    table, expected, how = both(any_model, tiny_saes, "float64", pairs, position=position, join=join)
    result = assert_same(table, expected, "float64", **how)
    assert result.left_out == 0
    assert result.worst.ratio < 1e-3  # the arithmetic is the same; a wrong term, however small, would show


@pytest.mark.usefixtures("exact_softmax")
@pytest.mark.parametrize("strategy", ["packed", pytest.param("batched", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("position", [pytest.param("first-completion", marks=pytest.mark.thorough), "divergence"])
def test_texts_read_before_their_end_are_the_reference_s_too(any_model, tiny_saes, position, strategy):
    # Joined by nothing, prompts and completions merge; "Paris" is the beginning of "Paris, Paris": they never part.
    pairs = measuring.as_pairs([*random_pairs(SEED + 7), *tiny.PAIRS])
    asked = {"position": position, "join": "", "noise_draws": 1}
    worker = measuring.make_worker(any_model, tiny_saes, strategy=strategy, **asked)
    table = measuring.measure(worker, pairs)
    oracle = measuring.load_oracle(any_model, tiny_saes)
    refused = set(table.filter(table["_reason"].is_not_null())["pair_id"])
    assert len(refused) == (1 if position == "divergence" else 0)
    for pair in pairs:
        if pair.id in refused:
            with pytest.raises(PairError, match="ends before it differs"):
                oracle.rows([pair], **asked)
    expected = oracle.rows([pair for pair in pairs if pair.id not in refused], **asked)
    result = assert_same(table.filter(table["_reason"].is_null()), expected, "float64", position=position, draws=1)
    assert result.left_out == 0
    assert result.worst.ratio < 1e-3
    last = oracle.rows([pair for pair in pairs if pair.id not in refused], **{**asked, "position": "last"})
    moved = [a["l0_fact_gini"] != b["l0_fact_gini"] for a, b in zip(expected, last, strict=True)]
    assert sum(moved) > 8, "hardly a text is longer than the token it is read at"


@pytest.mark.parametrize(
    ("position", "join"), [("last", " "), pytest.param("completion-mean", "", marks=pytest.mark.thorough)]
)
def test_in_float32_every_column_is_the_reference_s(any_model, tiny_saes, position, join):
    pairs = measuring.as_pairs(random_pairs(SEED + 1))
    table, expected, how = both(any_model, tiny_saes, "float32", pairs, position=position, join=join)
    assert_same(table, expected, "float32", **how)


@pytest.mark.thorough
def test_the_softmax_that_gemma_2_rounds_to_float32_moves_no_column_by_more_than_a_millionth(tiny_model, tiny_saes):
    pairs = measuring.as_pairs(random_pairs(SEED + 2))
    table, expected, how = both(tiny_model, tiny_saes, "float64", pairs)
    assert_same(table, expected, "float64", **how)


@pytest.mark.thorough
def test_relative_noise_and_a_noise_sweep_are_the_reference_s(tiny_model, tiny_saes):
    pairs = measuring.as_pairs(random_pairs(SEED + 3, count=11))
    table, expected, how = both(
        tiny_model, tiny_saes, "float64", pairs, noise_mode="relative", noise_sweep=(0.0, 0.3, 1.0), seed=7
    )
    assert_same(table, expected, "float64", **how)
    assert set(table["stability_s0_fact"]) == {1.0}
    assert table["stability_s1_fact"].mean() < table["stability_s0.3_fact"].mean() < 1


@pytest.mark.thorough
@pytest.mark.parametrize("layers", [(3, 0), (1,), (3, 1, 0)])
def test_the_first_layer_asked_for_is_the_one_of_the_single_layer_analyses(tiny_model, tiny_saes, layers):
    pairs = measuring.as_pairs(random_pairs(SEED + 4, count=11))
    oracle = measuring.load_oracle(tiny_model, tiny_saes, layers)
    table = measuring.measure(measuring.make_worker(tiny_model, tiny_saes, layers=layers, noise_draws=1), pairs)
    assert_same(table, oracle.rows(pairs, noise_draws=1), "float64", draws=1)


def test_dictionaries_of_different_widths_have_no_consistency_by_index_but_align(tiny_model, tmp_path):
    saes = tiny.save_saes(tmp_path, (0, 1))
    tiny.save_sae(tmp_path, 3, d_sae=80)
    pairs = measuring.as_pairs(random_pairs(SEED + 5, count=11))
    oracle = measuring.load_oracle(tiny_model, saes)
    table = measuring.measure(measuring.make_worker(tiny_model, saes, noise_draws=1), pairs)
    assert_same(table, oracle.rows(pairs, noise_draws=1), "float64", draws=1)
    assert table["cross_layer_consistency_diff"].null_count() == len(pairs)


@pytest.mark.thorough
def test_few_and_no_active_features_leave_the_same_nulls(tiny_model, tmp_path):
    saes = tiny.save_saes(tmp_path)
    pairs = measuring.as_pairs(random_pairs(SEED + 6, count=11))
    asked = {"noise_draws": 1, "position": "completion-mean"}
    worker, oracle = measuring.make_worker(tiny_model, saes, **asked), measuring.load_oracle(tiny_model, saes)
    for sae in (worker.coders[0].sae, oracle.saes[0]):
        sae.threshold.data.fill_(5.0)
    for sae in (worker.coders[3].sae, oracle.saes[3]):
        sae.threshold.data.fill_(1e9)
    table = measuring.measure(worker, pairs)
    assert_same(table, oracle.rows(pairs, **asked), "float64", position="completion-mean", draws=1)
    counts = set(table["l0_prompt_l0_norm"])
    assert {0, 1, 3} <= counts, "not every case of few features came up"
    assert max(counts) >= 4
    empty = ("l3_fact_gini", "l3_prompt_dimensionality", "cross_layer_consistency_hall")
    assert all(table[name].null_count() == len(pairs) for name in empty)
    assert table["l3_fact_l0_norm"].to_list() == [0.0] * len(pairs)


def test_the_pairs_hold_what_they_promise(tiny_model, tiny_saes):
    pairs = measuring.as_pairs(random_pairs(SEED))
    worker = measuring.make_worker(tiny_model, tiny_saes, join="", position="completion-mean")
    tokenized = [pair for pair in worker.tokenizer.tokenize(pairs) if isinstance(pair, Tokenized)]
    prompts = [pair.sequences[0].ids for pair in tokenized]
    assert len(tokenized) == len(pairs)
    merged = [
        pair for pair in tokenized if pair.sequences[1].ids[: len(pair.sequences[0].ids)] != pair.sequences[0].ids
    ]
    assert len(merged) >= 3, "no merge across the border of prompt and completion"
    assert min(map(len, prompts)) == 2, "no prompt of one token"
    assert max(map(len, prompts)) >= 61, "no long prompt"
    assert len(set(prompts)) < len(prompts), "no shared prompt"
    assert any(a != b and b[: len(a)] == a for a in prompts for b in prompts), "no prompt that is another's prefix"
    text = "".join(pair.prompt + pair.fact + pair.hallucination for pair in pairs)
    assert max(map(ord, text)) > 0xFFFF, "no character beyond the basic plane"


@pytest.mark.thorough
def test_a_pair_longer_than_the_context_is_refused_by_both_and_moves_no_other(tiny_model, tiny_saes):
    records = random_pairs(SEED, count=11)
    long = {"id": "long", "domain": "a", "prompt": "q" * tiny.CONTEXT, "fact": "a", "hallucination": "b"}
    pairs = measuring.as_pairs([*records[:5], long, *records[5:]])
    worker = measuring.make_worker(tiny_model, tiny_saes, noise_draws=1)
    oracle = measuring.load_oracle(tiny_model, tiny_saes)
    table = measuring.measure(worker, pairs)
    assert table["_reason"].is_not_null().to_list() == [pair.id == "long" for pair in pairs]
    assert table["l0_fact_l0_norm"][5] is None
    with pytest.raises(PairError, match="context of 128"):
        oracle.rows([pairs[5]])
    others = [pair for pair in pairs if pair.id != "long"]
    kept = table.filter(table["_reason"].is_null())
    assert_same(kept, oracle.rows(others, noise_draws=1), "float64", draws=1)
    fits = dataclasses.replace(pairs[5], prompt="q" * (tiny.CONTEXT - 3))  # BOS, the prompt, a space and a letter
    assert measuring.measure(worker, [dataclasses.replace(fits, index=0)])["_reason"].to_list() == [None]
