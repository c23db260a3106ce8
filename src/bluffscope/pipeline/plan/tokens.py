"""Texts to token ids, and the positions at which they are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from bluffscope.config import READ_WHOLE, Position
from bluffscope.errors import PairError
from bluffscope.records import Item, ItemT, Tokenized
from bluffscope.records import Sequence as TokenSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bluffscope.host.chat import Chat

_OPENS = "\0"
"""Put in front of a prompt whose ids are those of a conversation; no text of a pair has it."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MOST_KEPT = 32 << 20
"""Bytes of texts and their ids that a tokenizer keeps: those of about 30,000 pairs of a sentence each."""
_ENTRY = 200
"""Bytes of a text and its ids beyond their content."""


class _Kept:
    """Token ids by text, as many as there is room for."""

    def __init__(self) -> None:
        self.ids: dict[str, array[int]] = {}
        self._room = MOST_KEPT

    def add(self, found: Mapping[str, array[int]]) -> None:
        for text, ids in found.items():
            size = len(text) + ids.itemsize * len(ids) + _ENTRY
            if size <= self._room:
                self.ids[text] = ids
                self._room -= size


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix of two id sequences."""
    for length, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return length
    return min(len(left), len(right))


@dataclass(frozen=True)
class _Place:
    """A text's ids without BOS, and where its completion begins."""

    ids: array[int]
    start: int
    """Index of the completion's first token; of the prompt's last."""
    parting: int
    """Index of the completion's first token that is not the other's; of the prompt's last."""
    stop: int
    """Index behind the text's own last token: what follows closes a turn."""

    @classmethod
    def of_prompt(cls, ids: array[int]) -> _Place:
        """A prompt alone: its last token is what is read."""
        return cls(ids, len(ids) - 1, len(ids) - 1, len(ids))


def _turns(opening: array[int], words: Sequence[array[int]], closing: Sequence[int]) -> list[_Place]:
    """The places of what an assistant says after a conversation; `closing` are tokens behind it, if any are fed."""
    differ = len(opening) + (common_prefix(*words) if len(words) == 2 else 0)
    texts = ((opening + said + array("i", closing), len(opening) + len(said)) for said in words)
    return [_Place(ids, len(opening), differ, stop) for ids, stop in texts]


def _places(prompt: array[int], completions: Sequence[array[int]]) -> list[_Place]:
    """The completions' places; those of an only completion part where it begins."""
    starts = [common_prefix(prompt, ids) for ids in completions]
    differ = common_prefix(*completions) if len(completions) == 2 else 0
    # Where a merge across the border makes one completion start later, the other's first token is not its own.
    return [_Place(ids, start, max(differ, start), len(ids)) for ids, start in zip(completions, starts, strict=True)]


def _reads(place: _Place, position: Position) -> range:
    """Where a text is read, as indices into its ids without BOS."""
    if position in READ_WHOLE:
        return range(place.start, place.stop)
    first = {
        "last": place.stop - 1,
        "first-completion": place.start,
        "divergence": place.parting,
        "end-of-turn": len(place.ids) - 1,
    }[position]
    return range(first, first + 1)


def as_far_as_read(found: Tokenized[ItemT]) -> Tokenized[ItemT]:
    """The item without the tokens behind the last that is read or scored: attention looks back only."""
    cut = (
        replace(text, ids=text.ids[: max(*text.reads, *text.scored, *chain(*text.further), 0) + 1])
        for text in found.sequences
    )
    return replace(found, sequences=tuple(cut))


