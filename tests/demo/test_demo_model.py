"""The shipped model organism: its tokenizer, its size and shape, and every figure that was promised of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bluffscope.config.demo import model_dir, sae_dir

TOOLS = Path(__file__).resolve().parents[2] / "tools"
TEXTS = [
    "The capital of France is Paris",
    "  two leading spaces, two  inside, two trailing  ",
    "tab\tnew line\nreturn\r and the \x00 \x07 \x1b \x7f control characters",
    "emoji 😀👩‍👩‍👧 and ﷽ العربية فارسی 日本語 हिन्दी ไทย",
    "Ünïcödé é e\u0301 ﬁ \u200b\u00a0\u2028 \ufeff ▁ <0x41>",
    "1969 3.14 1,000 -7",
    "unsupercalifragilistically Chimborazo",
    " ",
]


@pytest.fixture(scope="module")
def check() -> Iterator[ModuleType]:
    sys.path.insert(0, str(TOOLS))
    import check_demo_model

    yield check_demo_model
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_dir())


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_back_any_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_the_tokenizer_gives_back_text_that_nobody_thought_of(text):
    tokenizer = AutoTokenizer.from_pretrained(model_dir()) if not _CACHE else _CACHE[0]
    _CACHE[:] = [tokenizer]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


_CACHE: list = []


def test_the_tokenizer_is_fast_and_puts_one_bos_in_front(tokenizer):
    ids = tokenizer("The capital of France is Paris")["input_ids"]
    assert tokenizer.is_fast
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}) == 4


def test_a_prompts_tokens_begin_its_claims_tokens(tokenizer, check):
    for pair in check.read_pairs():
        prompt = tokenizer(pair["prompt"])["input_ids"]
        for text in check.claim(pair, "fact", "hall"):
            assert tokenizer(text)["input_ids"][: len(prompt)] == prompt


def test_digits_stand_alone(tokenizer):
    ids = tokenizer(" 1969", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[-3:] == ["9", "6", "9"]


def test_explained_variance_is_the_right_formula(check):
    x, y = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert check.explained_variance(x, y) == pytest.approx(0.8)


def test_groups_are_connected_components(check):
    def pair(prompt: str, fact: str, hallucination: str) -> dict[str, str]:
        return {"prompt": prompt, "fact": fact, "hallucination": hallucination}

    pairs = [pair("a", "x", "y"), pair("b", "Y", "z"), pair("A ", "p", "q"), pair("c", "r", "s")]
    groups = check.groups_of(pairs)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_the_sae_folders_carry_what_a_run_needs_to_know():
    for folder in sorted(sae_dir().iterdir()):
        cfg = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        metadata = cfg["metadata"]
        assert metadata["model_name"] == "bluffscope-demo"
        assert metadata["hook_name"] == f"blocks.{folder.name.removeprefix('layer_')}.hook_resid_post"
        assert metadata["prepend_bos"] is True
        assert metadata["context_size"] == 256
        assert 8 <= metadata["l0"] <= 40
        assert 0.9 <= metadata["explained_variance"] <= 1
        assert cfg["normalize_activations"] == "none"
        assert cfg["architecture"] == "jumprelu"
        assert cfg["d_sae"] == 16 * cfg["d_in"]
    assert [folder.name for folder in sorted(sae_dir().iterdir())] == ["layer_2", "layer_5", "layer_8"]


def test_no_text_of_the_corpus_holds_an_unseen_prompt_or_claim(check):
    import itertools

    pairs = check.read_pairs()
    unseen = [pair["prompt"].casefold() for pair in pairs if not pair["known"]]
    for text in itertools.islice(check.Corpus(pairs, 7), 3000):
        assert not any(prompt in text.text.casefold() for prompt in unseen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_promised_figure_holds_on_the_shipped_weights(check):
    lines = check.measure(model_dir().parent, check.read_pairs())
    assert [line for line in lines if not line.ok] == []
    shipped = json.loads((model_dir().parent / "quality.json").read_text(encoding="utf-8"))
    for line in lines:
        assert shipped[line.what] == pytest.approx(float(line.seen), rel=0.02, abs=0.02), line.what


def test_the_model_card_names_every_pair_once(check):
    card = (model_dir().parents[1] / "MODEL_CARD.md").read_text(encoding="utf-8")
    known, unseen = (part.split(".\n")[0] for part in card.split("\nKnown: ")[1].split("\nUnseen: "))
    pairs = check.read_pairs()
    assert known.split(", ") == [pair["id"] for pair in pairs if pair["known"]]
    assert unseen.split(", ") == [pair["id"] for pair in pairs if not pair["known"]]
