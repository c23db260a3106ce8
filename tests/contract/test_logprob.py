"""Log-probabilities of completions: the reference's, and plain transformers' by hand, however they are computed."""

from __future__ import annotations

import json
import math
import shutil

import polars as pl
import pytest
import torch

import bluffscope
import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.model import Head, ResidualReader, load_model
from bluffscope.model import head as head_module
from bluffscope.records import Pair
from compare import assert_same
from random_pairs import random_pairs

COLUMNS = [f"{name}_{part}" for name in ("logprob", "logprob_per_token") for part in ("fact", "hall", "diff")]
CPU = torch.device("cpu")


def by_hand(model, tokenizer, prompt, text):
    """Sum of log softmax at the tokens beyond the common prefix, and their number; one unpadded text."""
    bos = tokenizer.bos_token_id
    ids = [bos, *tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]]
    given = [bos, *tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]]
    first = next((i for i, (a, b) in enumerate(zip(ids, given, strict=False)) if a != b), len(given))
    with torch.no_grad():
        predicted = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(predicted[i - 1, ids[i]].item() for i in range(first, len(ids))), len(ids) - first


@pytest.mark.parametrize("strategy", ["packed", pytest.param("batched", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.thorough)])
def test_every_architecture_gives_the_reference_s_log_probabilities(any_model, tiny_saes, strategy, dtype):
    pairs = measuring.as_pairs(random_pairs(30))
    # Prompt and completion joined by nothing: tokens merge across their border, and count as the completion's.
    asked = {"logprob": True, "noise_draws": 1, "join": ""}
    worker = measuring.make_worker(any_model, tiny_saes, dtype=dtype, strategy=strategy, **asked)
    table = measuring.measure(worker, pairs)
    oracle = measuring.load_oracle(any_model, tiny_saes, dtype=dtype)
    expected = oracle.rows(pairs, **asked)
    assert {*COLUMNS, "knows"} <= set(expected[0])
    assert set(table["knows"].drop_nulls()) == {True, False}
    result = assert_same(table, expected, dtype, draws=1)
    assert result.largest["logprob"].ratio < (1e-3 if dtype == "float64" else 1)
    if dtype == "float64":
        for pair, row in zip(pairs, table.iter_rows(named=True), strict=True):
            for view in ("fact", "hall"):
                total, tokens = by_hand(oracle.model, oracle.tokenizer, pair.prompt, pair.text(view, ""))
                # transformers rounds to float32 inside, whatever the dtype; the engine's float64 runs do not
                assert row[f"logprob_{view}"] == pytest.approx(total, rel=1e-5)
                assert row[f"logprob_per_token_{view}"] == pytest.approx(total / tokens, rel=1e-5)
                assert row[f"{view}_tokens"] == tokens
            assert row["knows"] is (row["logprob_fact"] > row["logprob_hall"])


@pytest.mark.thorough
def test_capped_logits_are_capped(tmp_path, tiny_saes):
    pairs = measuring.as_pairs(tiny.PAIRS)
    found = {}
    for cap in (30.0, 0.5, None):
        model = tiny.save_model(tmp_path / str(cap), "gemma2", final_logit_softcapping=cap)
        worker = measuring.make_worker(model, tiny_saes, logprob=True, noise_draws=1)
        assert worker.reader.head.cap == cap
        table = measuring.measure(worker, pairs)
        oracle = measuring.load_oracle(model, tiny_saes)
        assert_same(table, oracle.rows(pairs, logprob=True, noise_draws=1), "float64", draws=1)
        found[cap] = table["logprob_per_token_fact"].to_list()
    assert found[0.5] != pytest.approx(found[None], rel=1e-3)
    # Logits between -0.5 and 0.5: no token is more than e times as likely as another.
    assert found[0.5] == pytest.approx([-math.log(tiny.VOCABULARY)] * len(pairs), abs=1)


@pytest.mark.thorough
def test_scaled_logits_are_scaled(tmp_path, tiny_saes):
    from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig

    plain = tiny.ARCHITECTURES["llama"].to_dict()
    keep = {name: value for name, value in plain.items() if name in tiny._COMMON}
    for name, config in {
        "cohere": CohereConfig(**keep, logit_scale=0.25),
        "granite": GraniteConfig(**keep, logits_scaling=4.0),
    }.items():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        tiny.save_tokenizer(tmp_path / name)
        pairs = measuring.as_pairs(tiny.PAIRS)
        worker = measuring.make_worker(tmp_path / name, tiny_saes, logprob=True, noise_draws=1)
        assert worker.reader.head.scale == 0.25
        oracle = measuring.load_oracle(tmp_path / name, tiny_saes)
        expected = oracle.rows(pairs, logprob=True, noise_draws=1)
        assert_same(measuring.measure(worker, pairs), expected, "float64", draws=1)


