"""Groups of pairs that must stay together in resampling and cross-validation (docs/data.md)."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bluffscope.pairs.wordbag import folded

_LABELLED_TOGETHER: Final = 4096


@dataclass(frozen=True)
class Groups:
    """The group of each pair, 8 bytes a pair; labels are made on request."""

    smallest: np.ndarray
    """(pair,) uint64: the smallest id hash of each pair's group, in input order."""
    digits: int
    """Hex digits of a label."""

    @classmethod
    def of(cls, smallest: np.ndarray) -> Groups:
        """Groups whose labels are "g" and the first 12 hex digits of a hash.

        Should two groups agree in those, all labels have 16 digits: groups are never merged by name.
        """
        known = np.unique(smallest)
        return cls(smallest, 12 if len(np.unique(known >> np.uint64(16))) == len(known) else 16)

    def __len__(self) -> int:
        return len(self.smallest)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _LABELLED_TOGETHER):
            yield from self.labels(start, start + _LABELLED_TOGETHER)

    def labels(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The labels of a stretch of pairs; of all by default."""
        text = self.smallest[start:stop].astype(">u8").tobytes().hex()
        return [f"g{text[place : place + self.digits]}" for place in range(0, len(text), 16)]

    def tolist(self) -> list[str]:
        """The labels of all pairs."""
        return self.labels()

    def numbers(self) -> np.ndarray:
        """(pair,) int64: each pair's group, numbered from 0 in the order of the labels."""
        return np.unique(self.smallest, return_inverse=True)[1]


def normalised(text: str) -> str:
    """The text as groups compare it: `folded`, white space folded to single spaces and stripped."""
    return " ".join(folded(text).split())


class GroupBuilder:
    """Connected components of pairs that share a normalised prompt or a completion.

    A completion links pairs whether it is the fact or the hallucination; a prompt equal to a
    completion does not. Only 64-bit hashes are held, 32 bytes a pair, never a string.
    """

    def __init__(self) -> None:
        self._ids = array("Q")
        self._prompts = array("Q")
        self._completions = array("Q")

    def add(self, pair_id: str, prompt: str, fact: str, hallucination: str) -> None:
        """Take in the next pair; its texts must be encodable as UTF-8."""
        self._ids.append(hash64(pair_id))
        self._prompts.append(hash64(normalised(prompt)))
        self._completions.append(hash64(normalised(fact)))
        self._completions.append(hash64(normalised(hallucination)))

    @property
    def id_hashes(self) -> np.ndarray:
        """(pair,) uint64: `hash64` of each id, in the order of `add`."""
        return np.array(self._ids, dtype=np.uint64)

    @property
    def prompt_hashes(self) -> np.ndarray:
        """(pair,) uint64: `hash64` of each normalised prompt."""
        return np.array(self._prompts, dtype=np.uint64)

    @property
    def completion_hashes(self) -> np.ndarray:
        """(pair, 2) uint64: `hash64` of each normalised fact and hallucination."""
        return np.array(self._completions, dtype=np.uint64).reshape(-1, 2)

    def groups(self) -> Groups:
        """Each pair's group; the same pairs in another order get the same ones."""
        count = len(self._ids)
        # A view of an array lives only as long as nothing is appended; here nothing is.
        ids = np.frombuffer(self._ids, dtype=np.uint64)
        pairs = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
        edges = _neighbours(np.frombuffer(self._prompts, dtype=np.uint64), pairs)
        more = _neighbours(np.frombuffer(self._completions, dtype=np.uint64), np.repeat(pairs, 2))
        component = connected_components(count, np.concatenate([edges, more], axis=1))
        smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(smallest, component, ids)
        return Groups.of(smallest[component])


def hash64(text: str) -> int:
    """The 64-bit BLAKE2b hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def connected_components(count: int, edges: np.ndarray) -> np.ndarray:
    """(count,) the smallest node of each node's component.

    Each round hooks every root to its smallest neighbouring root and then shortens all paths, so the
    number of roots that are not done halves in two rounds: no chain of pairs, however long, is slow.

    Args:
        count: Number of nodes.
        edges: (2, edge) of whole numbers, the ends of each edge.
    """
    root = np.arange(count, dtype=edges.dtype)
    while True:
        one, other = root[edges[0]], root[edges[1]]
        apart = one != other
        if not apart.any():
            return root
        one, other = one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(root, shorter := root[root]):
            root = shorter


def _neighbours(keys: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(2, edge): edges that chain the pairs that have the same key."""
    order = np.argsort(keys, kind="stable")
    keys, pairs = keys[order], pairs[order]
    same = keys[1:] == keys[:-1]
    return np.stack([pairs[:-1][same], pairs[1:][same]])
