"""A part of a large source to lint: whole groups, so that repeats and contradictions inside it are all there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from bluffscope.pairs.fields import RowError
from bluffscope.pairs.links import Links
from bluffscope.pairs.source import Source
from bluffscope.records import LabelledText, Pair
from bluffscope.stats.sampling import whole_groups


class Rows(Protocol):
    """What the linter reads, twice: a `Source`, or a part of one."""

    name: str
    cluster_by: str
    """See `DataOptions`."""

    def known(self) -> tuple[np.ndarray, Links] | None:
        """(pair,) number of each pair's group, and the links of the whole source, where a scan has found them."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether it holds labelled texts rather than pairs."""
        ...

    def rows(self) -> Iterator[tuple[str, Pair | LabelledText | RowError]]:
        """Each record in input order: its place, and its item or why it is none."""
        ...


class GroupSample:
    """Whole groups of a source's pairs, drawn at random until they hold as many pairs as are wanted.

    Pairs that share a prompt or an open completion are of one group (unless --cluster-by says otherwise): what the
    linter finds between pairs, it finds in a sample of groups as in the whole. The source is still read from end to
    end, but nothing is done with the others.
    """

    def __init__(self, source: Source, most: int, seed: int) -> None:
        self.name, self.cluster_by = source.name, source.cluster_by
        self._source = source
        scan = source.scan()
        self.total = scan.count
        """Pairs of the source."""
        numbers = scan.groups.numbers()
        order = np.random.default_rng(seed).permutation(int(numbers.max()) + 1)
        self._wanted = whole_groups(numbers, order, most)

    def known(self) -> tuple[np.ndarray, Links]:
        """As `Source.known`, of the pairs drawn; the links are those of all."""
        scan = self._source.scan()
        return scan.groups.numbers()[self._wanted], scan.links

    @property
    def labelled(self) -> bool:
        """As `Source.labelled`."""
        return self._source.labelled

    def rows(self) -> Iterator[tuple[str, Pair | LabelledText | RowError]]:
        """As `Source.rows`, of the pairs drawn; their places in the input are as they are."""
        for wanted, found in zip(self._wanted.tolist(), self._source.rows(), strict=True):
            if wanted:
                yield found
