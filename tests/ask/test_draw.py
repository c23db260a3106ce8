"""Answers drawn from a model: those of transformers where nothing is drawn, its distribution where something is."""

from __future__ import annotations

import copy
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import tiny
from bluffscope.host.float64_guard import computing_in
from bluffscope.model import load_model
from bluffscope.model.decode import LEVELS, chosen, drawn, uniforms
from bluffscope.runs.ask.draw import Drawing, Prompt, alike, batched, draw

GREEDY = Drawing(temperature=0, most_tokens=12)


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(
        str(tiny_model), revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float64, head=True
    )


@pytest.fixture(scope="module")
def prompts(model):
    """Of several lengths, all with a BOS."""
    size, generator = len(model.tokenizer), np.random.default_rng(0)
    return [
        Prompt(str(k), (model.tokenizer.bos_token_id, *generator.integers(5, size, 2 + k % 5).tolist()))
        for k in range(12)
    ]


def generated(model, prompt, stops, most):
    ids = torch.tensor([prompt.ids])
    found = model.network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=stops,
        pad_token_id=0,
    )[0, ids.shape[1] :].tolist()
    return tuple(found[: next((at for at, token in enumerate(found) if token in stops), len(found))])


def common(prompts, length=6):
    """The same prompts behind a beginning that all share."""
    return [replace(one, ids=(*range(7, 7 + length), *one.ids)) for one in prompts]


@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
def test_without_a_draw_answers_are_those_of_generate(model, prompts, shared):
    asked = common(prompts) if shared else prompts
    free = [generated(model, one, [model.tokenizer.eos_token_id], 12) for one in asked]
    # tokens that the model does give, so that answers end at different steps
    stops = sorted({free[0][3], free[1][5], free[2][0]})
    for ends in ([model.tokenizer.eos_token_id], stops):
        expected = [generated(model, one, ends, 12) for one in asked]
        assert [one.tokens for (one,) in draw(model, asked, GREEDY, ends)] == expected
    assert any(len(tokens) < 12 for tokens in expected)


def test_log_probabilities_are_the_model_s_whatever_the_temperature(model, prompts):
    stops = [model.tokenizer.eos_token_id]
    for answers in draw(model, prompts[:3], Drawing(samples=3, temperature=2.0, most_tokens=5), stops):
        assert len(answers) == 3
    for one, (answer, *_) in zip(
        prompts[:3], draw(model, prompts[:3], Drawing(samples=3, most_tokens=5), stops), strict=True
    ):
        ids = [*one.ids, *answer.tokens, *(stops if answer.ended else [])]
        with torch.no_grad(), computing_in(torch.float64):
            likely = model.network(torch.tensor([ids])).logits[0].double().log_softmax(1)
        places = range(len(one.ids) - 1, len(ids) - 1)
        assert answer.logprob == pytest.approx(sum(float(likely[at, ids[at + 1]]) for at in places), abs=1e-9)


def test_neither_the_batch_nor_its_order_changes_an_answer(model, prompts):
    drawing, stops = Drawing(samples=4, most_tokens=8), [model.tokenizer.eos_token_id, 11, 12, 13]
    together = draw(model, prompts, drawing, stops)
    assert together == draw(model, prompts, drawing, stops)
    alone = [draw(model, [one], drawing, stops)[0] for one in prompts]
    assert [[one.tokens for one in some] for some in together] == [[one.tokens for one in some] for some in alone]
    other = draw(model, prompts, replace(drawing, seed=1), stops)
    assert [[one.tokens for one in some] for some in other] != [[one.tokens for one in some] for some in together]
    assert len({one.tokens for one in together[0]}) > 1


def test_first_tokens_follow_the_model_s_distribution(model, prompts):
    (answers,) = draw(model, prompts[:1], Drawing(samples=2000, most_tokens=1), [])
    with torch.no_grad():
        shares = model.network(torch.tensor([prompts[0].ids])).logits[0, -1].double().softmax(0).numpy()
    counts = np.bincount([one.tokens[0] for one in answers], minlength=len(shares))
    order = np.argsort(-shares)
    kept = order[np.cumsum(shares[order]) <= 0.9]
    observed = [*counts[kept], 2000 - counts[kept].sum()]
    expected = [*2000 * shares[kept], 2000 * (1 - shares[kept].sum())]
    large = np.array(expected) >= 5
    if not large.all():  # small cells together
        observed = [*np.array(observed)[large], np.array(observed)[~large].sum()]
        expected = [*np.array(expected)[large], np.array(expected)[~large].sum()]
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    wrong = np.roll(expected, 1)
    assert stats.chisquare(observed, wrong).pvalue < 1e-3


