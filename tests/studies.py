"""Made-up tables for the tests of the statistics."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import strategies as st

from bluffscope.stats import Resampling

QUICK = Resampling(flips=99)
"""For tests that look at nothing that is drawn."""


def one_metric(fact, hall, lengths=None, **columns) -> pl.DataFrame:
    """A table with the metric "m"; `lengths` are hall - fact, of facts of ten tokens."""
    table = {"m_fact": np.asarray(fact, dtype=float), "m_hall": np.asarray(hall, dtype=float)} | columns
    if lengths is not None:
        lengths = np.asarray(lengths)
        table |= {"fact_tokens": np.full(len(lengths), 10), "hall_tokens": 10 + lengths}
    return pl.DataFrame(table)


def random_table(seed: int, pairs: int, kinds=("normal", "ties", "outliers", "nulls", "constant")) -> pl.DataFrame:
    """Three metrics of each kind over two domains; lengths and groups of one to three pairs, in no order."""
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {
        "domain": rng.choice(["a", "b"], pairs),
        "group": [f"g{number}" for number in rng.integers(0, max(2, pairs // 2), pairs)],
        "fact_tokens": rng.integers(1, 5, pairs),
        "hall_tokens": rng.integers(1, 6, pairs),
    }
    for kind in kinds:
        for number in range(3):
            fact = rng.normal(3, 1, pairs)
            hall = fact + rng.normal(0.1 * number, 1, pairs) + 0.2 * (columns["hall_tokens"] - columns["fact_tokens"])
            if kind == "ties":
                fact, hall = fact.round(), hall.round()
            elif kind == "outliers":
                hall = hall + rng.standard_t(1, pairs)
            elif kind == "nulls":
                fact[rng.random(pairs) < 0.1] = np.nan
                hall[rng.random(pairs) < 0.1] = np.inf
            elif kind == "constant":
                hall = fact + 0.5
            columns[f"{kind}{number}_fact"], columns[f"{kind}{number}_hall"] = fact, hall
    return pl.DataFrame(columns)


tables = st.builds(random_table, st.integers(0, 2**32 - 1), st.integers(40, 90))


def share_of_flips(sums) -> float:
    """The exact two-sided p of whole numbers under fair sign flips, by adding one group after the other."""
    sizes = np.abs(np.asarray(sums)).astype(int)
    total = int(sizes.sum())
    share = np.zeros(2 * total + 1)  # of -total, ..., total
    share[total] = 1
    for size in sizes:
        share = (np.roll(share, size) + np.roll(share, -size)) / 2
    reached = abs(int(np.sum(sums)))
    return float(share[: total - reached + 1].sum() + share[total + reached :].sum()) if reached else 1.0


def regression(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Three metrics, with outliers and with spread that grows with the first column; and columns."""
    rng = np.random.default_rng(seed)
    held = rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-3, 3, columns)
    noise = np.stack([rng.normal(size=rows), rng.standard_t(2, rows), rng.exponential(size=rows)], axis=1)
    spread = 1 + (np.abs(held[:, :1]) / np.abs(held[:, :1]).max() if columns else 0)
    return 3 + noise * spread, held


def jackknife(values, columns, clusters, target) -> tuple[np.ndarray, np.ndarray]:
    """The coefficient of each metric and its error: a fit without each cluster, by least squares."""

    def fitted(rows):
        return np.linalg.lstsq(np.column_stack([target, columns])[rows], values[rows], rcond=None)[0][0]

    whole = fitted(np.ones(len(values), dtype=bool))
    others = np.array([fitted(clusters != one) for one in np.unique(clusters)])
    return whole, np.sqrt(((others - whole) ** 2).sum(axis=0))


def closed_answers(
    seed: int, pairs: int, effect: float = 0.0, kinds=("normal", "outliers")
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A `random_table` and its pairs: a third yes or no, a third A to C, the others with words of their own.

    Which answer is right is tossed, and each answer has an effect of its own on every metric.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, pairs)
    sides = []
    for row in range(pairs):
        answers = (["yes", "no"], ["A", "B", "C"], [f"word {row}", f"other {row}"])[kind[row]]
        sides.append(rng.permutation(answers)[:2].tolist())
    texts = pl.DataFrame(
        {
            "pair_id": [f"p{row}" for row in range(pairs)],
            "prompt": [f"question {row // 2}" for row in range(pairs)],
            "fact": [fact for fact, _ in sides],
            "hallucination": [hall for _, hall in sides],
        }
    )
    table = random_table(seed, pairs, kinds).drop("group").with_columns(pair_id=texts["pair_id"])
    effects = {"yes": 1.5, "A": -0.7, "B": 0.4}
    for name in [name for name in table.columns if name.endswith(("_fact", "_hall"))]:
        own = np.array([effects.get(pair[name.endswith("_hall")], 0.0) for pair in sides])
        table = table.with_columns((pl.col(name) + pl.Series(own) + effect * name.endswith("_hall")).alias(name))
    return table, texts
