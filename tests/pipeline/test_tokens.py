"""Texts to ids: one BOS, nothing special smuggled in, the right tokens read, and reasons for what cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer

import tiny
from bluffscope.errors import PairError
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.plan.tokens import common_prefix
from bluffscope.records import Pair, Tokenized
from random_pairs import random_pairs

BOS = 1
REAL = Path(__file__).resolve().parents[3] / "shared" / "testdata"
letters = st.characters(exclude_categories=["Cs"]).filter(lambda letter: not letter.isspace())


@pytest.fixture(scope="module")
def text_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.save_tokenizer(folder)
    return TextTokenizer(
        tokenizer=AutoTokenizer.from_pretrained(folder), bos=BOS, position="last", join=" ", context=None
    )


def one(text_tokenizer, prompt="The", fact="Paris", hallucination="Rome", **changes):
    """The pair's ids, or the reason why not."""
    pair = Pair(3, "p", "all", None, prompt, fact, hallucination)
    return next(iter(dataclasses.replace(text_tokenizer, **changes).tokenize([pair])))


def raw(text_tokenizer, text):
    return text_tokenizer.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@settings(deadline=None)
@given(
    prompt=st.text(letters, min_size=1, max_size=12),
    fact=st.text(letters, min_size=1, max_size=8),
    hallucination=st.text(letters, min_size=1, max_size=8),
    join=st.sampled_from(["", " ", "\n", "auto"]),
    position=st.sampled_from(["last", "completion-mean"]),
    fed=st.booleans(),
)
def test_any_text_is_fed_as_the_tokenizer_gives_it_behind_one_bos_that_is_never_read(
    text_tokenizer, prompt, fact, hallucination, join, position, fed
):
    result = one(text_tokenizer, prompt, fact, hallucination, join=join, position=position, bos=BOS if fed else None)
    assert isinstance(result, Tokenized)
    lead = 1 if fed else 0
    # The letters hold no white space.
    between = " " if join == "auto" else join
    texts = (prompt, prompt + between + fact, prompt + between + hallucination)
    bare = [raw(text_tokenizer, text) for text in texts]
    for sequence, ids in zip(result.sequences, bare, strict=True):
        assert list(sequence.ids) == [BOS] * lead + ids
        assert BOS not in sequence.ids[lead:]
        assert sequence.item == 3
    assert [sequence.view for sequence in result.sequences] == [0, 1, 2]
    assert result.tokens[0] == len(bare[0])
    own = [len(ids) - common_prefix(bare[0], ids) for ids in bare[1:]]
    assert list(result.tokens[1:]) == own
    counts = [1, *(own if position == "completion-mean" else (1, 1))]
    for sequence, count in zip(result.sequences, counts, strict=True):
        end = len(sequence.ids)
        assert sequence.reads == tuple(range(end - count, end))
        assert sequence.reads[0] >= lead


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_the_common_prefix_is_common_and_longest(left, right):
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert left[: length + 1] != right[: length + 1] or length == min(len(left), len(right))
    assert length == common_prefix(right, left)


@pytest.mark.parametrize("text", ["<bos>", "<eos>", "<pad>", "a<bos>b", "<bos><bos>"])
def test_text_that_looks_like_a_special_token_stays_text(text_tokenizer, text):
    result = one(text_tokenizer, text, text, text + "c")
    special = {0, 1, 2}
    assert text_tokenizer.tokenizer.convert_tokens_to_ids(["<pad>", "<bos>", "<eos>"]) == sorted(special)
    for sequence in result.sequences:
        assert sequence.ids[0] == BOS
        assert not special & set(sequence.ids[1:])
    assert text_tokenizer.tokenizer.decode(list(result.sequences[0].ids[1:])) == text
    assert result.tokens[0] >= 4


def test_a_merge_across_the_border_is_a_token_of_the_completion(text_tokenizer):
    tokens = text_tokenizer.tokenizer.convert_ids_to_tokens
    apart = one(text_tokenizer, "The capital of Fr", "ance", "og", join="", position="completion-mean")
    prompt, fact, hall = apart.sequences
    assert tokens(fact.ids[-1]) == "ĠFrance"
    assert apart.tokens[1] == 1
    assert fact.reads == (len(fact.ids) - 1,)
    assert common_prefix(prompt.ids, fact.ids) < len(prompt.ids)
    assert hall.ids[: len(prompt.ids)] == prompt.ids


