"""SmolLM2-135M writes 50 texts in each of four ways, watched: as a full forward of transformers scores their ids."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
import torch

from bluffscope.config import WatchOptions
from bluffscope.detectors.files import read_detector
from bluffscope.detectors.stream import open_watcher
from made_detectors import make_detector
from published import published_model

pytestmark = pytest.mark.thorough
TEXTS, TOKENS, LAYERS = 50, 24, (6, 14, 23)
CLOSE = 1e-4


@pytest.fixture(scope="module")
def published():
    return published_model()


@pytest.fixture(scope="module")
def prompts():
    lines = resources.files("bluffscope.pairs").joinpath("data", "bluff200.jsonl").read_text("utf-8").splitlines()
    return list(dict.fromkeys(json.loads(line)["prompt"] for line in lines))[:TEXTS]


def full(watcher, ids):
    """The residuals after the layers at each token, from one forward without a cache."""
    network, read = watcher.model.network, {}
    handles = [
        watcher.model.blocks[layer].register_forward_hook(
            lambda _m, _a, out, layer=layer: read.update({layer: out if torch.is_tensor(out) else out[0]})
        )
        for layer in LAYERS
    ]
    with torch.no_grad():
        network(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return {layer: found[0] for layer, found in read.items()}


def written(watcher, prompts, options):
    """Ids of each prompt with what was written behind it, and the logits of that."""
    found = [[] for _ in prompts]
    for start in range(0, len(prompts), 25):
        for token in watcher.write(prompts[start : start + 25], options):
            found[start + token.prompt].append(token)
    for prompt, tokens in zip(prompts, found, strict=True):
        opening = watcher.tokenizer.opening(prompt)
        yield len(opening), [*opening, *(token.id for token in tokens)], [token.logit for token in tokens]


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_residual_detectors(published, prompts, chat, temperature, tmp_path):
    folder = make_detector(tmp_path / "d", published[0], layers=LAYERS, scale=0.01)
    watcher = open_watcher(read_detector(folder), device="cpu", chat=chat)
    options, seen = WatchOptions(max_new_tokens=TOKENS, temperature=temperature, chat=chat), []
    linear = watcher.detector.linear
    for start, ids, logits in written(watcher, prompts, options):
        read = np.hstack([one.double().numpy() for one in full(watcher, ids).values()])[start:]
        expected = read @ linear.weights + linear.intercept
        assert logits == pytest.approx(expected, abs=CLOSE)
        seen += logits
    assert len(seen) > TEXTS * 3 and np.ptp(seen) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_detectors_of_sae_features(published, prompts, temperature, tmp_path):
    folder = make_detector(tmp_path / "d", published[0], saes=published[1], layers=LAYERS, on="sae", scale=0.05)
    watcher = open_watcher(read_detector(folder), device="cpu")
    same, count = 0, 0
    for start, ids, logits in written(watcher, prompts, WatchOptions(max_new_tokens=TOKENS, temperature=temperature)):
        read = {layer: one[None, start:] for layer, one in full(watcher, ids).items()}
        expected = watcher.probe.score(read)[0].tolist()
        same += sum(abs(one - other) < 1e-3 for one, other in zip(logits, expected, strict=True))
        count += len(logits)
    assert count > TEXTS * 3
    assert same >= 0.999 * count
