"""Which tokens lie in spans: by characters counted in bytes by hand, in plain texts and conversations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import tiny
from bluffscope.errors import InputError
from bluffscope.host.chat import Chat
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.plan.token_labels import refuse_without_places, token_labels
from bluffscope.records import PROMPTED, LabelledText, Tokenized

BOS = 1
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def texts(tokenizer):
    return TextTokenizer(tokenizer=tokenizer, bos=BOS, position="tokens", join="auto", context=None)


def item(prompt, completion, spans=None, label=False):
    extra = {} if spans is None else {"spans": json.dumps(spans)}
    return LabelledText(0, "t", label, "all", None, prompt, completion, extra, PROMPTED)


def labels_of(texts, one):
    """The labels of an item's tokens, and these tokens' ids."""
    (found,) = texts.tokenize([one])
    if not isinstance(found, Tokenized):
        return None
    own = found.sequences[-1]
    labels = list(token_labels(texts, one, own.reads, len(own.ids)))
    assert [label.token_index for label in labels] == list(own.reads)
    return labels, [own.ids[index] for index in own.reads]


def by_hand(tokenizer, whole, completion, ids, spans):
    """Of each token its label, by the characters that its bytes belong to: this tokenizer has a sign for each byte."""
    character = [place for place, sign in enumerate(whole) for _ in sign.encode()]
    every = tokenizer(whole, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    sizes = [len(token) for token in tokenizer.convert_ids_to_tokens(every)]
    assert sum(sizes) == len(character)
    shift, found = len(whole) - len(completion), []
    for index in range(len(every) - len(ids), len(every)):
        first = sum(sizes[:index])
        own = sorted(set(character[first : first + sizes[index]]))
        while len(own) > 1 and whole[own[0]].isspace():
            own = own[1:]
        found.append(int(any(start <= place - shift < stop for place in own for start, stop in spans)))
    return found


pieces = st.lists(st.sampled_from(["i", "s", " ", "  ", " is", "ance", "é", "🇮🇹", "\n", "<bos>"]), max_size=8).map(
    "".join
)


@settings(deadline=None, max_examples=200)
@given(prompt=pieces, completion=pieces, ends=st.lists(st.integers(0, 30), min_size=4, max_size=4), fed=st.booleans())
def test_a_token_is_inside_where_one_of_its_characters_is(texts, tokenizer, prompt, completion, ends, fed):
    bounded = sorted(min(end, len(completion)) for end in ends)
    spans = [pair for pair in (bounded[:2], bounded[2:]) if pair[0] < pair[1]]
    one = item(prompt, completion, spans)
    found = labels_of(replace(texts, bos=BOS if fed else None), one)
    if found is None or not spans:
        return
    labels, ids = found
    (whole,) = one.texts("auto")[1]
    assert [label.label for label in labels] == by_hand(tokenizer, whole, completion, ids, spans)
    assert all(0 <= label.start <= label.end <= len(completion) for label in labels)


def test_every_piece_of_a_character_is_in_its_span_and_no_neighbour(texts):
    completion = "is 🇮🇹 ice"
    labels, _ = labels_of(texts, item("It", completion, [[3, 5]]))
    inside = [label for label in labels if label.label]
    assert len(inside) >= 2 and {completion[one.start : one.end].strip() for one in inside} <= set("🇮🇹") | {"🇮🇹"}
    assert all(one.label == 0 for one in labels if one.start >= 5 or one.end <= 3)


def test_white_space_in_front_of_a_word_is_not_the_word(texts):
    labels, _ = labels_of(texts, item("a", "ice is", [[0, 4]]))
    assert [label.label for label in labels if label.start >= 4] == [0] * sum(label.start >= 4 for label in labels)
    assert [label.label for label in labels if 0 <= label.start < label.end <= 3] == [1] * 2


def test_without_spans_a_true_text_is_outside_and_a_false_one_unknown(texts):
    for spans in (None, []):
        for label, expected in ((True, 0), (False, None)):
            found, _ = labels_of(texts, item("a", "ice is", spans, label))
            assert {one.label for one in found} == {expected}
    found, _ = labels_of(texts, item("a", "ice is", [[0, 3]], label=True))
    assert {one.label for one in found if one.end > one.start} == {0, 1}


def test_in_a_conversation_the_places_are_those_of_the_words_as_given(tmp_path):
    tiny.save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = TEMPLATE
    chat = Chat.of("the model", tokenizer, None)
    texts = TextTokenizer(tokenizer=tokenizer, bos=chat.bos, position="tokens", join="auto", context=None, chat=chat)
    completion = "  It is é, ice."
    start = completion.index("é")
    labels, _ = labels_of(texts, item("Where?", completion, [[start, start + 1]]))
    assert {completion[one.start : one.end] for one in labels if one.label} == {"é"}
    assert "".join(completion[one.start : one.end] for one in labels if one.start < start).replace(" ", "") == "Itis"


def test_a_tokenizer_without_places_is_refused():
    with pytest.raises(InputError, match="--position tokens: the tokenizer of m does not say where"):
        refuse_without_places(object(), "m")