@dataclass(frozen=True)
class TextTokenizer:
    """Turns the texts of items into token ids exactly as the model will see them."""

    tokenizer: PreTrainedTokenizerBase
    bos: int | None
    """The id put in front of every text, once; None where none is fed."""
    position: Position
    join: str
    context: int | None
    """Most tokens (BOS included) the model can take, or None where it has no limit."""
    logprob: bool = False
    """Whether log-probabilities of the completions will be asked for."""
    further: tuple[Position, ...] = ()
    """Positions at which completions are read besides, for residuals alone."""
    chat: Chat | None = None
    """How prompts become conversations, in which completions are what the assistant says; `bos` is then its own."""
    _kept: _Kept = field(default_factory=lambda: _Kept(), init=False, compare=False, repr=False)
    """So that what the linter has seen is not tokenised again to be measured, nor for the health check."""

    @property
    def positions(self) -> tuple[Position, ...]:
        """All positions, the first of them `position`."""
        return (self.position, *self.further)

    @property
    def visible_join(self) -> str:
        """What stands between prompt and completion where white space may meet; in a conversation nothing does."""
        return self.join if self.chat is None else "|"

    @property
    def plain_though_chat(self) -> bool:
        """Whether the model has a chat template that is not used."""
        return self.chat is None and bool(self.tokenizer.chat_template)

    def opening(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a prompt that the model is to go on from, BOS included.

        Raises:
            PairError: the chat template refuses it.
        """
        text = prompt if self.chat is None else _OPENS + prompt
        ids = self._new([text])[text]
        return tuple(ids) if self.bos is None else (self.bos, *ids)

    def tokenize(self, items: Sequence[ItemT]) -> Iterator[Tokenized[ItemT] | PairError]:
        """Yields, for each item in turn, its token ids, or the reason it cannot be measured.

        All texts go through the tokenizer in one call. Text that looks like a special token stays
        text, so that no input can smuggle in a BOS, an end of text or a pad.
        """
        if not items:
            return
        try:
            ids = self._encoded(items)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except PairError as error:
            if len(items) > 1:
                yield from chain.from_iterable(self.tokenize([item]) for item in items)
            else:
                yield error
            return
        except BaseException as error:  # a rule of the tokenizer that gives up panics in Rust, which is no Exception
            if len(items) > 1:
                yield from chain.from_iterable(self.tokenize([item]) for item in items)
            else:
                yield PairError(f"the tokenizer fails on it ({' '.join(str(error).split())[:200]})")
            return
        for item in items:
            try:
                yield self._tokenized(item, ids)
            except PairError as error:
                yield error

    def _encoded(self, items: Sequence[Item]) -> dict[str, array[int]]:
        """The ids of every text of these items; the tokenizer sees each text once, as far as they are kept."""
        texts: dict[str, None] = {}
        for item in items:
            prompt, completions = self._texts(item)
            texts |= dict.fromkeys((prompt, *completions))
        known = {text: self._kept.ids[text] for text in texts if text in self._kept.ids}
        if new := [text for text in texts if text not in known]:
            found = self._new(new)
            self._kept.add(found)
            known |= found
        return known

    def _texts(self, item: Item) -> tuple[str, list[str]]:
        """An item's prompt and what is tokenised with it: the whole texts, or an assistant's words."""
        if self.chat is None:
            prompt, whole = item.texts(self.join)
            return prompt, list(whole)
        prompt, words = item.texts("")
        return _OPENS + prompt, [self.chat.said(text[len(prompt) :]) for text in words]

    def _new(self, texts: Sequence[str]) -> dict[str, array[int]]:
        opening = [text.removeprefix(_OPENS) for text in texts if text.startswith(_OPENS)]
        found: dict[str, array[int]] = {}
        if self.chat is not None and opening:
            lead = 0 if self.bos is None else 1
            found = {_OPENS + text: array("i", ids[lead:]) for text, ids in self.chat.openings(opening).items()}
        if left := [text for text in texts if text not in found]:
            # Over-long texts are reported by us, with their item: `verbose` only mutes the tokenizer's own warning.
            encoded: Any = self.tokenizer(
                left, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
            )
            found |= {text: array("i", ids) for text, ids in zip(left, encoded["input_ids"], strict=True)}
        return found

    def _tokenized(self, item: ItemT, encoded: Mapping[str, array[int]]) -> Tokenized[ItemT]:
        prompt_text, texts = self._texts(item)
        prompt, completions = encoded[prompt_text], [encoded[text] for text in texts]
        places = [_Place.of_prompt(prompt)] if "prompt" in item.arrangement.views else []
        if self.chat is None:
            places += _places(prompt, completions)
        else:
            closes = "end-of-turn" in self.positions
            places += _turns(prompt, completions, [self.chat.end_of_turn] if closes else [])
        sequences = [self._sequence(item, view, place) for view, place in enumerate(places)]
        return Tokenized(
            item=item,
            sequences=tuple(sequences),
            tokens=tuple(
                len(place.ids) if view == "prompt" else place.stop - place.start
                for view, place in zip(item.arrangement.views, places, strict=True)
            ),
            read_tokens=tuple(self._text(sequence.ids[sequence.reads[-1]]) for sequence in sequences),
        )

    def _sequence(self, item: Item, view: int, place: _Place) -> TokenSequence:
        ids, name, lead = place.ids, item.arrangement.views[view], 0 if self.bos is None else 1
        of_view = "" if name == "text" else f"{name} "
        if not ids:
            raise PairError(f"the {of_view}text has no tokens")
        if name != "prompt" and place.start == place.stop:
            raise PairError(f"the {of_view}completion has no tokens of its own")
        if self.context is not None and len(ids) + lead > self.context:
            raise PairError(f"the {of_view}text has {len(ids) + lead} tokens; the model's context holds {self.context}")
        if name != "prompt" and "divergence" in self.positions and place.parting == place.stop:
            raise PairError(
                f"the {name} text's tokens end before fact and hallucination differ: there is no token to read"
            )
        # The first token of a text without BOS is predicted by nothing: neither are then its completion's.
        scored = self.logprob and name != "prompt" and place.start + lead > 0
        reads, *further = (tuple(index + lead for index in _reads(place, position)) for position in self.positions)
        return TokenSequence(
            item=item.index,
            view=view,
            ids=tuple(ids) if self.bos is None else (self.bos, *ids),
            reads=reads,
            further=() if name == "prompt" else tuple(further),
            scored=tuple(range(place.start + lead, place.stop + lead)) if scored else (),
        )

    def _text(self, token: int) -> str:
        """A token as text; its vocabulary piece where it is only a part of a character."""
        text = self.tokenizer.decode([token])
        return self.tokenizer.convert_ids_to_tokens(token) if REPLACEMENT in text else text  # pyright: ignore
