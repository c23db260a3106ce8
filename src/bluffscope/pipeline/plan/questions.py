"""P(True): each completion's text with the question whether it is true, and either answer behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from bluffscope.host.chat import messages_of
from bluffscope.pipeline.plan.tokens import TextTokenizer, common_prefix
from bluffscope.records import Item, ItemT, Pair, Tokenized
from bluffscope.records import Sequence as TokenSequence
from bluffscope.records.questions import ANSWERS, CHAT_QUESTION, STATEMENT_QUESTION


def with_questions(tokenizer: TextTokenizer, items: Sequence[Tokenized[ItemT]]) -> Iterator[Tokenized[ItemT]]:
    """The items with what the model is asked about their completions, as far as it can be asked.

    A question begins with the text that it is about, so that a trie computes that once for both.
    """
    asks = replace(tokenizer, position="last", further=(), join="")
    asked = [_asked(tokenizer, found.item) for found in items]
    answered = iter(asks.tokenize([question for questions in asked for question in questions]))
    for found, questions in zip(items, asked, strict=True):
        sequences = _sequences(found.item.index, islice(answered, len(questions)))
        yield replace(found, questions=tuple(sequences))


def _asked(tokenizer: TextTokenizer, item: Item) -> list[Pair]:
    """For each completion the question, with the answers as the two completions of a pair."""
    if tokenizer.chat is None:
        prompts = [text + STATEMENT_QUESTION for text in item.texts(tokenizer.join)[1]]
    else:
        prompt, texts = item.texts("")
        before = messages_of(prompt) or [{"role": "user", "content": prompt}]
        prompts = [
            json.dumps(
                [
                    *before,
                    {"role": "assistant", "content": tokenizer.chat.said(text[len(prompt) :])},
                    {"role": "user", "content": CHAT_QUESTION},
                ]
            )
            for text in texts
        ]
    return [Pair(item.index, item.id, "", None, prompt, *ANSWERS) for prompt in prompts]


def _sequences(index: int, answered: Iterable[Tokenized[Pair] | Exception]) -> Iterator[TokenSequence]:
    """Both answers to each question, scored from where they part; nothing of a question that cannot be asked."""
    for place, found in enumerate(answered):
        if not isinstance(found, Tokenized):
            continue
        _, *texts = (sequence.ids for sequence in found.sequences)
        first = common_prefix(*texts)
        if first == 0 or first >= min(map(len, texts)):
            continue  # nothing predicts the answer, or one answer is the other's beginning
        for answer, ids in enumerate(texts):
            view = len(ANSWERS) * place + answer
            yield TokenSequence(index, view, ids, (), tuple(range(first, len(ids))), answers=True)
