"""Every decoder-only family that transformers can build: what is read equals a plain forward, or it is refused."""

from __future__ import annotations

import collections
import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoTokenizer

import compare
import families
import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.model import HookPoint, load_model
from bluffscope.model.given import GivenModel
from bluffscope.model.sublayers import placed
from family_survey import Seen, Survey, survey, texts
from random_pairs import random_pairs

MIXES_TOKENS_LATER = {"inkling_text", "inkling2_text", "inkling_mm_model", "inkling2"}
"""The MLP's output goes through a convolution over tokens."""
ASKED_FOR = (
    *("qwen3_5", "qwen3_5_moe", "gemma3", "gemma4", "mistral3", "llama4", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    *("llava", "llava_next", "llava_onevision", "idefics2", "idefics3", "smolvlm", "internvl"),
    *("aya_vision", "glm4v", "kimi_k25"),
)
"""Of several modalities, those that people ask for."""


@pytest.fixture(scope="module")
def all_families() -> Survey:
    """Looked at once."""
    return survey()


@pytest.fixture(scope="module")
def seen(all_families) -> dict[str, Seen]:
    """Those of one modality."""
    return all_families.text


def forward_equal(seen: dict[str, Seen]) -> list[str]:
    return [name for name, one in seen.items() if one.is_read]


def test_every_family_that_can_be_built_reads_what_a_plain_forward_of_each_text_alone_gives(seen):
    assert {name: seen[name].error for name in forward_equal(seen) if not seen[name].error < 2e-5} == {}
    assert len(forward_equal(seen)) >= 110


def test_the_language_model_of_every_multimodal_family_is_loaded_alone_and_equals_the_whole(all_families):
    inside = all_families.inside
    assert {name: inside[name].error for name in forward_equal(inside) if not inside[name].error < 2e-5} == {}
    assert {name: one.unequal for name, one in inside.items() if one.unequal} == {}
    assert {*ASKED_FOR} <= {*forward_equal(inside)}
    assert len(forward_equal(inside)) >= 60
    assert sum(inside[name].complete > 0 for name in forward_equal(inside)) >= 50
    whole = [name for name in forward_equal(inside) if inside[name].complete]
    assert {name: inside[name].sum_error for name in whole if not inside[name].sum_error < 1e-5} == {}
    assert {name for name in whole if not inside[name].attention_alone} <= MIXES_TOKENS_LATER


def test_the_page_of_families_is_current(all_families):
    path = Path(__file__).resolve().parents[2] / "tools" / "make_family_docs.py"
    spec = importlib.util.spec_from_file_location("make_family_docs", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    current = made.page(all_families).splitlines()
    assert made.TARGET.read_text(encoding="utf-8").splitlines() == current, "run tools/make_family_docs.py"


def test_most_families_pack(seen):
    assert sum(seen[name].packs for name in forward_equal(seen)) >= 45


def test_attention_and_mlp_points_are_what_is_added_to_the_residual_stream_in_every_family_that_has_them(seen):
    whole = [name for name in forward_equal(seen) if seen[name].complete]
    assert {name: seen[name].sum_error for name in whole if not seen[name].sum_error < 1e-5} == {}
    assert {"bloom", "granite", "glm4", "gemma2", "olmo2", "gpt_neox", "falcon", "mpt", "hyperclovax"} <= set(whole)
    assert len(whole) >= 45


def test_the_heads_outputs_are_found_in_most_families_that_have_attention(seen):
    heads = {name for name in forward_equal(seen) if seen[name].heads == seen[name].complete > 0}
    usual = {"llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text", "qwen3", "bloom", "falcon", "granite", "phi"}
    assert usual | {"mistral", "glm4", "olmo2", "deepseek_v3", "gpt_neo", "gptj"} <= heads
    assert len(heads) >= 40


def test_tokens_meet_in_the_attention_point_and_not_in_the_mlp_point(seen):
    wrong = {name for name in forward_equal(seen) if not seen[name].attention_alone}
    assert wrong <= MIXES_TOKENS_LATER


def test_the_reference_reads_the_same_or_refuses(seen):
    said = collections.Counter(answer for one in seen.values() for answer in one.reference)
    assert said["differs"] == 0
    assert {seen[name].reference[0] for name in ("gpt2", "gemma2", "granite", "bloom", "glm4", "olmo2")} == {"same"}


def test_models_that_look_ahead_and_blocks_without_one_residual_stream_are_refused(seen):
    refused = {name: one.refused for name, one in seen.items() if one.refused}
    assert "looks at later tokens" in refused["bert"]
    assert "looks at later tokens" in refused["roberta-prelayernorm"]
    assert "does not pass on a residual stream of 16 dimensions" in refused["deepseek_v4"]
    assert all("\n" not in reason for reason in refused.values())


@pytest.mark.parametrize("name", ["beam", "minimax", "openai-gpt"])
def test_a_sublayer_that_cannot_be_read_is_refused_by_model_layer_and_hook(name):
    model = families.build(name)
    with pytest.raises(InputError) as caught:
        placed({1: HookPoint(1, "hook_mlp_out")}, name, model.network, model.blocks)
    message = str(caught.value)
    assert message.startswith(f"--model {name}, layer 1: blocks.1.hook_mlp_out cannot be read")
    assert "% off" in message


@pytest.mark.parametrize("name", ["granite", "bloom", "glm4"])
def test_the_whole_analysis_of_such_points_equals_the_reference(name, tmp_path):
    model = families.build(name)
    model.network.save_pretrained(tmp_path / "model")
    tiny.save_tokenizer(tmp_path / "model")
    saes = tiny.save_saes(tmp_path / "saes", (0, 1), point="hook_mlp_out")
    pairs = measuring.as_pairs(random_pairs(3, count=8))
    table = measuring.measure(measuring.make_worker(tmp_path / "model", saes, noise_draws=2), pairs)
    expected = measuring.load_oracle(tmp_path / "model", saes, (0, 1)).rows(pairs, noise_draws=2, layers=(0, 1))
    compare.assert_same(table, expected, "float64", draws=2)


@pytest.mark.parametrize("name", ["llava", "gemma4", "qwen2_5_vl", "idefics3"])
def test_the_whole_analysis_inside_a_multimodal_checkpoint_equals_the_reference_on_the_whole_model(name, tmp_path):
    families.build_whole(name).network.save_pretrained(tmp_path / "model")
    tiny.save_tokenizer(tmp_path / "model")
    saes = tiny.save_saes(tmp_path / "saes", (0, 1))
    pairs = measuring.as_pairs(random_pairs(3, count=8))
    table = measuring.measure(measuring.make_worker(tmp_path / "model", saes, noise_draws=2, logprob=True), pairs)
    whole = AutoModelForMultimodalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)
    coders = measuring.load_oracle(tiny.save_model(tmp_path / "other", "llama"), saes, (0, 1)).saes
    oracle = measuring.Oracle(whole.eval(), AutoTokenizer.from_pretrained(tmp_path / "model"), coders)
    expected = oracle.rows(pairs, noise_draws=2, layers=(0, 1), logprob=True)
    compare.assert_same(table, expected, "float64", draws=2)


def test_every_family_in_memory_is_read_as_from_its_folder_bit_for_bit_and_left_as_it_is(tmp_path):
    """Families whose saved weights are not read back at all are no matter of memory."""
    compared, differing = 0, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in families.NAMES:
            try:
                families.build(name).network.save_pretrained(tmp_path / name)
                tiny.save_tokenizer(tmp_path / name)
                options = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32}
                named = load_model(str(tmp_path / name), blocks=2, **options)
                model = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32)
            except Exception:  # noqa: BLE001, S112 (as above)
                continue
            ids = torch.tensor([texts()[0].ids])
            with torch.no_grad():
                before = model(ids, use_cache=False).logits
                ours = GivenModel.of(model, named.tokenizer).load(2, head=False)
                same = torch.equal(ours.network(ids, use_cache=False)[0], named.network(ids, use_cache=False)[0])
                same &= ours.identity["weights"] == named.identity["weights"]
                same &= torch.equal(model(ids, use_cache=False).logits, before)
            compared += 1
            if not same:
                differing[name] = ours.identity["architecture"]
    assert differing == {}
    assert compared >= 45