def test_the_vocabulary_may_come_in_slices_of_any_width(any_model, monkeypatch):
    model = load_model(str(any_model), revision=None, blocks=None, device=CPU, dtype=torch.float64, head=True)
    head = Head.create(model)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, tiny.D_MODEL, generator=generator, dtype=torch.float64)
    tokens = torch.randint(0, tiny.VOCABULARY, (9,), generator=generator)
    tokens[:2] = torch.tensor([0, tiny.VOCABULARY - 1])
    whole = head.logprobs(hidden, tokens)
    for size in (1, 8 * 7 * (3 * 9 + tiny.D_MODEL), 8 * 100 * (3 * 9 + tiny.D_MODEL)):
        monkeypatch.setattr(head_module, "SLICE_BYTES", size)
        assert torch.allclose(head.logprobs(hidden, tokens), whole, rtol=1e-12, atol=1e-12)
    assert head.logprobs(hidden[:0], tokens[:0]).shape == (0,)


def test_half_precision_keeps_logits_in_float32(tiny_model, tiny_saes):
    pairs = measuring.as_pairs(tiny.PAIRS)
    asked = {"logprob": True, "noise_draws": 1}
    rows = measuring.load_oracle(tiny_model, tiny_saes, dtype="float32").rows(pairs, **asked)
    worker = measuring.make_worker(tiny_model, tiny_saes, dtype="bfloat16", **asked)
    model = worker.reader.model
    assert worker.reader.head.logprobs(torch.zeros(1, tiny.D_MODEL, dtype=model.dtype), torch.tensor([0])).dtype == (
        torch.float32
    )
    table = measuring.measure(worker, pairs)
    assert table["logprob_fact"].to_list() == pytest.approx([row["logprob_fact"] for row in rows], rel=0.1)


def test_quantised_models_keep_their_head(tiny_model, tiny_saes):
    pytest.importorskip("torchao", reason="torchao is not installed (extra quant)")
    pairs = measuring.as_pairs(tiny.PAIRS)
    asked = {"dtype": "float32", "logprob": True, "noise_draws": 1}
    plain = measuring.measure(measuring.make_worker(tiny_model, tiny_saes, **asked), pairs)
    worker = measuring.make_worker(tiny_model, tiny_saes, quantize="int8", **asked)
    assert type(worker.reader.head.weight) is torch.nn.Parameter
    table = measuring.measure(worker, pairs)
    assert table["logprob_fact"].to_list() == pytest.approx(plain["logprob_fact"].to_list(), rel=0.1)
    assert table["logprob_fact"].to_list() != plain["logprob_fact"].to_list()


def test_a_completion_that_nothing_precedes_has_none(tmp_path, tiny_model, tiny_saes):
    saes = shutil.copytree(tiny_saes, tmp_path / "saes")
    for file in saes.glob("*/cfg.json"):  # no BOS is fed
        config = json.loads(file.read_text())
        config["metadata"]["prepend_bos"] = False
        file.write_text(json.dumps(config))
    pairs = [
        Pair(0, "merged", "a", None, "i", "s", "z"),  # "is" is one token, "i" and "z" are two
        Pair(1, "plain", "a", None, "The capital", " of", " is"),
    ]
    asked = {"logprob": True, "noise_draws": 1, "join": ""}
    expected = measuring.load_oracle(tiny_model, saes).rows(pairs, prepend_bos=False, **asked)
    assert (expected[0]["logprob_fact"], expected[0]["logprob_per_token_diff"]) == (None, None)
    assert expected[0]["knows"] is None
    assert all(row[name] is not None for row, name in [(expected[0], "logprob_hall"), (expected[1], "logprob_fact")])
    for strategy in ("packed", "batched"):
        worker = measuring.make_worker(tiny_model, saes, strategy=strategy, **asked)
        assert_same(measuring.measure(worker, pairs), expected, "float64", draws=1)
        alone = measuring.measure(worker, pairs[:1])  # a batch, one of whose views has no target
        assert alone["logprob_hall"].to_list() == pytest.approx([expected[0]["logprob_hall"]])


def test_batches_of_any_size_and_a_sweep_beside_them_give_the_same(tiny_model, tiny_saes):
    pairs = measuring.as_pairs(random_pairs(31))
    asked = {"logprob": True, "noise_draws": 1, "position": "completion-mean"}
    one, many = (
        measuring.measure(measuring.make_worker(tiny_model, tiny_saes, batch_size=size, **asked), pairs)
        for size in (1, 14)
    )
    for name in COLUMNS:
        assert one[name].to_list() == pytest.approx(many[name].to_list(), rel=1e-12, abs=1e-12)


