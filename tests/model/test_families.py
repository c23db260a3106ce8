"""Every decoder-only family that transformers can build: what is read equals a plain forward, or it is refused."""

from __future__ import annotations

import collections
import logging
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import compare
import families
import measuring
import tiny
from bluffscope.errors import InputError
from bluffscope.model import HookPoint, LanguageModel, ResidualReader, load_model
from bluffscope.model.given import GivenModel
from bluffscope.model.hooks import HOOK_Z
from bluffscope.model.sublayers import find_sublayers, placed
from bluffscope.pipeline.plan import pack, pad
from bluffscope.records import Sequence
from bluffscope.reference.model import Counts, Text, forward
from random_pairs import random_pairs

STATES_AFTER = {"mamba", "falcon_mamba", "rwkv"}
"""Their `hidden_states` begin with the first block's output; everybody else's with the embedding."""
MIXES_TOKENS_LATER = {"inkling_text", "inkling2_text"}
"""The MLP's output goes through a convolution over tokens."""
SLOTS = {0: 0, 1: 1}


@dataclass
class Seen:
    """What became of a family."""

    unbuilt: str = ""
    refused: str = ""
    packs: bool = False
    error: float = 0.0
    """Largest relative difference of residuals from plain forwards."""
    sum_error: float = 0.0
    """Of resid_pre + attn_out + mlp_out from resid_post, where a block has them."""
    complete: int = 0
    """Blocks with both."""
    heads: int = 0
    """Blocks with hook_z."""
    attention_alone: bool = True
    """Whether tokens meet each other in attn_out, and so in hook_z, alone."""
    reference: list[str] = field(default_factory=list)


def texts() -> list[Sequence]:
    """Views of two pairs with shared beginnings, all longer than the sliding window; every token is read."""
    rng = np.random.default_rng(0)
    stem = rng.integers(3, 300, 9).tolist()
    made = [(*stem[: 4 + n], *rng.integers(3, 300, 8 + n).tolist()) for n in range(6)]
    return [Sequence(n // 3, n % 3, ids, reads=tuple(range(len(ids)))) for n, ids in enumerate(made)]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


def plain(model: LanguageModel, layers: list[int]) -> torch.Tensor:
    """(layer, token, d_model) hidden states of each text alone, as transformers runs it."""
    found = []
    for text in texts():
        with torch.no_grad():
            output = model.network(torch.tensor([text.ids]), use_cache=False, output_hidden_states=True)
        states = output.hidden_states[model.name not in STATES_AFTER :]
        found.append(torch.stack([states[layer][0] for layer in layers]))
    return torch.cat(found, dim=1)


def look(name: str) -> Seen:
    try:
        model = families.build(name)
    except Exception as error:  # noqa: BLE001 (whatever keeps transformers from building one is the reason)
        return Seen(unbuilt=" ".join(f"{type(error).__name__}: {error}".split())[:100])
    layers = list(range(len(model.blocks) - 1))  # the last one's hidden state is after the final norm
    try:
        sublayers = find_sublayers(name, model.network, model.blocks, layers)
    except InputError as error:
        return Seen(refused=str(error))
    seen = Seen()
    reader = ResidualReader.create(model, {layer: HookPoint(layer, "hook_resid_post") for layer in layers})
    seen.packs = reader.packs
    batch = pack(texts(), SLOTS, 1000) if reader.packs else pad(texts(), SLOTS)
    residuals = reader.read(batch).residuals
    expected = plain(model, layers)
    seen.error = max(apart(residuals[layer], expected[layer]) for layer in layers)
    for layer, there in sublayers.items():
        seen.heads += HOOK_Z in there.points
        if "hook_attn_out" in there.points:
            seen.complete += 1
            added = (there.points[point] for point in ("hook_attn_out", "hook_mlp_out"))
            points = dict(enumerate((HookPoint(layer, "hook_resid_pre"), *added)))
            parts = ResidualReader(model, points, reader.style).read(batch).residuals
            seen.sum_error = max(seen.sum_error, apart(sum(parts.values()), residuals[layer]))
            seen.reference.append(by_reference(model, layer, there.points))
    if "hook_attn_out" in sublayers[0].points:
        met = {point: tokens_meet(model, there) for point, there in sublayers[0].points.items()}
        seen.attention_alone = met == {point: point == "hook_mlp_out" for point in met}
    return seen


def tokens_meet(model: LanguageModel, without: HookPoint) -> bool:
    """Whether the first block's output at the last token depends on the first token, one of its sublayers removed."""
    seen = []
    hooks = [
        without.alter(model.blocks, torch.zeros_like),
        HookPoint(0, "hook_resid_post").attach(model.blocks, lambda states: seen.append(states[0, -1])),
    ]
    for first in (7, 8):
        with torch.no_grad():
            model.network(torch.tensor([[first, 9, 10, 11]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return not torch.allclose(*seen, rtol=1e-5, atol=1e-6)


def by_reference(model: LanguageModel, layer: int, there: Iterable[str]) -> str:
    """ "same" where the reference reads what the engine reads; else why it does not."""
    names = {n: f"blocks.{layer}.{point}" for n, point in enumerate(there)}
    points = {n: HookPoint.parse(name) for n, name in names.items()}
    ids = texts()[0].ids
    whole = Text(ids=list(ids), reads=list(range(len(ids))), tokens=len(ids), read_token="")
    try:
        theirs = forward(model.network, whole, names, Counts())
    except InputError as error:
        return str(error)
    reader = ResidualReader(model, placed(points, model.name, model.network, model.blocks), None)
    ours = reader.read(pad([Sequence(0, 0, ids, reads=tuple(range(len(ids))))], {0: 0})).residuals
    return "same" if all(torch.allclose(ours[n], theirs[n], rtol=1e-5, atol=1e-6) for n in names) else "differs"


def survey() -> dict[str, Seen]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of families in general
        return {name: look(name) for name in families.NAMES}


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """All of them, looked at once."""
    return survey()


def forward_equal(seen: dict[str, Seen]) -> list[str]:
    return [name for name, one in seen.items() if not one.unbuilt and not one.refused]


def test_every_family_that_can_be_built_reads_what_a_plain_forward_of_each_text_alone_gives(seen):
    assert {name: seen[name].error for name in forward_equal(seen) if not seen[name].error < 2e-5} == {}
    assert len(forward_equal(seen)) >= 45


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


if __name__ == "__main__":  # PYTHONPATH=tests python tests/model/test_families.py
    logging.disable(logging.WARNING)
    found = survey()
    for name, one in found.items():
        read = (
            f"{'packed' if one.packs else 'padded'}, {one.complete} of {families.LAYERS - 1} blocks with both sublayers"
        )
        sys.stdout.write(f"{name:24} {one.unbuilt and 'not built: ' + one.unbuilt or one.refused or read}\n")
    equal = [found[name] for name in forward_equal(found)]
    sys.stdout.write(
        f"{len(found)} families: {len(equal)} read, {sum(one.packs for one in equal)} of them packed, "
        f"{sum(one.complete > 0 for one in equal)} with attention and MLP points, "
        f"{sum(one.heads > 0 for one in equal)} of them with hook_z; "
        f"{sum(bool(one.refused) for one in found.values())} refused, "
        f"{sum(bool(one.unbuilt) for one in found.values())} not built\n"
    )


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