def test_a_token_is_the_first_at_which_the_cumulative_probability_exceeds_the_number():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]] * 5, dtype=torch.float64))
    numbers = torch.tensor([0.0, 0.499, 0.5, 0.76, 1 - 1e-16], dtype=torch.float64)[:, None].expand(5, LEVELS)
    assert chosen(logits, numbers, 1.0).tolist() == [0, 0, 1, 2, 2]
    assert chosen(logits, numbers, 0.0).tolist() == [0] * 5


@pytest.mark.parametrize("size", [1, 16, 17, 320, pytest.param(5000, marks=pytest.mark.thorough)])
def test_tokens_are_drawn_as_often_as_they_are_likely_whatever_the_vocabulary(size):
    generator = np.random.default_rng(size)
    logits = torch.from_numpy(generator.normal(0, 2, size))
    numbers = torch.from_numpy(generator.random((20_000, LEVELS)))
    tokens, nearest = drawn(logits.expand(20_000, size), numbers, 0.7)
    shares = (logits / 0.7).softmax(0).numpy()
    order = np.argsort(-shares)
    cells = np.minimum(np.searchsorted(np.cumsum(shares[order]), np.linspace(0.1, 0.9, 9)), size - 1)
    cell = np.zeros(size, dtype=int)
    cell[order] = np.searchsorted(np.unique(cells), np.arange(size))
    expected = np.bincount(cell, shares) * 20_000
    observed = np.bincount(cell[tokens.numpy()], minlength=len(expected))
    assert len(expected) == 1 or stats.chisquare(observed, expected * (20_000 / expected.sum())).pvalue > 1e-3
    assert (nearest >= 0).all() and (nearest <= 1).all() and (size == 1) == (nearest.min() == 1)


def test_numbers_follow_from_seed_question_and_sample_alone():
    first = uniforms(0, "q", 3, 8)
    assert (first == uniforms(0, "q", 3, 8)).all() and (first[:4] == uniforms(0, "q", 3, 4)).all()
    assert not (first == uniforms(1, "q", 3, 8)).any() and not (first == uniforms(0, "q", 4, 8)).any()


def test_batches_follow_from_the_lengths():
    prompts = [Prompt(str(k), (1,) * length) for k, length in enumerate([5, 2, 9, 2, 7])]
    assert list(batched(prompts, 2)) == [[1, 3], [0, 4], [2]]


@pytest.mark.parametrize("kind", tiny.BY_LENGTH)
def test_prompts_of_different_position_factors_share_no_batch(kind, tmp_path):
    folder = tiny.save_random(tmp_path / kind, copy.deepcopy(tiny.BY_LENGTH[kind]))
    dtype = torch.float32 if "moe" in kind else torch.float64
    own = load_model(str(folder), revision=None, blocks=None, device=torch.device("cpu"), dtype=dtype, head=True)
    generator = np.random.default_rng(1)
    lengths = (8, 12, 17, 20, 20, 23, 26, 31, 31, 40)
    asked = [Prompt(str(k), (1, *generator.integers(5, 300, length - 1).tolist())) for k, length in enumerate(lengths)]
    most = 6
    drawing, stops = Drawing(temperature=0, most_tokens=most), [own.tokenizer.eos_token_id]
    batches = list(batched(asked, 99, alike(own.config, most)))
    assert len(batches) > 1 and sorted(sum(batches, [])) == list(range(len(asked)))
    crossing = 0
    for batch in batches:
        some = [asked[place] for place in batch]
        found = [one.tokens for (one,) in draw(own, some, drawing, stops)]
        assert found == [draw(own, [one], drawing, stops)[0][0].tokens for one in some]
        if alike(own.config, most)(len(some[0].ids)) == alike(own.config, 1)(len(some[0].ids)):
            assert found == [generated(own, one, stops, most) for one in some]
        else:  # Phi-3's own generate computes everything again at the border
            crossing += 1
    assert 0 < crossing < len(batches)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.thorough
def test_in_float32_other_batches_change_an_answer_only_at_a_border_between_tokens(tiny_model, size):
    differences = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "ask.py"))["differences"]
    own = load_model(
        str(tiny_model), revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float32, head=True
    )
    generator = np.random.default_rng(2)
    asked = [Prompt(str(k), (1, *generator.integers(5, 300, 3 + k % 9).tolist())) for k in range(24)]
    drawing, stops = Drawing(samples=10, most_tokens=10), [own.tokenizer.eos_token_id]

    def answers(size, how=drawing):
        return {
            asked[place].id: found
            for places in batched(asked, size)
            for place, found in zip(places, draw(own, [asked[place] for place in places], how, stops), strict=True)
        }

    whole = answers(24)
    total, far = differences(own, asked, drawing, whole, answers(size))
    assert total == 240 and len(far) <= 2 and all(one < 1e-4 for one in far)
    # Other numbers give other answers, and these are at no border.
    total, far = differences(own, asked, drawing, whole, answers(size, replace(drawing, seed=1)))
    assert len(far) > 200 and max(far) > 1e-3
