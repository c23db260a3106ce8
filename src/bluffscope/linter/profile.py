"""One pass over all pairs: what the checks need to know of each, as numbers and hashes, never as text."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, Protocol, TypeVar

import numpy as np

from bluffscope.errors import InputError, PairError
from bluffscope.linter.findings import Finding
from bluffscope.linter.sample import Rows
from bluffscope.linter.words import SPECIAL, holds, last_piece, negated, white_space
from bluffscope.pairs.fields import RowError
from bluffscope.pairs.groups import GroupBuilder
from bluffscope.pairs.labels import LabelCount
from bluffscope.pairs.links import Links, find_links, scopes_of
from bluffscope.records import AUTO_JOIN, LabelledText, Pair, Tokenized

RowT = TypeVar("RowT", Pair, LabelledText)


class Tokenize(Protocol):
    """`bluffscope.pipeline.plan.TextTokenizer.tokenize`: this stage does not know the planner."""

    def __call__(self, items: Sequence[RowT], /) -> Iterator[Tokenized[RowT] | PairError]:
        """The tokens of each item, or why it cannot be measured."""
        ...


TOKENIZED_TOGETHER: Final = 256


@dataclass(frozen=True)
class TokenProfile:
    """What one model's tokens say of each readable pair or text; all False or 0 for one without tokens."""

    lengths: np.ndarray
    """(pair, 2) int64: tokens of the fact and of the hallucination; (text,) of the completion."""
    same_last: np.ndarray
    """(pair,) bool: both completions end in the same token; empty for texts."""
    merged: np.ndarray
    """(item,) bool: a completion's first token also holds the end of the prompt."""
    refused: dict[int, str]
    """Why a pair or text cannot be measured with this model, by its position."""


@dataclass(frozen=True)
class Known:
    """What the checks know of the readable pairs or texts; positions count these, from 0."""

    rows: int
    """Records read."""
    faults: tuple[RowError, ...]
    """The records that are no pairs or texts."""
    groups: np.ndarray
    """(item,) int64: number of each one's group (docs/data.md)."""
    links: Links
    """Of the whole source, if this is a sample."""
    domains: tuple[str, ...]
    """In first-seen order."""
    domain: np.ndarray
    """(item,) int64: index into `domains`."""
    ids: np.ndarray
    """(item,) uint64: hash of each id."""
    prompts: np.ndarray
    """(item,) uint64: hash of each normalised prompt; of a missing one, a hash of its own."""
    completions: np.ndarray
    """uint64, hash of each normalised completion: (pair, 2) of fact and hallucination, or (text,)."""
    lengths: np.ndarray
    """int64, characters of each completion: (pair, 2) or (text,)."""
    negations: np.ndarray
    """bool, whether each completion holds a negation: (pair, 2) or (text,)."""
    own_space: np.ndarray
    """(item,) bool: white space of prompt or completion stands in for that of --join auto."""
    doubled_space: np.ndarray
    """(item,) bool: two pieces of white space meet between prompt and completion."""
    special: np.ndarray
    """(item,) bool: a text holds the name of a special token."""
    tokens: TokenProfile | None
    noun: ClassVar = "pair"
    """What messages call an item."""

    def scopes(self) -> Iterator[tuple[str, np.ndarray]]:
        """All items as "pooled", then each domain (unless there is but one), with the positions of its items."""
        return scopes_of(self.domains, self.domain)


@dataclass(frozen=True)
class Profile(Known):
    """What the checks know of the readable pairs."""

    in_prompt: np.ndarray
    """(pair, 2) bool: whether the fact and the hallucination stand in the prompt, word for word."""
    same_last: np.ndarray
    """(pair,) bool: both completions end in the same word or punctuation mark."""
    labelled: np.ndarray
    """(pair,) bool: one of the completions is a label where the other is none."""
    labels: str | None
    """What is wrong with a column that holds labels in place of completions; None where none does."""

    @property
    def characters(self) -> np.ndarray:
        """(pair,) int64: characters of both completions."""
        return self.lengths.sum(axis=1)


def take_profile(source: Rows, tokenize: Tokenize | None, join: str = AUTO_JOIN) -> Profile:
    """Read all rows once; about 100 bytes a pair are held.

    Raises:
        InputError: A file cannot be read, or not one of its rows is a pair.
    """
    builder, tokens = _Builder(join, source.cluster_by), _TokenBuilder()
    faults = take_in(source, Pair, builder.add, tokenize, tokens.add)
    groups, links = source.known() or builder.linked(lambda: (pair for _, pair in readable(source, Pair)))
    return builder.profile(faults, groups, links, None if tokenize is None else tokens.profile())


def unreadable(profile: Known) -> list[Finding]:
    """A finding for each row that is no pair or text."""
    return [Finding("unreadable-row", f"{fault}.", (fault.pair_id,), (fault.index,)) for fault in profile.faults]


