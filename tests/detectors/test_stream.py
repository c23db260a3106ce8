"""A model that writes while a detector reads it: what plain transformers and SAELens make of the same token ids."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import bluffscope
from bluffscope.config import WatchOptions
from bluffscope.detectors.files import read_detector
from bluffscope.detectors.growing import prefix_scores
from bluffscope.detectors.stream import open_watcher
from bluffscope.errors import InputError
from made_detectors import CLOSE, PROMPTS, ByHand, make_detector

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def watched(folder, prompts=PROMPTS, **options):
    """By prompt, the tokens written."""
    how = WatchOptions(**{"max_new_tokens": 12, **options})
    watcher = open_watcher(read_detector(folder), chat=how.chat, system=how.system)
    found = [[] for _ in prompts]
    for token in watcher.write(prompts, how):
        found[token.prompt].append(token)
    return found


def test_each_architecture_s_scores_are_those_of_a_full_forward_over_the_same_ids(any_model, tmp_path):
    folder = make_detector(tmp_path / "d", any_model)
    by_hand = ByHand(folder, any_model)
    seen = []
    for prompt, tokens in zip(PROMPTS, watched(folder), strict=True):
        ids = by_hand.ids(prompt)
        assert [token.id for token in tokens] == by_hand.generated(ids, 12)
        expected = by_hand.tokens([*ids, *(token.id for token in tokens)])[len(ids) :]
        assert [token.logit for token in tokens] == pytest.approx(expected, abs=CLOSE)
        seen += expected.tolist()
        chances = by_hand.detector.calibration.probabilities(expected)
        assert [token.probability for token in tokens] == pytest.approx(chances, abs=CLOSE)
    assert len(seen) > 12 and np.ptp(seen) > 100 * CLOSE


def test_a_detector_of_sae_features_encodes_each_token(tiny_model, tiny_saes, tmp_path):
    folder = make_detector(tmp_path / "d", tiny_model, saes=tiny_saes, layers=(0, 3), on="sae", scale=0.5)
    by_hand = ByHand(folder, tiny_model, tiny_saes)
    bos = open_watcher(by_hand.detector).tokenizer.bos
    for prompt, tokens in zip(PROMPTS, watched(folder, temperature=0.7, seed=3), strict=True):
        ids = by_hand.ids(prompt)[0 if bos is not None else 1 :]
        expected = by_hand.tokens([*ids, *(token.id for token in tokens)])[len(ids) :]
        assert [token.logit for token in tokens] == pytest.approx(expected, abs=CLOSE)
        assert np.ptp(expected) > 100 * CLOSE


@pytest.mark.parametrize("items", ["pairs", "statements"])
@pytest.mark.parametrize("position", ["completion-mean", "first-completion"])
def test_other_positions_are_of_the_completion_so_far_or_of_the_whole_text(tiny_model, tmp_path, position, items):
    folder = make_detector(tmp_path / "d", tiny_model, position=position, items=items)
    by_hand = ByHand(folder, tiny_model)
    for prompt, tokens in zip(PROMPTS, watched(folder), strict=True):
        ids = by_hand.ids(prompt)
        start = 1 if items == "statements" else len(ids)
        scores = by_hand.tokens([*ids, *(token.id for token in tokens)])[start:]
        ends = range(len(ids) - start + 1, len(scores) + 1)
        expected = [scores[0] if position == "first-completion" else scores[:end].mean() for end in ends]
        assert [token.logit for token in tokens] == pytest.approx(expected, abs=CLOSE)


def test_the_last_token_s_probability_is_that_of_detect_score(tiny_model, tmp_path):
    from bluffscope.detectors.score import Text, open_scorer

    folder = make_detector(tmp_path / "d", tiny_model)
    detector, tokenizer = read_detector(folder), AutoTokenizer.from_pretrained(tiny_model)
    scorer, compared = open_scorer(detector, device="cpu"), 0
    for prompt, tokens in zip(PROMPTS, watched(folder, temperature=0.7, seed=3), strict=True):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        for count in range(1, len(tokens) + 1):
            text = prompt + "".join(token.text for token in tokens[:count])
            read = tokenizer(text, add_special_tokens=False)["input_ids"]
            if read == [*ids, *(token.id for token in tokens[:count])]:  # else the model wrote a word in other pieces
                (score,) = scorer.scores([Text("0", text)])
                assert tokens[count - 1].probability == pytest.approx(score.probability, abs=CLOSE)
                compared += 1
    assert compared >= 3


@pytest.mark.thorough
def test_what_is_drawn_follows_from_prompt_and_seed_and_not_from_the_batch(tiny_model, tmp_path):
    folder = make_detector(tmp_path / "d", tiny_model)
    together = watched(folder, temperature=1.5)
    alone = [watched(folder, (prompt,), temperature=1.5)[0] for prompt in PROMPTS]
    assert [[one.id for one in some] for some in together] == [[one.id for one in some] for some in alone]
    for one, other in zip(sum(together, []), sum(alone, []), strict=True):
        assert one.logit == pytest.approx(other.logit, abs=CLOSE)
    assert together != watched(folder, temperature=1.5, seed=1)
    twice = watched(folder, PROMPTS[:1] * 2, temperature=1.5)
    assert [one.id for one in twice[0]] != [one.id for one in twice[1]]


def test_the_texts_of_the_tokens_make_up_the_text_whatever_characters_are_in_several(tiny_model, tmp_path):
    folder = make_detector(tmp_path / "d", tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for prompt, tokens in zip(PROMPTS, watched(folder, temperature=3.0, max_new_tokens=60), strict=True):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        whole = tokenizer.decode([*ids, *(token.id for token in tokens)])
        written = tokenizer.decode(ids) + "".join(token.text for token in tokens)
        assert whole.rstrip("\ufffd").startswith(written.rstrip("\ufffd"))
        assert len(whole) - len(written) < 5  # a last character may have been left unfinished
        assert any(token.text == "" for token in tokens) or "\ufffd" not in whole


def test_a_stop_text_ends_it_also_across_tokens(tiny_model, tmp_path):
    folder = make_detector(tmp_path / "d", tiny_model)
    how = {"prompts": PROMPTS[:2], "temperature": 3.0, "max_new_tokens": 40}
    free, other = watched(folder, **how)
    texts = ["".join(token.text for token in free[:count]) for count in range(len(free) + 1)]
    count = next(count for count, text in enumerate(texts) if len(text) >= 4)
    stop = texts[count][-3:]  # a token of this vocabulary is shorter
    stopped, same = watched(folder, **how, stop=(stop, "never written"))
    assert [token.id for token in stopped] == [token.id for token in free[: len(stopped)]]
    assert texts[len(stopped)].endswith(stop) and stop not in texts[len(stopped) - 1]
    assert len(stopped) <= count < len(free)
    assert [token.id for token in same] == [token.id for token in other]


def test_conversations_go_through_the_chat_template(tiny_model, tmp_path):
    model = tmp_path / "chat"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).save_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    trained = make_detector(tmp_path / "chatting", model, chat=True)
    plain = make_detector(tmp_path / "plain", model)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)[
        "input_ids"
    ]
    (tokens,) = watched(trained, ("Hello",))
    (same,) = watched(plain, ("Hello",), chat=True)
    assert [token.id for token in tokens] == [token.id for token in same]
    by_hand = ByHand(trained, model)
    expected = by_hand.tokens([*asked, *(token.id for token in tokens)])[len(asked) :]
    assert [token.logit for token in tokens] == pytest.approx(expected, abs=CLOSE)
    (other,) = watched(trained, ("Hello",), system="Be brief")
    assert [token.logit for token in other] != [token.logit for token in tokens]
    with pytest.raises(InputError, match="--system: only with --chat"):
        watched(plain, ("Hello",), system="Be brief")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"on": "metrics"}, "compares a finished completion with its prompt"),
        ({"position": "end-of-turn"}, "reads at end-of-turn, which a text that is being written does not have"),
        ({"position": "divergence"}, "reads at divergence"),
    ],
)
def test_detectors_that_cannot_judge_a_growing_text_are_refused_before_a_model_is_loaded(
    tiny_model, tmp_path, made, says
):
    detector = read_detector(make_detector(tmp_path / "d", tiny_model, **made))
    with pytest.raises(InputError, match=says):
        open_watcher(detector, model="no such model")


def test_another_model_is_refused_and_so_is_a_prompt_that_leaves_no_room(tiny_model, tmp_path):
    folder = make_detector(tmp_path / "d", tiny_model)
    other = tmp_path / "other"
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        network.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    network.save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(other)
    with pytest.raises(InputError, match="not the model and SAEs of the detector"):
        open_watcher(read_detector(folder), model=str(other))
    watcher = open_watcher(read_detector(folder))
    with pytest.raises(InputError, match="leave no room in the model's context of 128"):
        watcher.write(["word " * 200], WatchOptions())


@pytest.mark.thorough
def test_from_python_it_yields_text_and_probability_and_leaves_nothing_set_in_between(tiny_model, tmp_path):
    detector = bluffscope.load_detector(make_detector(tmp_path / "d", tiny_model))
    torch.set_default_dtype(torch.float64)
    try:
        stream = detector.stream(PROMPTS[0], max_new_tokens=6)
        first = next(stream)
        assert torch.get_default_dtype() is torch.float64 and not torch.is_inference_mode_enabled()
        rest = [first, *stream]
    finally:
        torch.set_default_dtype(torch.float32)
    (expected,) = watched(detector.path, PROMPTS[:1], max_new_tokens=6)
    assert rest == [(token.text, pytest.approx(token.probability)) for token in expected]
    one, other = detector.stream(PROMPTS[0], max_new_tokens=6), detector.stream(PROMPTS[1], max_new_tokens=6)
    assert [pair[0] for pair in zip(one, other, strict=False)] == rest
    assert len(detector.loaded) == 1
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert list(detector.stream(PROMPTS[0], model=network, tokenizer=tokenizer, max_new_tokens=6)) == rest
    with pytest.raises(TypeError):
        detector.stream(PROMPTS[0], tokens=3)
    assert len(list(detector.stream("word " * 5, max_new_tokens=500, temperature=2.0))) <= 128
    abandoned = detector.stream(PROMPTS[0])
    next(abandoned)
    del abandoned
    gc.collect()
    (watcher, _) = detector.loaded.values()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in watcher.model.network.modules())


def test_prefix_scores_of_no_and_of_one_token():
    assert prefix_scores("completion-mean", np.array([])).tolist() == []
    assert prefix_scores("completion-mean", np.array([2.0, 4.0]), np.array([0.0])).tolist() == [1.0, 2.0]
    assert prefix_scores("first-completion", np.array([2.0, 4.0]), np.array([0.0])).tolist() == [0.0, 0.0]
