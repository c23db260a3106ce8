"""Texts to token ids, and the positions at which they are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from bluffscope.config import Position
from bluffscope.errors import PairError
from bluffscope.records import VIEWS, Pair, TokenizedPair
from bluffscope.records import Sequence as TokenSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def as_far_as_read(pair: TokenizedPair) -> TokenizedPair:
    """The pair without the tokens behind the last that is read or scored: attention looks back only."""
    prompt, fact, hall = (
        replace(sequence, ids=sequence.ids[: max(*sequence.reads, *sequence.scored, 0) + 1])
        for sequence in pair.sequences
    )
    return replace(pair, sequences=(prompt, fact, hall))


@dataclass(frozen=True)
class TextTokenizer:
    """Turns pairs into token ids exactly as the model will see them."""

    tokenizer: PreTrainedTokenizerBase
    bos: int | None
    """The id put in front of every text, once; None where none is fed."""
    position: Position
    join: str
    context: int | None
    """Most tokens (BOS included) the model can take, or None where it has no limit."""
    logprob: bool = False
    """Whether log-probabilities of the completions will be asked for."""
    _kept: _Kept = field(default_factory=lambda: _Kept(), init=False, compare=False, repr=False)
    """So that what the linter has seen is not tokenised again to be measured, nor for the health check."""

    def tokenize(self, pairs: Sequence[Pair]) -> Iterator[TokenizedPair | PairError]:
        """Give, for each pair in turn, its token ids, or the reason it cannot be measured.

        All texts go through the tokenizer in one call. Text that looks like a special token stays
        text, so that no input can smuggle in a BOS, an end of text or a pad.
        """
        if not pairs:
            return
        try:
            ids = self._encoded(pairs)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a rule of the tokenizer that gives up panics in Rust, which is no Exception
            if len(pairs) > 1:
                yield from chain.from_iterable(self.tokenize([pair]) for pair in pairs)
            else:
                yield PairError(f"the tokenizer fails on it ({' '.join(str(error).split())[:200]})")
            return
        for number, pair in enumerate(pairs):
            try:
                yield self._tokenized(pair, ids[3 * number : 3 * number + 3])
            except PairError as error:
                yield error

    def _encoded(self, pairs: Sequence[Pair]) -> list[array[int]]:
        """The ids of every view of every pair, in turn; the tokenizer sees each text once, as far as they are kept."""
        texts = [pair.text(view, self.join) for pair in pairs for view in VIEWS]
        known = {text: self._kept.ids[text] for text in texts if text in self._kept.ids}
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            # Over-long texts are reported by us, with their pair: `verbose` only mutes the tokenizer's own warning.
            encoded: Any = self.tokenizer(
                new, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
            )
            found = {text: array("i", ids) for text, ids in zip(new, encoded["input_ids"], strict=True)}
            self._kept.add(found)
            known |= found
        return [known[text] for text in texts]

    def _tokenized(self, pair: Pair, views: Sequence[array[int]]) -> TokenizedPair:
        prompt = views[0]
        starts = (len(prompt) - 1, common_prefix(prompt, views[1]), common_prefix(prompt, views[2]))
        differ = common_prefix(views[1], views[2])
        # Where a merge across the border makes one completion start later, the other's first token is not its own.
        partings = (starts[0], max(differ, starts[1]), max(differ, starts[2]))
        lead = 0 if self.bos is None else 1
        sequences: list[TokenSequence] = []
        for view, ids, start, parting in zip(VIEWS, views, starts, partings, strict=True):
            if not ids:
                raise PairError(f"the {view} text has no tokens")
            if view != "prompt" and start == len(ids):
                raise PairError(f"the {view} completion has no tokens of its own")
            if self.context is not None and len(ids) + lead > self.context:
                raise PairError(
                    f"the {view} text has {len(ids) + lead} tokens; the model's context holds {self.context}"
                )
            if view != "prompt" and self.position == "divergence" and differ == len(ids):
                raise PairError(
                    f"the {view} text's tokens end before fact and hallucination differ: there is no token to read"
                )
            # The first token of a text without BOS is predicted by nothing: neither are then its completion's.
            scored = self.logprob and view != "prompt" and start + lead > 0
            reads = self._reads(len(ids), start, parting)
            sequences.append(
                TokenSequence(
                    pair=pair.index,
                    view=view,
                    ids=tuple(ids) if self.bos is None else (self.bos, *ids),
                    reads=tuple(index + lead for index in reads),
                    scored=tuple(range(start + lead, len(ids) + lead)) if scored else (),
                )
            )
        prompt_sequence, fact, hall = sequences
        shown = [sequence.ids[sequence.reads[-1]] for sequence in sequences]
        return TokenizedPair(
            pair=pair,
            sequences=(prompt_sequence, fact, hall),
            prompt_tokens=len(prompt),
            completion_tokens=(len(views[1]) - starts[1], len(views[2]) - starts[2]),
            read_tokens=(self._text(shown[0]), self._text(shown[1]), self._text(shown[2])),
        )

    def _reads(self, tokens: int, start: int, parting: int) -> range:
        """Where a view is read.

        Args:
            tokens: number of the view's tokens.
            start: index of its completion's first token; of the prompt's last.
            parting: index of its completion's first token that is not the other's; of the prompt's last.
        """
        if self.position == "completion-mean":
            return range(start, tokens)
        first = {"last": tokens - 1, "first-completion": start, "divergence": parting}[self.position]
        return range(first, first + 1)

    def _text(self, token: int) -> str:
        """A token as text; its vocabulary piece where it is only a part of a character."""
        text = self.tokenizer.decode([token])
        return self.tokenizer.convert_ids_to_tokens(token) if REPLACEMENT in text else text  # pyright: ignore
