"""How often a detector's interval holds its true AUROC, and how often a gain is claimed where there is none.

    python tools/simulate_detectors.py [DATA SETS] [WORKERS]

The table of docs/statistics.md. Seeds depend on the kind of data, its size and the data set's number alone. A cell
fails, and the exit code is 1, where a one-sided binomial test at .001 rejects what it must hold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from bluffscope.detectors.fits import fit
from bluffscope.detectors.held_out import CHANCE, Splits
from bluffscope.detectors.measures import area
from bluffscope.stats.study import numbered

WIDTH = 8
"""Dimensions of the residual stand-in."""
REPEATS = 5
SIZES = (60, 200)
COVERED, CLAIMED = 0.93, 0.025
"""At least this share of intervals holds .5; at most this share of data sets shows a gain."""

Texts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(text, WIDTH) values that know nothing of the (text,) labels, and (text,) groups."""


def pairs(rng: np.random.Generator, n: int) -> Texts:
    """N pairs whose sides are drawn apart."""
    return rng.normal(size=(2 * n, WIDTH)), np.repeat([0, 1], n), np.tile(np.arange(n), 2)


def mirrored(rng: np.random.Generator, n: int) -> Texts:
    """N pairs, a group each, whose sides lie on either side of what they share."""
    shared, apart = rng.normal(size=(n, WIDTH)), 0.5 * rng.normal(size=(n, WIDTH))
    return np.concatenate([shared + apart, shared - apart]), np.repeat([0, 1], n), np.tile(np.arange(n), 2)


def mixed_groups(rng: np.random.Generator, n: int) -> Texts:
    """N labelled texts in groups of 1 to 4 that are alike, each with labels of both kinds."""
    groups = numbered(np.repeat(np.arange(n), rng.integers(1, 5, n))[:n])
    return rng.normal(size=(n, WIDTH)) + rng.normal(size=(n, WIDTH))[groups], rng.integers(0, 2, n), groups


def groups_of_a_label(rng: np.random.Generator, n: int) -> Texts:
    """The same, but all texts of a group have one label."""
    values, _, groups = mixed_groups(rng, n)
    return values, rng.integers(0, 2, n)[groups], groups


KINDS: dict[str, Callable[[np.random.Generator, int], Texts]] = {
    "pairs": pairs,
    "mirrored pairs": mirrored,
    "texts, groups of both labels": mixed_groups,
    "texts, groups of one label": groups_of_a_label,
}


def one(kind: str, size: int, number: int) -> tuple[bool, bool, bool]:
    """Whether the intervals (this, and one with t of all fits) hold .5, and whether a gain is shown."""
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = np.random.default_rng([list(KINDS).index(kind), size, number])
    values, labels, groups = KINDS[kind](rng, size)
    lengths = rng.integers(1, 12, len(labels)).astype(float)[:, None]
    splits = Splits.drawn(groups, labels, REPEATS, rng)
    areas = [
        splits.by_fit(
            area,
            splits.scores(
                lambda train, test, x=x, on=on: fit(on, x[train], labels[train], groups[train]).probabilities(x[test])
            ),
        )
        for on, x in (("residual", values), ("length", lengths))
    ]
    value, lo, hi = splits.estimated(areas[0])
    narrow = (hi - value) * _ratio(len(areas[0]))
    return lo <= CHANCE <= hi, abs(value - CHANCE) <= narrow, splits.gained(areas[0], areas[1:]).lo > 0


def _ratio(fits: int) -> float:
    from scipy.stats import t  # only here

    return float(t.isf(0.025, fits - 1) / t.isf(0.025, fits // REPEATS - 1))


def main() -> int:
    """Print a line a kind and size."""
    from scipy.stats import binom  # only here

    times, workers = (int(given) for given in (*sys.argv[1:3], *("2000", "2")[len(sys.argv) - 1 :]))
    out, failed = sys.stdout, False
    out.write(f"{times} data sets each; {REPEATS} repeats of 5 folds\n")
    out.write(f"{'':30}{'n':>5}{'covered':>9}{'(t of all fits)':>17}{'gain claimed':>14}\n")
    with ProcessPoolExecutor(workers) as pool:
        for kind in KINDS:
            for size in SIZES:
                found = np.array(list(pool.map(partial(one, kind, size), range(times), chunksize=20)))
                covered, narrow, claimed = found.mean(axis=0)
                missed = binom.sf(times - found[:, 0].sum() - 1, times, 1 - COVERED)
                failed |= bool(missed < 0.001 or binom.sf(found[:, 2].sum() - 1, times, CLAIMED) < 0.001)
                out.write(f"{kind:30}{size:5}{100 * covered:8.1f}%{100 * narrow:16.1f}%{100 * claimed:13.1f}%\n")
                out.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
