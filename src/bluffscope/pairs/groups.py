"""Groups of pairs that must stay together in resampling and cross-validation (docs/data.md)."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.pairs.carried import said
from bluffscope.pairs.wordbag import folded
from bluffscope.records import LabelledText, Pair

CLOSED_PAIRS: Final = 10
CLOSED_SHARE: Final = 0.05
"""A completion is closed, one answer of a fixed set such as yes and no, if it occurs in at least so many pairs and in
this share of them, of the whole source or of one domain. Such completions link no pairs."""
_COLUMNS: Final = ("pair_id", "prompt", "fact", "hallucination", "domain")
LINKS: Final = ("both", "prompt", "completion")
"""What may link pairs; any other name is that of a column whose values are the clusters."""
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


@dataclass(frozen=True)
class Closed:
    """The completions that are answers of a closed set."""

    keys: np.ndarray
    """(closed,) uint64: their hashes, ascending."""
    pairs: np.ndarray
    """(closed,) int64: how many pairs have each."""

    def numbers(self, completions: np.ndarray) -> np.ndarray:
        """The place in `keys` of each hash, int64; -1 where it is none of them."""
        if not len(self.keys):
            return np.full(completions.shape, -1)
        places = np.searchsorted(self.keys, completions).clip(max=len(self.keys) - 1)
        return np.where(self.keys[places] == completions, places, -1)


class GroupBuilder:
    """Connected components of pairs that share a normalised prompt or an open completion.

    A completion links pairs whether it is the fact or the hallucination, unless it is closed (`CLOSED_PAIRS`); a prompt
    equal to a completion does not. Only 64-bit hashes and the domain's number are held, 36 bytes a pair, never a text.
    """

    def __init__(self, by: str = "both") -> None:
        """No pairs yet.

        Args:
            by: what links pairs, out of `LINKS`; or the name of a column, whose values `add` is given.
        """
        self.by = by
        self._ids = array("Q")
        self._prompts = array("Q")
        self._completions = array("Q")
        self._values = array("Q")
        self._domains: dict[str, int] = {}
        self._domain = array("i")
        self._columns: dict[str, None] = {}
        self.given = False
        """Whether labelled texts have groups of their own, which are then what links them."""

    def add_item(self, item: Pair | LabelledText) -> None:
        """Take in the next item of a source, its carried values as `FieldMap.item` returns them."""
        labelled = isinstance(item, LabelledText)
        if labelled:
            own: dict[str, Any] = {"group": item.group}
            texts = (item.prompt or None, item.completion, None)
        else:
            own, texts = {"complexity": item.complexity}, (item.prompt, item.fact, item.hallucination)
        value = None
        if self.by not in LINKS:
            columns = {"domain": item.domain, **own, **item.extra}
            self._columns.update(dict.fromkeys(columns))
            value = said(columns.get(self.by)) or None
        elif self.by == "both" and labelled and item.group is not None:
            value, self.given = item.group, True
        self.add(item.id, *texts, item.domain, value, valued=labelled)

    def add(
        self,
        pair_id: str,
        prompt: str | None,
        fact: str | None,
        hallucination: str | None,
        domain: str = "all",
        value: str | None = None,
        *,
        valued: bool = False,
    ) -> None:
        """Take in the next pair (or text: a fact alone); texts must be encodable as UTF-8, and None links nothing."""
        self._ids.append(hash64(pair_id))
        for keys, text in ((self._prompts, prompt), (self._completions, fact), (self._completions, hallucination)):
            keys.append(self._key(None if text is None else normalised(text)))
        self._domain.append(self._domains.setdefault(domain, len(self._domains)))
        if valued or self.by not in LINKS:
            self._values.append(self._key(value))

    def _key(self, text: str | None) -> int:
        """The hash of a text; of a missing one, a hash that no other has."""
        return hash64(f"\0{len(self._ids)} {len(self._completions)}" if text is None else text)

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

    @property
    def domains(self) -> tuple[str, ...]:
        """In the order in which they were first seen."""
        return tuple(self._domains)

    @property
    def domain(self) -> np.ndarray:
        """(pair,) int32: index into `domains`."""
        return np.array(self._domain, dtype=np.int32)

    def closed(self) -> Closed:
        """The closed completions."""
        # A view of an array lives only as long as nothing is appended; here nothing is.
        completions = np.frombuffer(self._completions, dtype=np.uint64).reshape(-1, 2)
        return closed_completions(completions, np.frombuffer(self._domain, dtype=np.int32))

    def groups(self, apart: np.ndarray | None = None) -> Groups:
        """Each pair's group; the same pairs in another order get the same ones.

        Args:
            apart: uint64 hashes of completions that are to link nothing either.

        Raises:
            InputError: none of the source's pairs has the column whose values are the clusters.
        """
        if self._columns and self.by not in self._columns:
            raise unknown_column(self.by, self._columns)
        count = len(self._ids)
        ids = np.frombuffer(self._ids, dtype=np.uint64)
        pairs = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
        edges = [np.empty((2, 0), dtype=pairs.dtype)]
        if self.given or self.by not in LINKS:
            edges.append(_neighbours(np.frombuffer(self._values, dtype=np.uint64), pairs))
        if not self.given and self.by in ("both", "prompt"):
            edges.append(_neighbours(np.frombuffer(self._prompts, dtype=np.uint64), pairs))
        if not self.given and self.by in ("both", "completion"):
            completions = np.frombuffer(self._completions, dtype=np.uint64)
            linking = ~np.isin(completions, self.closed().keys if apart is None else [*self.closed().keys, *apart])
            edges.append(_neighbours(completions[linking], np.repeat(pairs, 2)[linking]))
        component = connected_components(count, np.concatenate(edges, axis=1))
        smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(smallest, component, ids)
        return Groups.of(smallest[component])


@dataclass(frozen=True)
class Clusters:
    """What statistics need to know of the pairs' texts."""

    labels: pl.Series
    """(row,) String: the cluster of each row."""
    closed: np.ndarray
    """(row, 2) int64: number of the closed completion that the fact and the hallucination is; -1 where it is open."""
    names: tuple[str, ...]
    """The closed completions as first written, in the order of their numbers: the most frequent first."""


