"""One pass over all labelled texts: what the checks need to know of each, as numbers and hashes, never as text."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np

from bluffscope.errors import PairError
from bluffscope.linter.profile import Known, Tokenize, TokenProfile, readable, take_in
from bluffscope.linter.sample import Rows
from bluffscope.linter.words import SPECIAL, negated, white_space
from bluffscope.pairs.fields import RowError
from bluffscope.pairs.groups import GroupBuilder
from bluffscope.pairs.links import Links, find_links
from bluffscope.records import PROMPTED, LabelledText, Tokenized

Tokens: TypeAlias = Tokenized[LabelledText] | PairError


@dataclass(frozen=True)
class TextProfile(Known):
    """What the checks know of the readable texts."""

    noun: ClassVar = "text"
    false: np.ndarray
    """(text,) bool: whether the label says so."""
    prompted: np.ndarray
    """(text,) bool: whether it has a prompt."""
    prompt_lengths: np.ndarray
    """(text,) int64: characters of each prompt."""
    own_groups: bool
    """Whether the source has groups of its own."""

    @property
    def characters(self) -> np.ndarray:
        """(text,) int64: characters of prompt and completion."""
        return self.lengths + self.prompt_lengths

    def counts(self, positions: np.ndarray) -> dict[str, int]:
        """How many of these texts are true, and how many false."""
        false = int(self.false[positions].sum())
        return {"true": len(positions) - false, "false": false}


def take_texts(source: Rows, tokenize: Tokenize | None, join: str) -> TextProfile:
    """Read all rows once; about 80 bytes a text are held.

    Raises:
        InputError: A file cannot be read, or not one of its rows is a labelled text.
    """
    builder, tokens = _Builder(join, source.cluster_by), _TokenBuilder()
    faults = take_in(source, LabelledText, builder.add, _as_read(tokenize), tokens.add)
    groups, links = source.known() or builder.linked(lambda: (text for _, text in readable(source, LabelledText)))
    return builder.profile(faults, groups, links, None if tokenize is None else tokens.profile())


def _as_read(tokenize: Tokenize | None) -> Callable[[Sequence[LabelledText]], Iterator[Tokens]] | None:
    """A tokenizer of whole texts, and of the prompts of those that have one."""
    if tokenize is None:
        return None
    return lambda texts: tokenize([replace(text, arrangement=PROMPTED) if text.prompt else text for text in texts])


class _Builder:
    def __init__(self, join: str, cluster_by: str) -> None:
        self._join = join
        self._groups = GroupBuilder(cluster_by)
        self._lengths = array("q")
        self._flags = bytearray()

    def add(self, text: LabelledText) -> None:
        self._groups.add_item(text)
        self._lengths.extend((len(text.completion), len(text.prompt)))
        space = white_space(text.prompt, text.completion, self._join) if text.prompt else None
        special = any(SPECIAL.search(part) for part in (text.prompt, text.completion))
        flags = (negated(text.completion), space == "own", space == "doubled", special, text.label, bool(text.prompt))
        self._flags.extend(flags)

    def linked(self, texts: Callable[[], Iterator[LabelledText]]) -> tuple[np.ndarray, Links]:
        """As `Rows.known`, of the texts taken in; `texts` reads them again."""
        groups = self._groups.groups().numbers()
        return groups, find_links(self._groups, groups, texts, self._flagged()[:, 4])

    def _flagged(self) -> np.ndarray:
        return np.frombuffer(bytes(self._flags), dtype=bool).reshape(-1, 6)

    def profile(
        self, faults: tuple[RowError, ...], groups: np.ndarray, links: Links, tokens: TokenProfile | None
    ) -> TextProfile:
        lengths, flags = np.array(self._lengths).reshape(-1, 2), self._flagged()
        return TextProfile(
            rows=len(groups) + len(faults),
            faults=faults,
            groups=groups,
            links=links,
            domains=self._groups.domains,
            domain=self._groups.domain,
            ids=self._groups.id_hashes,
            prompts=self._groups.prompt_hashes,
            completions=self._groups.completion_hashes[:, 0],
            lengths=lengths[:, 0],
            negations=flags[:, 0],
            own_space=flags[:, 1],
            doubled_space=flags[:, 2],
            special=flags[:, 3],
            tokens=tokens,
            false=~flags[:, 4],
            prompted=flags[:, 5],
            prompt_lengths=lengths[:, 1],
            own_groups=self._groups.given,
        )


class _TokenBuilder:
    def __init__(self) -> None:
        self._lengths = array("q")
        self._merged = bytearray()
        self._refused: dict[int, str] = {}

    def add(self, found: Tokens) -> None:
        if isinstance(found, PairError):
            self._refused[len(self._lengths)] = str(found)
            self._lengths.append(0)
            self._merged.append(False)
            return
        *prompt, text = (sequence.ids for sequence in found.sequences)
        self._lengths.append(found.tokens[-1])
        # The text keeps all the prompt's tokens unless the completion's first characters joined the last of them.
        self._merged.append(any(text[: len(ids)] != ids for ids in prompt))

    def profile(self) -> TokenProfile:
        merged = np.frombuffer(bytes(self._merged), dtype=bool)
        return TokenProfile(np.array(self._lengths), merged[:0], merged, self._refused)
