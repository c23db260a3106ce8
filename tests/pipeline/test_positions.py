"""Where a text is read, token by token: by the words of docs/definitions.md, in the engine and in the reference."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import tiny
from bluffscope.config import READ_WHOLE, Position
from bluffscope.errors import PairError
from bluffscope.pipeline.plan import TextTokenizer, as_far_as_read
from bluffscope.records import VIEWS, Pair
from bluffscope.reference import model as reference_model
from bluffscope.reference.model import ReferenceOptions

POSITIONS = tuple(name for name in Position.__args__ if name != "end-of-turn")  # of conversations: test_chats.py
BOS = 1


@pytest.fixture(scope="module")
def text_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.save_tokenizer(folder)
    return TextTokenizer(
        tokenizer=AutoTokenizer.from_pretrained(folder), bos=BOS, position="last", join="", context=None
    )


def tokenized(text_tokenizer, prompt, fact, hallucination, **changes):
    """The pair's ids, or the reason why not."""
    pair = Pair(0, "p", "all", None, prompt, fact, hallucination)
    return next(iter(dataclasses.replace(text_tokenizer, **changes).tokenize([pair])))


def by_hand(position, prompt, text, other):
    """Indices of a text's ids (without BOS) at which it is read; None where there are none."""
    own = list(range(len(os.path.commonprefix([prompt, text])), len(text)))
    if position == "divergence":
        own = [index for index in own if index >= len(os.path.commonprefix([text, other]))]
    if not own:
        return None
    if position in READ_WHOLE:
        return own
    return {"last": own[-1:], "first-completion": own[:1], "divergence": own[:1]}[position]


# Few pieces, so that completions begin alike, one within the other, and merge with the prompt.
pieces = st.lists(st.sampled_from(["i", "s", "n", " ", " is", "ance", "a", "é", "<bos>"]), max_size=5).map("".join)


@settings(deadline=None, max_examples=300)
@given(
    prompt=pieces,
    fact=pieces,
    hallucination=pieces,
    position=st.sampled_from(POSITIONS),
    fed=st.booleans(),
    score=st.booleans(),
)
def test_every_position_is_the_one_counted_by_hand_in_engine_and_reference(
    text_tokenizer, prompt, fact, hallucination, position, fed, score
):
    changes = {"position": position, "bos": BOS if fed else None, "logprob": score}
    got = tokenized(text_tokenizer, prompt, fact, hallucination, **changes)
    encode = text_tokenizer.tokenizer
    bare = [
        encode(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for text in (prompt, prompt + fact, prompt + hallucination)
    ]
    pair = Pair(0, "p", "all", None, prompt, fact, hallucination)
    options = ReferenceOptions(layers=(0,), join="", position=position, prepend_bos=fed)
    reads = [
        [len(bare[0]) - 1],
        by_hand(position, bare[0], bare[1], bare[2]),
        by_hand(position, bare[0], bare[2], bare[1]),
    ]
    if not bare[0] or None in reads:
        assert isinstance(got, PairError)
        with pytest.raises(PairError):
            reference_model.tokenise(pair, encode, options)
        return
    expected = reference_model.tokenise(pair, encode, options)
    lead = 1 if fed else 0
    for view, sequence, ids, read, shown in zip(VIEWS, got.sequences, bare, reads, got.read_tokens, strict=True):
        assert list(sequence.reads) == [index + lead for index in read] == expected[view].reads
        assert sequence.reads[0] >= lead, "the BOS is read"
        assert encode.convert_ids_to_tokens(ids[read[-1]]) == encode.convert_ids_to_tokens(
            sequence.ids[sequence.reads[-1]]
        )
        assert shown == expected[view].read_token
        assert list(sequence.ids) == [BOS] * lead + ids
    for sequence, short in zip(got.sequences, as_far_as_read(got).sequences, strict=True):
        assert short.ids == sequence.ids[: len(short.ids)]
        assert len(short.ids) == (len(sequence.ids) if sequence.scored else sequence.reads[-1] + 1)
        assert (short.reads, short.scored) == (sequence.reads, sequence.scored)


@pytest.mark.parametrize(
    ("prompt", "fact", "hallucination", "first", "divergence"),
    [
        ("The capital is", " Paris", " Rome", (" Paris", " Rome"), (" Paris", " Rome")),
        ("The capital", " is Paris", " is Rome", (" is", " is"), (" Paris", " Rome")),
        ("The", " capital of France", " capital of", (" capital", " capital"), None),
        # "Fr" is two tokens: "ance" makes another of them, while "og" leaves them alone.
        ("The capital of Fr", "ance", "og", (" France", "o"), (" France", "o")),
        ("The capital of Fr", "ance is", "ance of", (" France", " France"), (" is", " of")),
    ],
)
def test_the_tokens_read_are_shown(text_tokenizer, prompt, fact, hallucination, first, divergence):
    asked = (prompt, fact, hallucination)
    shown = tokenized(text_tokenizer, *asked, position="first-completion")
    assert shown.read_tokens[1:] == first
    assert shown.read_tokens[0] == tokenized(text_tokenizer, *asked).read_tokens[0]
    parted = tokenized(text_tokenizer, *asked, position="divergence")
    if divergence is None:
        assert (
            str(parted) == "the hall text's tokens end before fact and hallucination differ: there is no token to read"
        )
    else:
        assert parted.read_tokens[1:] == divergence


def test_tokens_behind_the_last_read_are_left_out_unless_they_are_scored(text_tokenizer):
    asked = ("The", " capital of France", " Paris of Rome")
    whole = tokenized(text_tokenizer, *asked, position="first-completion")
    scored = tokenized(text_tokenizer, *asked, position="first-completion", logprob=True)
    lengths = [[len(s.ids) for s in as_far_as_read(pair).sequences] for pair in (whole, scored)]
    assert lengths == [[2, 3, 3], [2, 5, 5]]
    assert [len(s.ids) for s in whole.sequences] == [2, 5, 5]
    assert whole.tokens[1:] == (3, 3)
    refused = tokenized(text_tokenizer, *asked, position="first-completion", context=4)
    assert "the fact text has 5 tokens" in str(refused), "the context is that of the whole text, as at every position"
