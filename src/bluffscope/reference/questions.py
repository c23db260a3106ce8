"""What the model is asked about each completion, as token ids: P(True) of the reference.

A part of `bluffscope.reference.analyses`, under the same rule: no code in common with the engine but the wording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from bluffscope.errors import PairError
from bluffscope.host.chat import Chat, messages_of
from bluffscope.records import Item, View
from bluffscope.records.questions import ANSWERS, CHAT_QUESTION, STATEMENT_QUESTION
from bluffscope.reference.model import ReferenceOptions, opening_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
else:  # its objects are only passed in
    PreTrainedTokenizerBase = Any

Question = tuple[list[int], list[int], int]
"""Ids of the question with the answer True, with the answer False, and where the two part."""


def ask(
    pair: Item, tokenizer: PreTrainedTokenizerBase, options: ReferenceOptions, context: int | None
) -> dict[View, Question]:
    """The question about each completion; without those that the model has no room for, or its template refuses."""
    prompt, whole = pair.texts(options.join if options.chat is None else "")
    found: dict[View, Question] = {}
    for view, text in zip(pair.arrangement.completions, whole, strict=True):
        try:
            if options.chat is None:
                yes, no = (_plain(text + STATEMENT_QUESTION + answer, tokenizer, options) for answer in ANSWERS)
            else:
                yes, no = _chat(prompt, text[len(prompt) :].lstrip(" "), tokenizer, options.chat)
        except (PairError, TemplateError):
            continue
        parting = next((i for i, (one, other) in enumerate(zip(yes, no, strict=False)) if one != other), 0)
        if parting and (context is None or max(len(yes), len(no)) <= context):
            found[view] = (yes, no, parting)
    return found


def _plain(text: str, tokenizer: PreTrainedTokenizerBase, options: ReferenceOptions) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    bos: list[Any] = [tokenizer.bos_token_id] if options.prepend_bos and tokenizer.bos_token_id is not None else []
    return bos + list(encoded["input_ids"])


def _chat(prompt: str, said: str, tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[list[int], list[int]]:
    before = messages_of(prompt) or [{"role": "user", "content": prompt}]
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": CHAT_QUESTION}]
    opening = opening_of([*before, *turns], tokenizer, chat)
    encoded: list[Any] = [tokenizer(answer.lstrip(" "), add_special_tokens=False) for answer in ANSWERS]
    yes, no = ([*opening, *answer["input_ids"]] for answer in encoded)
    return yes, no
