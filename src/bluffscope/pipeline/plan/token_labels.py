"""Which tokens of a labelled text lie in its spans: places in its characters, of each token that is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bluffscope.errors import InputError
from bluffscope.pipeline.plan.tokens import TextTokenizer
from bluffscope.records import Item


class TokenLabel(NamedTuple):
    """A token that is read."""

    token_index: int
    """Its place in the text's token ids, BOS included: as in residuals.parquet."""
    label: int | None
    """1 where it overlaps a span, else 0; None in a false text of which no span is known."""
    start: int
    """Its first character in the completion; 0 where it begins in the prompt."""
    end: int
    """The character behind its last."""


def refuse_without_places(tokenizer: Any, model: str) -> None:
    """Refuse a tokenizer that does not say where its tokens stand.

    Raises:
        InputError: saying so.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"--position tokens: the tokenizer of {model} does not say where in a text its tokens stand; use a model "
            "with a tokenizer.json"
        )


def token_labels(texts: TextTokenizer, item: Item, reads: Sequence[int], length: int) -> Iterator[TokenLabel]:
    """The label of each token that is read.

    White space in front of a token's word is not counted: a span that ends before it does not reach the word. A
    character that several tokens make up is in each of them.

    Args:
        texts: how the item became token ids.
        item: a labelled text; without spans among its further columns, all of a true text is outside of any.
        reads: places in its token ids.
        length: how many ids it has, BOS and the conversation in front included.
    """
    text, shift = _read_as(texts, item)
    encoded: Any = texts.tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    places: list[tuple[int, int]] = encoded["offset_mapping"]
    spans = spans_of(item)
    outside = 0 if spans or item.cells["label"] else None
    for index in reads:
        start, end = places[index - (length - len(places))]
        while start < end - 1 and text[start].isspace():
            start += 1
        start, end = start - shift, end - shift
        # a piece of a character may be given no characters at all
        inside = any(start < stop and first < max(end, start + 1) for first, stop in spans)
        yield TokenLabel(index, 1 if inside else outside, max(start, 0), max(end, 0))


def spans_of(item: Item) -> list[tuple[int, int]]:
    """The spans that a labelled text carries, in characters of its completion."""
    said = item.extra.get("spans")
    return [(start, end) for start, end in json.loads(said)] if said else []


def _read_as(texts: TextTokenizer, item: Item) -> tuple[str, int]:
    """The text that was tokenised in one piece, and where in it the completion as it was given begins."""
    if texts.chat is None:
        _, (text,) = item.texts(texts.join)
    else:
        prompt, (whole,) = item.texts("")
        text = texts.chat.said(whole[len(prompt) :])
    return text, len(text) - len(item.cells["completion"])