def test_the_token_read_is_shown_as_text_and_half_a_character_as_its_piece(text_tokenizer):
    result = one(text_tokenizer, "The capital of France is", "Paris", "é")
    assert result.read_tokens[:2] == (" is", " Paris")
    assert result.read_tokens[2] == "©"  # the second byte of é in the byte-level alphabet


def test_a_pair_may_fill_the_context_and_one_token_more_is_refused_with_its_size(text_tokenizer):
    longest = max(len(sequence.ids) for sequence in one(text_tokenizer).sequences)
    assert isinstance(one(text_tokenizer, context=longest), Tokenized)
    refused = one(text_tokenizer, context=longest - 1)
    assert isinstance(refused, PairError)
    assert f"has {longest} tokens; the model's context holds {longest - 1}" in str(refused)
    assert isinstance(one(text_tokenizer, context=longest - 1, bos=None), Tokenized)


def test_texts_without_a_token_are_refused_by_view(text_tokenizer):
    assert "the prompt text has no tokens" in str(one(text_tokenizer, prompt=""))
    assert "the fact completion has no tokens of its own" in str(one(text_tokenizer, fact="", join=""))
    assert "the hall completion has no tokens of its own" in str(one(text_tokenizer, hallucination="", join=""))


def test_a_text_on_which_a_rule_of_the_tokenizer_gives_up_is_refused_alone(tmp_path, capfd):
    tiny.save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("(a+)+$"), "isolated"), core.pre_tokenizer]  # exponential on a row of a
    )
    pairs = [Pair(number, str(number), "all", None, "The", "Paris", "Rome") for number in range(3)]
    pairs[1] = dataclasses.replace(pairs[1], fact="a" * 40 + "b")
    first, second, third = TextTokenizer(tokenizer, bos=BOS, position="last", join=" ", context=None).tokenize(pairs)
    assert isinstance(first, Tokenized)
    assert isinstance(third, Tokenized)
    assert isinstance(second, PairError)
    assert str(second).startswith("the tokenizer fails on it (Onig: ")
    capfd.readouterr()  # Rust has its say on standard error


def test_a_refused_pair_leaves_the_others_and_their_order_alone(text_tokenizer):
    records = random_pairs(1, count=12)
    pairs = [Pair(i, r["id"], "all", None, r["prompt"], r["fact"], r["hallucination"]) for i, r in enumerate(records)]
    pairs[4] = dataclasses.replace(pairs[4], prompt="q" * 500)
    limited = dataclasses.replace(text_tokenizer, context=128)
    together = list(limited.tokenize(pairs))
    assert [isinstance(result, PairError) for result in together] == [index == 4 for index in range(12)]
    del pairs[4], together[4]
    alone = [next(iter(limited.tokenize([pair]))) for pair in pairs]
    assert together == alone
    assert list(limited.tokenize([])) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="no real tokenizers beside the checkout")
@pytest.mark.parametrize("name", ["tokenizers/gpt2", "tokenizers/gpt-neox-20b", "TinyStories-656K"])
def test_real_tokenizers_read_the_last_token_of_the_text(name):
    tokenizer = AutoTokenizer.from_pretrained(REAL / name)
    texts = TextTokenizer(tokenizer=tokenizer, bos=None, position="last", join=" ", context=None)
    result = one(texts, "The capital of France is", "Paris", "Rome <|endoftext|>")
    for sequence, text in zip(result.sequences, ("is", "Paris", "|>"), strict=True):
        assert tokenizer.decode(list(sequence.ids)).strip().endswith(text)
        assert not set(sequence.ids) & set(tokenizer.all_special_ids) or name == "TinyStories-656K"
        assert sequence.reads == (len(sequence.ids) - 1,)
    assert result.read_tokens[1].strip().endswith("s")