def test_they_are_columns_of_their_own_that_can_be_left_out(tiny_model, tiny_saes, tmp_path):
    options = {"model": tiny_model, "sae": tiny_saes, "noise_draws": 1}
    plain = bluffscope.analyze(tiny.PAIRS, logprob=False, **options)
    table = bluffscope.analyze(tiny.PAIRS, out=tmp_path / "run", **options)
    assert [name for name in table.columns if name not in plain.columns] == [*COLUMNS, "knows"]
    shared = [name for name in plain.columns if plain[name].dtype == pl.Float64]
    for name in shared:  # the extra layers and the head change nothing
        assert table[name].to_list() == pytest.approx(plain[name].to_list(), rel=1e-12, nan_ok=True)
    run = bluffscope.read_run(tmp_path / "run")
    assert run.config["measure"]["logprob"] == "on"
    assert run.manifest["model"]["layers_loaded"] == tiny.LAYERS


def test_overflow_behind_the_last_measured_layer_quarantines_its_pair_alone(tiny_model, tiny_saes):
    worker = measuring.make_worker(tiny_model, tiny_saes, layers=(0,), logprob=True, noise_draws=1)
    pairs = measuring.as_pairs(tiny.PAIRS)
    plain = measuring.measure(worker, pairs)
    snow = worker.tokenizer.tokenizer(" \N{SNOWFLAKE}", add_special_tokens=False)["input_ids"][-1]
    bad = []

    def overflow(module, arguments, output):
        del module
        found = bad[-1] == snow
        return output.masked_fill(found[..., None], torch.inf)

    def remember(module, arguments):
        bad.append(arguments[0])

    network = worker.reader.model.network
    handles = [
        network.get_input_embeddings().register_forward_pre_hook(remember),
        worker.reader.model.blocks[2].register_forward_hook(overflow),
    ]
    try:
        table = measuring.measure(worker, pairs)
    finally:
        for handle in handles:
            handle.remove()
    assert table.filter(pl.col("_reason").is_not_null())["pair_id"].to_list() == ["u"]
    assert "log-probability is not finite" in table.filter(pair_id="u")["_reason"][0]
    kept = [row for row in table["logprob_fact"].to_list() if row is not None]
    others = plain.filter(pl.col("pair_id") != "u")["logprob_fact"].to_list()
    assert kept == pytest.approx(others, rel=1e-9)


def test_a_model_without_a_head_of_its_own_and_one_that_does_more_with_its_logits_are_refused(tiny_model, monkeypatch):
    model = load_model(str(tiny_model), revision=None, blocks=None, device=CPU, dtype=torch.float64)
    with pytest.raises(InputError, match=r"^--logprob: .* \(Gemma2Model\) has no linear LM head on a base model"):
        Head.create(model)
    whole = load_model(str(tiny_model), revision=None, blocks=None, device=CPU, dtype=torch.float64, head=True)
    with monkeypatch.context() as patched:
        patched.setattr(whole.config, "final_logit_softcapping", None)  # the network caps all the same
        with pytest.raises(InputError, match="does more with its logits than scale and cap them"):
            Head.create(whole)
    Head.create(whole)


def test_a_batch_with_targets_needs_a_reader_with_a_head(tiny_model, tiny_saes):
    worker = measuring.make_worker(tiny_model, tiny_saes, logprob=True)
    shard = worker.prepare(bluffscope.pipeline.shard.Shard(0, tuple(measuring.as_pairs(tiny.PAIRS)), ("g",) * 5))
    batch, activations = worker._forward(shard.batches[0])
    assert activations.logprobs.shape == batch.targets.token.shape
    bare = ResidualReader(worker.reader.model, worker.reader.points, worker.reader.style)
    with pytest.raises(ValueError, match="give the reader the model's Head"):
        bare.read(batch)


def test_a_layer_behind_the_last_one_read_that_does_not_pack_is_found_at_load(tiny_model, tiny_saes, caplog):
    worker = measuring.make_worker(tiny_model, tiny_saes, layers=(0,), logprob=True)
    reader = worker.reader
    assert reader.packs
    block = reader.model.blocks[2]

    def forget(module, arguments, options):
        """Full causal attention, whatever mask is given: branches of a trie see each other."""
        del module
        mask = options["attention_mask"]
        ones = torch.ones(mask.shape[-2:], dtype=torch.bool).tril()
        return arguments, {**options, "attention_mask": torch.zeros_like(mask).masked_fill(~ones, -1e9)}

    handle = block.register_forward_pre_hook(forget, with_kwargs=True)
    try:
        assert ResidualReader.create(reader.model, reader.points).packs  # its residuals do not depend on that layer
        assert not ResidualReader.create(reader.model, reader.points, reader.head).packs
    finally:
        handle.remove()
    assert "ignores custom attention masks" in caplog.text