def cluster_pairs(pairs: pl.DataFrame, by: str = "both") -> Clusters:
    """The clusters of a table's pairs, labelled as `GroupBuilder` labels them, and their closed completions.

    Args:
        pairs: `prompt`, `fact` and `hallucination` (anything but text counts as what it is written as; null and blank
            link nothing), and `domain` and `pair_id` (default: the row number) where they are known.
        by: "both", "prompt" or "completion": what links pairs; or a column whose values are the clusters, null being a
            cluster of its own.

    Raises:
        InputError: there is no such column.
    """
    if by not in LINKS and by not in pairs.columns:
        raise unknown_column(by, pairs.columns)
    missing = [None] * pairs.height
    columns = {name: list(map(_written, pairs[name])) for name in {*_COLUMNS, by} if name in pairs.columns}
    ids, domains = columns.get("pair_id", missing), columns.get("domain", missing)
    texts = [columns.get(name, missing) for name in ("prompt", "fact", "hallucination")]
    builder = GroupBuilder(by)
    rows = zip(ids, *texts, domains, columns.get(by, missing), strict=True)
    for row, (pair_id, prompt, fact, hall, domain, value) in enumerate(rows):
        builder.add(str(row) if pair_id is None else pair_id, prompt, fact, hall, domain or "all", value)
    labels = pl.Series(builder.groups().labels(), dtype=pl.String)
    closed = builder.closed()
    numbers = closed.numbers(builder.completion_hashes)
    found, first = np.unique(numbers, return_index=True)  # (row, side) in reading order; -1 comes first
    named = {
        number: str(texts[1 + place % 2][place // 2])
        for number, place in zip(found.tolist(), first.tolist(), strict=True)
        if number >= 0
    }
    order = sorted(named, key=lambda number: (-closed.pairs[number], normalised(named[number])))
    places = np.full(len(order) + 1, -1)  # the last is that of -1
    places[order] = np.arange(len(order))
    return Clusters(labels, places[numbers], tuple(named[number] for number in order))


def unknown_column(by: str, names: Iterable[str]) -> InputError:
    """The error for a column that clusters cannot be made of, since there is none of that name."""
    known = ", ".join(map(repr, names)) or "none"
    return InputError(f"--cluster-by {by}: no such column; use both, prompt, completion or a column out of {known}")


def closed_completions(completions: np.ndarray, domain: np.ndarray) -> Closed:
    """The completions that are answers of a closed set, in all pairs or in those of a domain.

    Args:
        completions: (pair, 2) uint64, hashes of fact and hallucination.
        domain: (pair,) number of each pair's domain, from 0.
    """
    # A pair counts once for a completion that is both its fact and its hallucination.
    once = np.ones(completions.shape, dtype=bool)
    once[:, 1] = completions[:, 0] != completions[:, 1]
    keys, pairs = np.unique(completions[once], return_counts=True)
    frequent = pairs >= CLOSED_PAIRS
    keys, pairs = keys[frequent], pairs[frequent]
    closed = pairs / max(1, len(domain)) >= CLOSED_SHARE
    numbers = np.where(once, Closed(keys, pairs).numbers(completions), -1)
    sizes = np.bincount(domain)
    cells = (numbers.astype(np.int64) * len(sizes) + domain[:, None])[numbers >= 0]
    cells, inside = np.unique(cells, return_counts=True)
    many = (inside >= CLOSED_PAIRS) & (inside / sizes[cells % max(1, len(sizes))] >= CLOSED_SHARE)
    closed[cells[many] // max(1, len(sizes))] = True
    return Closed(keys[closed], pairs[closed])


def _written(value: Any) -> str | None:
    """A value of a table as text; None where it is missing, not a number or blank."""
    return None if value is None or value != value or not (text := str(value)).strip() else text  # noqa: PLR0124


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
