"""What the verdicts do where the truth is known: the tables of docs/statistics.md. `python tools/simulate_verdicts.py`.

Two tables: length alone makes the difference, with slopes from large to small; the same where pairs share a fact.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from bluffscope.stats import Resampling, analyse_table

PAIRS = 200
QUICK = Resampling(resamples=20, flips=99)
"""Nothing that is drawn is looked at."""


def table(rng: np.random.Generator, *, slope: float, effect: float, groups: int, alike: bool) -> pl.DataFrame:
    """Differences effect + slope dL + noise, dL of mean 1 and sd 2; pairs of a group share the value of their fact.

    Args:
        rng: draws all.
        slope: of d on dL.
        effect: at equal lengths, in standard deviations of what is left of d.
        groups: of equally many pairs; as many as pairs: nothing is shared.
        alike: whether half of dL's variance is the group's.
    """
    group = np.repeat(np.arange(groups), PAIRS // groups)
    if alike:
        lengths = (rng.normal(1, np.sqrt(2), groups)[group] + rng.normal(0, np.sqrt(2), PAIRS)).round()
    else:
        lengths = rng.normal(1, 2, PAIRS).round()
    shared = rng.normal(size=groups)[group] if groups < PAIRS else np.zeros(PAIRS)
    spread = np.sqrt(2) if groups < PAIRS else 1.0
    return pl.DataFrame(
        {
            "m_fact": shared,
            "m_hall": effect * spread + slope * lengths + rng.normal(size=PAIRS),
            "fact_tokens": np.full(PAIRS, 20),
            "hall_tokens": 20 + lengths.astype(int),
            "group": group,
        }
    )


def mirrors(rng: np.random.Generator, *, effect: float) -> pl.DataFrame:
    """Counterbalanced: a group's second pair has fact and hallucination exchanged, and a truth effect of its own."""
    number = PAIRS // 2
    lengths = rng.integers(-2, 3, number)
    completion = rng.normal(size=number) + 0.5 * lengths
    truth = rng.normal(effect, 1, number)
    difference = np.concatenate([truth + completion, truth - completion]) + rng.normal(0, 0.5, PAIRS)
    return pl.DataFrame(
        {
            "m_fact": np.zeros(PAIRS),
            "m_hall": difference,
            "fact_tokens": np.full(PAIRS, 20),
            "hall_tokens": 20 + np.concatenate([lengths, -lengths]),
            "group": np.tile(np.arange(number), 2),
        }
    )


def judged(make: Callable[[np.random.Generator], pl.DataFrame], seeds: int) -> Iterator[dict[str, Any]]:
    """The one row of each data set."""
    for seed in range(seeds):
        yield analyse_table(make(np.random.default_rng([seed, 5])), resampling=QUICK).rows.row(0, named=True)


def share(rows: list[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> str:
    """Share of the rows for which it holds."""
    return f"{100 * sum(map(holds, rows)) / len(rows):6.1f} %"


def ungrouped(row: dict[str, Any]) -> bool:
    """Whether it would separate without the grouped test at equal lengths."""
    return max(row["q"], row["q_grouped"], row["adj_q"]) < 0.05 and row["dz"] * row["adj_dz"] > 0


def by_slope(seeds: int) -> None:
    """Length alone, each pair its own group: which verdict, and what else failed."""
    print("slope  mean d_z  separates  confounded  adj_q < .05  not below half  q >= .05")
    for slope in (1, 0.75, 0.5, 0.35):
        make = partial(table, slope=slope, effect=0, groups=PAIRS, alike=False)
        rows = list(judged(make, seeds))
        shares = [
            share(rows, lambda row: row["verdict"] == "separates"),
            share(rows, lambda row: row["verdict"] == "confounded"),
            share(rows, lambda row: row["adj_q"] < 0.05),
            share(
                rows,
                lambda row: row["q"] < 0.05 <= row["adj_q"] and abs(row["adj_dz"]) >= abs(row["dz"]) / 2,
            ),
            share(rows, lambda row: row["q"] >= 0.05),
        ]
        print(f"{slope:5}  {np.mean([row['dz'] for row in rows]):8.2f}  {'   '.join(shares)}", flush=True)


def by_groups(seeds: int) -> None:
    """Dependent pairs: what the grouped test at equal lengths changes."""
    print("\ndata                              adj_p < .05  adj_p_grouped < .05  separates without it  with it")
    alone = partial(table, slope=1)
    cases = {
        "length, 200 of 1": partial(alone, effect=0, groups=200, alike=False),
        "length, 50 of 4": partial(alone, effect=0, groups=50, alike=False),
        "length, 50 of 4, lengths alike": partial(alone, effect=0, groups=50, alike=True),
        "length, 20 of 10": partial(alone, effect=0, groups=20, alike=False),
        "length, 10 of 20, lengths alike": partial(alone, effect=0, groups=10, alike=True),
        "effect 0.5, 50 of 4": partial(alone, effect=0.5, groups=50, alike=False),
        "nothing, mirrors": partial(mirrors, effect=0),
        "effect 0.5, mirrors": partial(mirrors, effect=0.5),
    }
    for name, make in cases.items():
        rows = list(judged(make, seeds))
        shares = [
            share(rows, lambda row: row["adj_p"] < 0.05),
            share(rows, lambda row: row["adj_p_grouped"] < 0.05),
            share(rows, ungrouped),
            share(rows, lambda row: row["verdict"] == "separates"),
        ]
        print(f"{name:32}  {'      '.join(shares)}", flush=True)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    by_slope(number)
    by_groups(number)
