"""Folds that part no group of texts and leave both labels to every training set; and what is too little for them."""

from __future__ import annotations

from typing import Final

import numpy as np

from bluffscope.detectors.texts import Texts

FEWEST_GROUPS: Final = 10
"""Two groups a fold; with fewer neither fits nor intervals mean anything."""
FEWEST_OF_A_LABEL: Final = 10
"""Labelled texts that each label needs, and groups that they must be in."""


def too_few(texts: Texts, groups: np.ndarray, labels: np.ndarray) -> str | None:
    """Why some texts are not enough for detectors; None where they are.

    Args:
        texts: all of the table.
        groups: (text,) of some of them.
        labels: (text,) likewise.
    """
    number = len(np.unique(groups))
    if number < FEWEST_GROUPS:
        return f"{number} groups of {texts.of}, fewer than {FEWEST_GROUPS}"
    for label, name in enumerate(("true", "false") if texts.per == 1 else ()):
        own = groups[labels == label]
        if len(own) < FEWEST_OF_A_LABEL:
            return f"{len(own)} {name} texts, fewer than {FEWEST_OF_A_LABEL}"
        if (number := len(np.unique(own))) < FEWEST_OF_A_LABEL:
            return f"{name} texts in {number} groups, fewer than {FEWEST_OF_A_LABEL}"
    return None


def label_folds(groups: np.ndarray, labels: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(text,) a fold for each text: shuffled groups, the largest first, each to where its labels are rarest so far.

    Where each group has as many texts of one label as of the other, as groups of pairs have, that is the fold with the
    fewest texts: `bluffscope.stats.heldout.grouped_folds`.

    Args:
        groups: (text,) numbers from 0 without gaps.
        labels: (text,) 0 or 1.
        folds: how many.
        rng: shuffles the groups.
    """
    number = int(groups.max()) + 1
    sizes = np.stack([np.bincount(groups[labels == label], minlength=number) for label in (0, 1)], axis=1)
    order = rng.permutation(number)
    order = order[np.argsort(-sizes.sum(axis=1)[order], kind="stable")]
    # Each label counts by its share: whole numbers, in Python, which is several times as fast for so few at a time.
    weighed = (sizes * np.maximum(sizes.sum(axis=0), 1)[::-1] ** 2).tolist()
    counts, filled = sizes.tolist(), [[0, 0] for _ in range(folds)]
    fold_of = np.empty(number, dtype=np.int64)
    for group in order.tolist():
        of_true, of_false = weighed[group]
        full = [true * of_true + false * of_false for true, false in filled]
        fold_of[group] = fold = full.index(min(full))
        filled[fold][0] += counts[group][0]
        filled[fold][1] += counts[group][1]
    return fold_of[groups]
