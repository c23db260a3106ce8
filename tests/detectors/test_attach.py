"""A detector attached to a model of the caller's: each generate is scored, and nothing stays behind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

import bluffscope
from bluffscope.errors import InputError
from made_detectors import CLOSE, PROMPTS, ByHand, make_detector


@pytest.fixture(scope="module")
def network(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp("detectors") / "d", tiny_model)


@pytest.fixture(scope="module")
def by_hand(folder, tiny_model):
    return ByHand(folder, tiny_model)


def batch(by_hand, prompts=PROMPTS):
    """Left-padded ids and mask."""
    ids = [by_hand.ids(prompt) for prompt in prompts]
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(one)) + one for one in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids]),
    }


def check(rows, by_hand, sequences, inputs, *, last=True):
    """Every row's scores are those of a full forward over the ids that generate returned."""
    width, seen, ends = inputs["input_ids"].shape[1], 0, (0, by_hand.network.generation_config.eos_token_id)
    for row, found, mask in zip(rows, sequences.tolist(), inputs["attention_mask"].tolist(), strict=True):
        written = found[width:]
        written = written[: next((place for place, token in enumerate(written) if token in ends), len(written))]
        assert [token.id for token in row] == written
        ids = found[width - sum(mask) : width + len(written)]
        expected = by_hand.tokens(ids)[sum(mask) :]
        known = [token for token in row if token.logit is not None]
        assert len(known) >= len(row) - (not last)
        assert [token.logit for token in known] == pytest.approx(expected[: len(known)], abs=CLOSE)
        chances = by_hand.detector.calibration.probabilities(expected[: len(known)])
        assert [token.probability for token in known] == pytest.approx(chances, abs=CLOSE)
        seen += len(known)
    assert seen


