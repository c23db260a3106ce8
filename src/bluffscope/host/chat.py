"""Conversations in the tokens of a model's own chat template, which no text can forge.

A prompt becomes a conversation up to the point at which the assistant speaks, and the completion is what it says. Token
ids are those of the tokenizer's `apply_chat_template`. Only where a text itself holds the name of a special token
(`<|im_end|>`, say), which the tokenizer would take for the token, the template's own special tokens are set one by one
and everything between them is read as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from bluffscope.errors import InputError, PairError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""role and content."""
_ROLES: Final = ("system", "user", "assistant", "tool", "developer")
_MARK: Final = "\ue000{}\ue001"
"""Stands for a content in a template that is looked through: characters that no text has."""


def messages_of(prompt: str) -> list[Message] | None:
    """The messages of a prompt that is a conversation, written as a JSON list; None for any other text."""
    if not prompt.startswith("["):
        return None
    try:
        found = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    return found if is_conversation(found) else None


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, each with a role and a text."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(one, dict) and one.get("role") in _ROLES and isinstance(one.get("content"), str) for one in value
        )
    )


@dataclass(frozen=True)
class Chat:
    """How a model's prompts become conversations."""

    tokenizer: PreTrainedTokenizerBase
    system: str | None = None
    """Text of a system message in front of every conversation that has none."""

    @classmethod
    def of(cls, name: str, tokenizer: PreTrainedTokenizerBase, system: str | None) -> Chat:
        """The model's chat template, tried on a short conversation.

        Raises:
            InputError: the model has none, or it takes no system message.
        """
        if not tokenizer.chat_template:
            raise InputError(
                f"--chat: {name} has no chat template (chat_template in tokenizer_config.json); measure it without "
                "--chat, or give the instruction-tuned model"
            )
        chat = cls(tokenizer, system)
        try:
            chat.openings(["Hello"])
        except PairError as error:
            what = "--chat" if system is None else "--system"
            raise InputError(f"{what}: {name}: {error}") from error
        return chat

    @cached_property
    def bos(self) -> int | None:
        """The BOS that the template itself puts in front; None where it has none."""
        first = self.openings(["Hello"])["Hello"][:1]
        return first[0] if first == [self.tokenizer.bos_token_id] else None

    @cached_property
    def end_of_turn(self) -> int:
        """The token that closes what the assistant says.

        Raises:
            InputError: the template closes it with none.
        """
        mark = _MARK.format(0)
        text = self._written([*self._messages("Hello"), {"role": "assistant", "content": mark}], opens=False)
        behind = text.rpartition(mark)[2]
        ids: Any = self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        if not ids or ids[0] not in self._special_ids:
            raise InputError("--position end-of-turn: the model's chat template closes a turn with no token; use last")
        return int(ids[0])

    def openings(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """Token ids of each conversation up to the assistant's turn, BOS included where the template has one.

        Args:
            prompts: each one user turn, or a conversation as JSON (`messages_of`).

        Raises:
            PairError: the template refuses one.
        """
        asked = {prompt: self._messages(prompt) for prompt in prompts}
        written = {prompt: self._written(messages) for prompt, messages in asked.items()}
        plain = [
            prompt for prompt, messages in asked.items() if not any(self.forged(one["content"]) for one in messages)
        ]
        found = {prompt: self._unforgeable(asked[prompt], written[prompt]) for prompt in asked.keys() - set(plain)}
        if plain:
            ids: Any = self.tokenizer([written[prompt] for prompt in plain], add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
            found |= dict(zip(plain, map(list, ids), strict=True))
        return found

    def said(self, completion: str) -> str:
        """A completion as the assistant's words: a turn begins without a space."""
        return completion.lstrip(" ")

    def forged(self, text: str) -> bool:
        """Whether a text holds the name of one of the tokenizer's special tokens."""
        return self._special.search(text) is not None

    def _messages(self, prompt: str) -> list[Message]:
        messages = messages_of(prompt) or [{"role": "user", "content": prompt}]
        if messages[-1]["role"] == "assistant":
            raise PairError("the conversation ends with the assistant's turn; end it with the user's")
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        return messages

    def _written(self, messages: Sequence[Message], *, opens: bool = True) -> str:
        """The conversation as the template writes it."""
        try:
            # Templates of models that think aloud leave that out; others do not look at it.
            text: Any = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=opens,
                enable_thinking=False,
            )
        except Exception as error:  # noqa: BLE001 (a template is a program of the model's, and says so as it likes)
            said = " ".join(str(error).split())[:200]
            raise PairError(f"the model's chat template refuses the conversation ({said})") from error
        return str(text)

    def _unforgeable(self, messages: Sequence[Message], written: str) -> list[int]:
        """Ids of a conversation whose texts hold names of special tokens."""
        bare = [{**message, "content": self._special.sub(" ", message["content"])} for message in messages]
        harmless = self._written(bare)
        expected: Any = self.tokenizer(harmless, add_special_tokens=False)["input_ids"]
        if self._between_tokens(bare, harmless) != list(expected):
            raise PairError("it holds the name of a special token, and this tokenizer cannot be kept from reading it")
        return self._between_tokens(messages, written)

    def _between_tokens(self, messages: Sequence[Message], written: str) -> list[int]:
        """Ids of a written conversation: special tokens of the template as such, everything else as text."""
        ids: list[int] = []
        text = ""
        for part, from_template in self._parts(messages, written):
            for place, piece in enumerate(self._special.split(part) if from_template else [part]):
                if place % 2:
                    ids += [*self._as_text(text), self._names[piece]]
                    text = ""
                else:
                    text += piece
        return ids + self._as_text(text)

    def _parts(self, messages: Sequence[Message], written: str) -> Iterable[tuple[str, bool]]:
        """A written conversation in parts, each with whether it is the template's own."""
        marked = [{**message, "content": _MARK.format(place)} for place, message in enumerate(messages)]
        frame = re.split(_MARK.format(r"(\d+)"), self._written(marked))
        left = written
        for place, part in enumerate(frame):
            if place % 2 == 0:
                if not left.startswith(part):
                    raise PairError("it holds the name of a special token, and the chat template rewrites its texts")
                yield part, True
            else:
                content = messages[int(part)]["content"]
                part = content if left.startswith(content) else content.strip()  # some templates trim
                yield part, False
            left = left.removeprefix(part)

    def _as_text(self, text: str) -> list[int]:
        ids: Any = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    @cached_property
    def _names(self) -> dict[str, int]:
        """Special tokens by name."""
        added = {
            token.content: number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        known = zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True)
        return {**dict(known), **added}

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self._names.values())

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """The names of special tokens, the longest first, in one group."""
        names = sorted(self._names, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, names))})") if names else re.compile(r"(?!)()")
