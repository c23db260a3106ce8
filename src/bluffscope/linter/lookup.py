"""The second pass over a source: ids, rows and texts of what the checks have found by numbers and hashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic

import numpy as np

from bluffscope.linter.draft import QUOTED_PAIRS, Draft
from bluffscope.linter.findings import Finding
from bluffscope.linter.profile import RowT, readable
from bluffscope.linter.sample import Rows


class LookUp(Generic[RowT]):
    """Pairs or texts that are named, sampled or compared."""

    def __init__(
        self,
        source: Rows,
        kind: type[RowT],
        drafts: Sequence[Draft],
        *,
        kept: np.ndarray,
        bare: Callable[[int, RowT], RowT],
        excerpt: Callable[[str, RowT], tuple[str, ...]],
    ) -> None:
        """Read the source again, if need be.

        Args:
            source: as it was when the profile was taken.
            kind: of its items.
            drafts: whose items are named, the first of them quoted.
            kept: (found,) positions of the items whose texts are asked for.
            bare: what of an item is kept, given its position.
            excerpt: how a sentence quotes an item, given its place.
        """
        self.kept: dict[int, RowT] = {}
        """The items asked for, by position."""
        self._names: dict[int, tuple[str, int]] = {}
        self._excerpts: dict[int, tuple[str, ...]] = {}
        found = {int(position) for draft in drafts for position in draft.positions}
        excerpted = {int(position) for draft in drafts for position in draft.positions[:QUOTED_PAIRS]}
        texts = set(kept.tolist())
        if not found | texts:
            return
        for position, (place, item) in enumerate(readable(source, kind)):
            if position in found:
                self._names[position] = item.id, item.index
            if position in texts:
                self.kept[position] = bare(position, item)
            if position in excerpted:
                self._excerpts[position] = excerpt(place, item)

    def finding(self, draft: Draft) -> Finding:
        """The finding that a draft becomes."""
        said = draft.say([self._excerpts[position] for position in draft.positions[:QUOTED_PAIRS].tolist()])
        names = [self._names[position] for position in sorted(draft.positions.tolist())]
        return Finding(draft.code, said, tuple(id for id, _ in names), tuple(row for _, row in names), draft.scope)