def traces(network):
    """What an attached detector could leave behind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    hooks = {name: [dict(vars(module)[kind]) for kind in kinds] for name, module in network.named_modules()}
    names = {name: sorted(vars(module)) for name, module in network.named_modules()}
    config = copy.deepcopy(network.config.to_dict()), copy.deepcopy(network.generation_config.to_dict())
    tensors = {name: (tensor.data_ptr(), tensor._version) for name, tensor in network.state_dict().items()}
    return hooks, names, config, tensors, network.training


WAYS = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.3, "top_k": 50},
    "without a cache": {"do_sample": False, "use_cache": False},
    "several sequences": {"do_sample": True, "num_return_sequences": 2},
    "in chunks": {"do_sample": False, "prefill_chunk_size": 3},
    "a static cache": {"do_sample": False, "cache_implementation": "static"},
    "a dictionary": {"do_sample": False, "return_dict_in_generate": True},
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_way_to_generate_is_scored_as_a_full_forward(network, folder, by_hand, way):
    torch.manual_seed(0)
    inputs = batch(by_hand)
    with bluffscope.load_detector(folder).attach(network) as scores:
        found = network.generate(**inputs, max_new_tokens=10, pad_token_id=0, **WAYS[way])
    if way == "several sequences":
        inputs = {name: value.repeat_interleave(2, 0) for name, value in inputs.items()}
    sequences = found if torch.is_tensor(found) else found.sequences
    check(scores.rows, by_hand, sequences, inputs, last=way in ("greedy", "sampled", "several sequences", "in chunks"))


def test_each_architecture_is_scored(any_model, tmp_path):
    folder = make_detector(tmp_path / "d", any_model)
    by_hand = ByHand(folder, any_model)
    network, inputs = by_hand.network, batch(by_hand)
    with bluffscope.load_detector(folder).attach(network) as scores:
        found = network.generate(**inputs, max_new_tokens=10, pad_token_id=0, do_sample=False)
    check(scores.rows, by_hand, found, inputs)


@pytest.mark.parametrize("position", ["completion-mean", "first-completion"])
@pytest.mark.parametrize("items", ["pairs", "statements"])
def test_other_positions_are_those_of_the_stream(network, tiny_model, by_hand, tmp_path, position, items):
    detector = bluffscope.load_detector(make_detector(tmp_path / "d", tiny_model, position=position, items=items))
    inputs = batch(by_hand)
    with detector.attach(network) as scores:
        network.generate(**inputs, max_new_tokens=10, pad_token_id=0, do_sample=False)
    for prompt, row in zip(PROMPTS, scores.rows, strict=True):
        expected = [probability for _, probability in detector.stream(prompt, max_new_tokens=10)]
        assert [token.probability for token in row] == pytest.approx(expected, abs=CLOSE)


def test_features_of_saes_are_looked_at(network, tiny_model, tiny_saes, by_hand, tmp_path):
    folder = make_detector(tmp_path / "d", tiny_model, saes=tiny_saes, layers=(0, 3), on="sae", scale=0.5)
    inputs = batch(by_hand)
    with bluffscope.load_detector(folder).attach(network) as scores:
        found = network.generate(**inputs, max_new_tokens=10, pad_token_id=0, do_sample=False)
    check(scores.rows, ByHand(folder, tiny_model, tiny_saes), found, inputs)


def test_a_callback_hears_each_token_while_it_is_written(network, folder, by_hand):
    told = []
    with bluffscope.load_detector(folder).attach(network, on_token=told.append) as scores:
        network.generate(**batch(by_hand), max_new_tokens=10, pad_token_id=0, do_sample=True, temperature=2.0)
    for place, row in enumerate(scores.rows):
        heard = [step[place] for step in told if step[place] is not None]
        assert [(one.id, one.logit) for one in heard] == [(one.id, pytest.approx(one.logit)) for one in row]
    assert len(told) == max(map(len, scores.rows))


def test_what_generate_returns_is_what_it_returns_unwatched_and_nothing_stays(network, folder, by_hand):
    inputs, before = batch(by_hand), traces(network)
    how = {"max_new_tokens": 10, "pad_token_id": 0, "do_sample": True}
    torch.manual_seed(3)
    expected = network.generate(**inputs, **how)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    with bluffscope.load_detector(folder).attach(network):
        found = network.generate(**inputs, **how)
        network(inputs["input_ids"])  # no generate: nobody listens
    assert torch.equal(found, expected) and torch.equal(state, torch.get_rng_state())
    assert traces(network) == before


@pytest.mark.parametrize("where", ["body", "callback", "generate"])
def test_nothing_stays_after_an_exception(network, folder, by_hand, where):
    before = traces(network)

    def fail(_):
        raise RuntimeError("stopped")

    with pytest.raises((RuntimeError, ValueError)):  # noqa: PT012, SIM117
        with bluffscope.load_detector(folder).attach(network, on_token=fail if where == "callback" else None):
            if where == "body":
                fail(None)
            network.generate(**batch(by_hand), max_new_tokens=-1 if where == "generate" else 4, pad_token_id=0)
    assert traces(network) == before


def test_two_detectors_at_once_do_not_disturb_each_other(network, folder, by_hand, tiny_model, tmp_path):
    other = make_detector(tmp_path / "other", tiny_model, layers=(1,))
    inputs, before = batch(by_hand), traces(network)
    with (
        bluffscope.load_detector(folder).attach(network) as first,
        bluffscope.load_detector(other).attach(network) as second,
    ):
        found = network.generate(**inputs, max_new_tokens=10, pad_token_id=0, do_sample=False)
    check(first.rows, by_hand, found, inputs)
    check(second.rows, ByHand(other, tiny_model), found, inputs)
    assert traces(network) == before


def test_a_cache_of_the_caller_s_goes_on_from_call_to_call(network, folder, by_hand):
    cache = DynamicCache(config=network.config)
    inputs = batch(by_hand, PROMPTS[:1])
    with bluffscope.load_detector(folder).attach(network) as scores:
        first = network.generate(**inputs, max_new_tokens=5, past_key_values=cache, do_sample=False)
        assert cache.get_seq_length() == first.shape[1] - 1
        ids = torch.cat([first, torch.tensor([[9, 10]])], 1)
        again = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        second = network.generate(**again, max_new_tokens=5, past_key_values=cache, do_sample=False)
    assert len(scores.calls) == 2
    check(scores.calls[0], by_hand, first, inputs, last=False)
    check(scores.calls[1], by_hand, second, again, last=False)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"num_beams": 2}, "beams swap rows"),
        ({"prompt_lookup_num_tokens": 2}, "cannot follow generate with prompt_lookup_num_tokens"),
        ({"guidance_scale": 2.0}, "cannot follow generate with guidance_scale"),
    ],
)
def test_a_generate_that_cannot_be_followed_is_refused(network, folder, by_hand, how, says):
    with bluffscope.load_detector(folder).attach(network) as scores, pytest.raises(InputError, match=says):
        network.generate(**batch(by_hand, PROMPTS[:1]), max_new_tokens=4, **how)
    assert scores.rows == []


def test_another_model_is_refused_unless_it_is_allowed_and_has_the_width(network, folder, by_hand):
    detector = bluffscope.load_detector(folder)
    half = copy.deepcopy(network).to(torch.bfloat16)
    with pytest.raises(InputError, match=r"not the model and SAEs.*allow_other=True"), detector.attach(half):
        pass
    inputs = batch(by_hand)
    with detector.attach(half, allow_other=True) as scores:
        half.generate(**inputs, max_new_tokens=4, pad_token_id=0, do_sample=False)
    with detector.attach(network) as exact:
        network.generate(**inputs, max_new_tokens=4, pad_token_id=0, do_sample=False)
    for near, row in zip(scores.rows, exact.rows, strict=True):
        if near and row and near[0].id == row[0].id:
            assert near[0].logit == pytest.approx(row[0].logit, abs=0.3)
    with pytest.raises(InputError, match="expected a model of transformers"), detector.attach(torch.nn.Linear(2, 2)):
        pass
    wide = copy.deepcopy(network.config)
    wide.hidden_size, wide.num_hidden_layers = 32, 4
    other = type(network)(wide)
    with (
        pytest.raises(InputError, match="it has 32 weights, and the model's layers 64"),
        detector.attach(other, allow_other=True),
    ):
        pass


def test_metrics_are_refused(network, tiny_model, tmp_path):
    detector = bluffscope.load_detector(make_detector(tmp_path / "d", tiny_model, on="metrics"))
    with pytest.raises(InputError, match="compares a finished completion"), detector.attach(network):
        pass


def test_scores_of_a_generate_without_a_token_are_empty(network, folder, by_hand):
    with bluffscope.load_detector(folder).attach(network) as scores:
        assert scores.rows == []
        network.generate(**batch(by_hand), max_new_tokens=1, do_sample=False, pad_token_id=0)
    assert all(len(row) <= 1 for row in scores.rows)
    assert np.isfinite([token.logit for row in scores.rows for token in row]).all()
