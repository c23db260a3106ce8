"""What links the pairs of a source, and which closed answers they hold: what can be said before any model runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bluffscope.pairs.groups import GroupBuilder
from bluffscope.records import LabelledText, Pair

POOLED: Final = "pooled"
FEWEST_CLUSTERS: Final = 10
"""With fewer, no verdict is given."""
CHAINED_PAIRS: Final = 10
CHAINED_SHARE: Final = 0.5
"""A cluster of at least so many pairs, and more than this share of a scope's, is looked into."""


@dataclass(frozen=True)
class Few:
    """A scope with fewer than `FEWEST_CLUSTERS`."""

    scope: str
    clusters: int
    pairs: int


@dataclass(frozen=True)
class Chain:
    """A cluster of most pairs of a scope, linked by completions that are true in one pair and false in another."""

    scope: str
    cluster: int
    """Pairs of the cluster."""
    pairs: int
    """Pairs of the scope."""
    text: str
    """One such completion."""
    true: str
    """Id of a pair whose fact it is."""
    false: str
    """Id of a pair whose hallucination it is."""


@dataclass(frozen=True)
class Links:
    """What links pairs, and what does not; a scope is a domain or "pooled", which stands alone where it is named."""

    by: str
    """`DataOptions.cluster_by`."""
    closed: tuple[tuple[str, int], ...]
    """The closed completions as first written, each with its number of pairs; the most frequent first."""
    revealing: tuple[str, ...]
    """Scopes in which closed completions give the label away: their effects cannot be told from the label's."""
    few: tuple[Few, ...]
    chains: tuple[Chain, ...]


def find_links(
    builder: GroupBuilder,
    groups: np.ndarray,
    items: Callable[[], Iterator[Pair | LabelledText]],
    labels: np.ndarray | None = None,
) -> Links:
    """What is to be said of the pairs that a builder has taken in.

    Args:
        builder: their hashes and domains.
        groups: (pair,) number of each pair's group.
        items: reads them again, for the texts that are named.
        labels: (text,) whether each labelled text is true.
    """
    closed = builder.closed()
    numbers = closed.numbers(builder.completion_hashes)
    scopes = list(scopes_of(builder.domains, builder.domain))
    few = [Few(scope, len(np.unique(groups[rows])), len(rows)) for scope, rows in scopes]
    few = [found for found in few if found.clusters < FEWEST_CLUSTERS]
    if labels is None:
        revealing = [scope for scope, rows in scopes if _gives_away(numbers[rows])]
    else:
        revealing = [scope for scope, rows in scopes if _labels_given_away(numbers[rows, 0], labels[rows])]
    chains = _chains(builder, groups, scopes) if builder.by in ("both", "completion") else []
    places = np.unique(numbers, return_index=True)[1][-len(closed.keys) :] if len(closed.keys) else []
    wanted = {int(place) for place in places} | {place for chain in chains for place in chain[3:]}
    texts = _looked_up(items, wanted)
    answers = [(texts[int(place)][0], int(many)) for place, many in zip(places, closed.pairs, strict=True)]
    return Links(
        by=builder.by,
        closed=tuple(sorted(answers, key=lambda answer: (-answer[1], answer[0]))),
        revealing=tuple(revealing[:1] if POOLED in revealing else revealing),
        few=tuple(few[:1] if few and few[0].scope == POOLED else few),
        chains=tuple(
            Chain(scope, cluster, size, *texts[true], texts[false][1]) for scope, cluster, size, true, false in chains
        ),
    )


def scopes_of(domains: Sequence[str], domain: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """All pairs as "pooled", then each domain (unless there is but one), with the positions of its pairs.

    Args:
        domains: their names.
        domain: (pair,) index into them.
    """
    yield POOLED, np.arange(len(domain))
    if len(domains) > 1:
        order = np.argsort(domain, kind="stable")
        ends = np.cumsum(np.bincount(domain, minlength=len(domains)))
        yield from zip(domains, np.split(order, ends[:-1]), strict=True)


def _gives_away(numbers: np.ndarray) -> bool:
    """Whether effects of the closed completions can pass for the label's: each hallucination's is its fact's plus 1.

    In the statistics' model: the column of ones lies in the span of theirs, +1 for a hallucination, -1 for a fact.

    Args:
        numbers: (pair, 2) the closed completion that is the fact and the hallucination; -1 where it is open.
    """
    if not (numbers >= 0).any(axis=1).all():
        return False  # a pair whose completions are open has no such effect
    steps: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    width = int(numbers.max()) + 2
    for kind in np.unique((numbers[:, 0] + 1) * width + numbers[:, 1] + 1).tolist():
        fact, hallucination = divmod(kind, width)
        steps[fact].append((hallucination, 1))
        steps[hallucination].append((fact, -1))
    effects: dict[int, int] = {}
    for start in sorted(steps):  # 0, which stands for all that is open, has no effect of its own
        waiting = [] if start in effects else [start]
        effects.setdefault(start, 0)
        while waiting:
            one = waiting.pop()
            for other, step in steps[one]:
                if other not in effects:
                    effects[other] = effects[one] + step
                    waiting.append(other)
                elif effects[other] != effects[one] + step:
                    return False
    return True


def _labels_given_away(numbers: np.ndarray, labels: np.ndarray) -> bool:
    """Whether every text's completion is closed, and says by itself whether the text is true.

    Args:
        numbers: (text,) the closed completion that each is; -1 where it is open.
        labels: (text,) whether it is true.
    """
    if (numbers < 0).any():
        return False
    return not set(numbers[labels].tolist()) & set(numbers[~labels].tolist())


def _chains(
    builder: GroupBuilder, groups: np.ndarray, scopes: Sequence[tuple[str, np.ndarray]]
) -> list[tuple[str, int, int, int, int]]:
    """Fields of `Chain`, with places in the list of all completions in place of text and ids."""
    large: dict[int, tuple[str, np.ndarray]] = {}
    for scope, rows in scopes:
        found, sizes = np.unique(groups[rows], return_counts=True)
        if sizes.max() >= CHAINED_PAIRS and sizes.max() > CHAINED_SHARE * len(rows):
            large.setdefault(int(found[sizes.argmax()]), (scope, rows))
    if not large:
        return []
    completions = builder.completion_hashes
    swapped = np.intersect1d(*completions.T)
    parts = builder.groups(apart=swapped).numbers()
    chains: list[tuple[str, int, int, int, int]] = []
    for group, (scope, rows) in large.items():
        inside = rows[groups[rows] == group]
        if np.bincount(parts[inside]).max() <= CHAINED_SHARE * len(rows):
            _, true, false = np.intersect1d(*completions[inside].T, return_indices=True)
            first = np.minimum(true, false).argmin()
            places = int(inside[true[first]]) * 2, int(inside[false[first]]) * 2 + 1
            chains.append((scope, len(inside), len(rows), *places))
    return chains


def _looked_up(items: Callable[[], Iterator[Pair | LabelledText]], places: set[int]) -> dict[int, tuple[str, str]]:
    """Text and item's id of each of these completions; an item's first is at twice its position, then the other."""
    found: dict[int, tuple[str, str]] = {}
    for position, item in zip(range(max(places, default=-1) // 2 + 1), items(), strict=False):
        texts = (item.completion,) if isinstance(item, LabelledText) else (item.fact, item.hallucination)
        for side, text in enumerate(texts):
            if 2 * position + side in places:
                found[2 * position + side] = text, item.id
    return found
