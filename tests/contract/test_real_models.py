"""Packed = reference on trained models: the embedded demo, and a real pretrained one where it is at hand."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path

import pytest

import measuring
import tiny
from bluffscope.config.demo import model_dir, sae_dir
from bluffscope.config.presets import PRESETS
from bluffscope.errors import PairError
from compare import assert_same
from random_pairs import random_pairs

STORIES = Path(__file__).resolve().parents[3] / "shared" / "testdata" / "TinyStories-656K"
DEMO_LAYERS = PRESETS["demo"].layers

needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason="no TinyStories-656K beside the checkout")
needs_demo = pytest.mark.skipif(
    not (model_dir() / "model.safetensors").is_file() or not (sae_dir() / f"layer_{DEMO_LAYERS[-1]}").is_dir(),
    reason="the demo's weights are not in the package yet",
)


@pytest.fixture(scope="session")
def story_saes(tmp_path_factory):
    return tiny.save_saes(tmp_path_factory.mktemp("story-saes"), (0, 1), d_in=128, d_sae=512)


def story_pairs():
    """Story-like texts, whose tokens span words and merge across the border, and the tiny models' odd ones."""
    texts = [
        ("Once upon a time, there was a little girl named", "Lily.", "Tom."),
        ("Once upon a time, there was a", "big dog who liked to play", "cat"),
        ("The dog was very", "happy and ran to the park.", "sad."),
        ("The dog was very happy. He", "played with his friends all day long", "went home to his mom"),
        ("One day, Tim went to the park with his", "mom. They saw a big tree", "dad"),
    ]
    records = [
        {"id": f"s{index}", "domain": "story", "prompt": prompt, "fact": fact, "hallucination": hallucination}
        for index, (prompt, fact, hallucination) in enumerate(texts)
    ]
    return measuring.as_pairs(records + random_pairs(5, count=11))


@needs_stories
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("position", "join"), [("last", " "), ("completion-mean", "")])
def test_a_real_pretrained_model_gives_the_reference_s_table(story_saes, dtype, position, join):
    pairs, asked = story_pairs(), {"position": position, "join": join, "noise_draws": 2}
    worker = measuring.make_worker(STORIES, story_saes, dtype=dtype, **asked)
    assert worker.reader.packs
    oracle = measuring.load_oracle(STORIES, story_saes, (0, 1), dtype)
    table = measuring.measure(worker, pairs)
    refused = set(table.filter(table["_reason"].is_not_null())["pair_id"])
    for pair in pairs:
        if pair.id in refused:  # its tokenizer folds runs of letters it does not know into one token
            with pytest.raises(PairError, match="adds no token"):
                oracle.rows([pair], **asked)
    kept = [pair for pair in pairs if pair.id not in refused]
    assert len(kept) >= 14
    gaps = oracle.gaps(kept, **asked) if dtype == "float32" else None
    table = table.filter(table["_reason"].is_null())
    assert_same(table, oracle.rows(kept, **asked), dtype, position=position, draws=2, gaps=gaps)
    assert table["l0_fact_l0_norm"].min() > 4


def demo_pairs():
    """Every fifth pair of the bundled benchmark: ten a domain."""
    text = importlib.resources.files("bluffscope.pairs").joinpath("data", "bluff200.jsonl").read_text("utf-8")
    return measuring.as_pairs([json.loads(line) for line in text.splitlines()][::5])


@needs_demo
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_demo_gives_the_reference_s_table(dtype):
    pairs = demo_pairs()
    assert len(pairs) == 40
    worker = measuring.make_worker(model_dir(), sae_dir(), layers=DEMO_LAYERS, dtype=dtype, noise_draws=2)
    assert worker.reader.packs
    oracle = measuring.load_oracle(model_dir(), sae_dir(), DEMO_LAYERS, dtype)
    table, expected = measuring.measure(worker, pairs), oracle.rows(pairs, noise_draws=2)
    assert_same(table, expected, dtype, draws=2)