def readable(source: Rows, kind: type[RowT], faults: list[RowError] | None = None) -> Iterator[tuple[str, RowT]]:
    """The place of each readable row, and its item.

    Raises:
        InputError: A file cannot be read, or holds both pairs and labelled texts.
    """
    for place, row in source.rows():
        if isinstance(row, RowError):
            if faults is not None:
                faults.append(row)
        elif isinstance(row, kind):
            yield place, row
        else:
            raise InputError(f"{place}: pairs and labelled texts in one source; give them one by one")


def take_in(
    source: Rows,
    kind: type[RowT],
    add: Callable[[RowT], None],
    tokenize: Callable[[Sequence[RowT]], Iterator[Tokenized[RowT] | PairError]] | None,
    add_tokens: Callable[[Tokenized[RowT] | PairError], None],
) -> tuple[RowError, ...]:
    """Read all rows once, and hand over each item and its tokens; returns what cannot be read.

    Raises:
        InputError: As `readable`, or not one of the rows can be read.
    """
    faults: list[RowError] = []
    waiting, any_row = (item for _, item in readable(source, kind, faults)), False
    while items := list(islice(waiting, TOKENIZED_TOGETHER)):
        any_row = True
        for item in items:
            add(item)
        if tokenize is not None:
            for found in tokenize(items):
                add_tokens(found)
    if not any_row:
        raise faults[0]
    return tuple(faults)


class _Builder:
    def __init__(self, join: str, cluster_by: str) -> None:
        self._join = join
        self._labels = LabelCount()
        self._groups = GroupBuilder(cluster_by)
        self._lengths = array("q")
        self._flags = bytearray()

    def add(self, pair: Pair) -> None:
        completions = (pair.fact, pair.hallucination)
        self._groups.add_item(pair)
        self._lengths.extend(map(len, completions))
        self._flags.extend(negated(text) for text in completions)
        self._flags.extend(holds(pair.prompt, text) for text in completions)
        self._flags.append(last_piece(pair.fact) == last_piece(pair.hallucination))
        spaces = {white_space(pair.prompt, text, self._join) for text in completions}
        self._flags.extend(("own" in spaces and "doubled" not in spaces, "doubled" in spaces))
        self._flags.append(self._labels.add(pair.fact, pair.hallucination) is not None)
        self._flags.append(any(SPECIAL.search(text) for text in (pair.prompt, *completions)))

    def linked(self, pairs: Callable[[], Iterator[Pair]]) -> tuple[np.ndarray, Links]:
        """As `Rows.known`, of the pairs taken in; `pairs` reads them again."""
        groups = self._groups.groups().numbers()
        return groups, find_links(self._groups, groups, pairs)

    def profile(
        self, faults: tuple[RowError, ...], groups: np.ndarray, links: Links, tokens: TokenProfile | None
    ) -> Profile:
        flags = np.frombuffer(bytes(self._flags), dtype=bool).reshape(-1, 9)
        side = self._labels.side()
        return Profile(
            rows=len(groups) + len(faults),
            faults=faults,
            groups=groups,
            links=links,
            domains=self._groups.domains,
            domain=self._groups.domain,
            ids=self._groups.id_hashes,
            prompts=self._groups.prompt_hashes,
            completions=self._groups.completion_hashes,
            lengths=np.array(self._lengths).reshape(-1, 2),
            negations=flags[:, 0:2],
            in_prompt=flags[:, 2:4],
            same_last=flags[:, 4],
            own_space=flags[:, 5],
            doubled_space=flags[:, 6],
            labelled=flags[:, 7],
            special=flags[:, 8],
            labels=None if side is None else f"The column of the {side} {self._labels.said(side)}.",
            tokens=tokens,
        )


class _TokenBuilder:
    def __init__(self) -> None:
        self._lengths = array("q")
        self._flags = bytearray()
        self._refused: dict[int, str] = {}

    def add(self, found: Tokenized[Pair] | PairError) -> None:
        if isinstance(found, PairError):
            self._refused[len(self._lengths) // 2] = str(found)
            self._lengths.extend((0, 0))
            self._flags.extend((False, False))
            return
        prompt, fact, hall = (sequence.ids for sequence in found.sequences)
        self._lengths.extend(found.tokens[1:])
        self._flags.append(fact[-1] == hall[-1])
        # A view keeps all the prompt's tokens unless the completion's first characters joined the last of them.
        self._flags.append(fact[: len(prompt)] != prompt or hall[: len(prompt)] != prompt)

    def profile(self) -> TokenProfile:
        flags = np.frombuffer(bytes(self._flags), dtype=bool).reshape(-1, 2)
        return TokenProfile(np.array(self._lengths).reshape(-1, 2), flags[:, 0], flags[:, 1], self._refused)
