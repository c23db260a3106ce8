"""One pass over all pairs: what the checks need to know of each, as numbers and hashes, never as text."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from bluffscope.errors import PairError
from bluffscope.linter.sample import Rows
from bluffscope.linter.words import SPECIAL, holds, last_piece, negated, white_space
from bluffscope.pairs.fields import RowError
from bluffscope.pairs.groups import GroupBuilder
from bluffscope.pairs.labels import LabelCount
from bluffscope.pairs.links import Links, find_links, scopes_of
from bluffscope.records import AUTO_JOIN, Pair, Tokenized

Tokenize = Callable[[Sequence[Pair]], Iterator[Tokenized[Pair] | PairError]]
"""`bluffscope.pipeline.plan.TextTokenizer.tokenize`: this stage does not know the planner."""
TOKENIZED_TOGETHER: Final = 256


@dataclass(frozen=True)
class TokenProfile:
    """What one model's tokens say of each readable pair; all False or 0 for a pair without tokens."""

    lengths: np.ndarray
    """(pair, 2) int64: tokens of the fact and of the hallucination."""
    same_last: np.ndarray
    """(pair,) bool: both completions end in the same token."""
    merged: np.ndarray
    """(pair,) bool: a completion's first token also holds the end of the prompt."""
    refused: dict[int, str]
    """Why a pair cannot be measured with this model, by its position."""


@dataclass(frozen=True)
class Profile:
    """What the checks know of the readable pairs; positions count these, from 0."""

    rows: int
    """Records read."""
    faults: tuple[RowError, ...]
    """The records that are no pairs."""
    groups: np.ndarray
    """(pair,) int64: number of each pair's group (docs/data.md)."""
    links: Links
    """Of the whole source, if this is a sample."""
    domains: tuple[str, ...]
    """In first-seen order."""
    domain: np.ndarray
    """(pair,) int64: index into `domains`."""
    ids: np.ndarray
    """(pair,) uint64: hash of each id."""
    prompts: np.ndarray
    """(pair,) uint64: hash of each normalised prompt."""
    completions: np.ndarray
    """(pair, 2) uint64: hash of each normalised fact and hallucination."""
    lengths: np.ndarray
    """(pair, 2) int64: characters of the fact and of the hallucination."""
    negations: np.ndarray
    """(pair, 2) bool: whether the fact and the hallucination hold a negation."""
    in_prompt: np.ndarray
    """(pair, 2) bool: whether the fact and the hallucination stand in the prompt, word for word."""
    same_last: np.ndarray
    """(pair,) bool: both completions end in the same word or punctuation mark."""
    own_space: np.ndarray
    """(pair,) bool: white space of prompt or completion stands in for that of --join auto."""
    doubled_space: np.ndarray
    """(pair,) bool: two pieces of white space meet between prompt and completion."""
    labelled: np.ndarray
    """(pair,) bool: one of the completions is a label where the other is none."""
    special: np.ndarray
    """(pair,) bool: a text holds the name of a special token."""
    labels: str | None
    """What is wrong with a column that holds labels in place of completions; None where none does."""
    tokens: TokenProfile | None

    def scopes(self) -> Iterator[tuple[str, np.ndarray]]:
        """All pairs as "pooled", then each domain (unless there is but one), with the positions of its pairs."""
        return scopes_of(self.domains, self.domain)


def take_profile(source: Rows, tokenize: Tokenize | None, join: str = AUTO_JOIN) -> Profile:
    """Read all rows once; about 100 bytes a pair are held.

    Raises:
        InputError: A file cannot be read, or not one of its rows is a pair.
    """
    faults: list[RowError] = []
    builder, tokens = _Builder(join, source.cluster_by), _TokenBuilder()

    def readable() -> Iterator[Pair]:
        for _, row in source.rows():
            if isinstance(row, RowError):
                faults.append(row)
            elif isinstance(row, Pair):
                yield row

    waiting = readable()
    while pairs := list(islice(waiting, TOKENIZED_TOGETHER)):
        for pair in pairs:
            builder.add(pair)
        if tokenize is not None:
            for found in tokenize(pairs):
                tokens.add(found)
    if not builder.count:
        raise faults[0]
    groups, links = source.known() or builder.linked(lambda: (row for _, row in source.rows() if isinstance(row, Pair)))
    return builder.profile(tuple(faults), groups, links, None if tokenize is None else tokens.profile())


class _Builder:
    def __init__(self, join: str, cluster_by: str) -> None:
        self.count = 0
        self._join = join
        self._labels = LabelCount()
        self._groups = GroupBuilder(cluster_by)
        self._lengths = array("q")
        self._flags = bytearray()

    def add(self, pair: Pair) -> None:
        completions = (pair.fact, pair.hallucination)
        self.count += 1
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
            rows=self.count + len(faults),
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
