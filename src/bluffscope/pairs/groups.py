"""Groups of pairs that must stay together in resampling and cross-validation (DESIGN section 2)."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np


def normalised(text: str) -> str:
    """The text as groups compare it: casefolded, white space folded to single spaces and stripped."""
    return " ".join(text.casefold().split())


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

    def labels(self) -> np.ndarray:
        """(pair,) unicode: each pair's group; the same pairs in another order get the same labels."""
        count = len(self._ids)
        pairs = np.arange(count)
        edges = [
            _neighbours(np.array(self._prompts, dtype=np.uint64), pairs),
            _neighbours(np.array(self._completions, dtype=np.uint64), np.repeat(pairs, 2)),
        ]
        component = connected_components(count, np.concatenate(edges, axis=1))
        smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(smallest, component, self.id_hashes)
        roots, group = np.unique(component, return_inverse=True)
        names = label_names(smallest[roots])
        return names[group]


def hash64(text: str) -> int:
    """The 64-bit BLAKE2b hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def label_names(smallest: np.ndarray) -> np.ndarray:
    """(group,) unicode: "g" and the first 12 hex digits of each group's smallest id hash.

    Should two groups agree in those, all labels have 16 digits: groups are never merged by name.
    """
    digits = 12 if len(np.unique(smallest >> np.uint64(16))) == len(smallest) else 16
    hexes = np.frombuffer(smallest.astype(">u8").tobytes().hex().encode(), dtype="S16")
    return np.char.add("g", hexes.astype(f"S{digits}").astype(f"U{digits}"))


def connected_components(count: int, edges: np.ndarray) -> np.ndarray:
    """(count,) int64: the smallest node of each node's component.

    Each round hooks every root to its smallest neighbouring root and then shortens all paths, so the
    number of roots that are not done halves in two rounds: no chain of pairs, however long, is slow.

    Args:
        count: Number of nodes.
        edges: (2, edge) int64, the ends of each edge.
    """
    root = np.arange(count)
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
    """(2, edge) int64: edges that chain the pairs that have the same key."""
    order = np.argsort(keys, kind="stable")
    keys, pairs = keys[order], pairs[order]
    same = keys[1:] == keys[:-1]
    return np.stack([pairs[:-1][same], pairs[1:][same]])
