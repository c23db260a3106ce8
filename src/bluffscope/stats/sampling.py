"""Samples of large tables: whole groups at random, so that what stays together in a test stays together in a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from bluffscope.stats.scopes import Of
from bluffscope.table.atomic import table_errors
from bluffscope.table.reader import check_parquet

MOST_TESTED: Final = 200_000
"""Rows of a run that statistics and summaries look at: effects of d_z 0.006 are in their reach."""
SEED: Final = 0


def draw_groups(groups: pl.Series, most: int, seed: int = SEED) -> np.ndarray:
    """(row,) whether a row is drawn: all, or whole groups at random as long as they hold at most so many rows.

    Rows without a group are groups of their own. The first group drawn is taken whatever its size.

    Args:
        groups: each row's group.
        most: rows that are wanted at most.
        seed: of the choice.
    """
    if len(groups) <= most:
        return np.ones(len(groups), dtype=bool)
    alone = groups.is_null().to_numpy()
    numbers = groups.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    numbers[alone] = numbers.max(initial=0) + 1 + np.arange(int(alone.sum()))
    numbers = np.unique(numbers, return_inverse=True)[1].ravel()
    return whole_groups(numbers, np.random.default_rng(seed).permutation(int(numbers.max()) + 1), most)


def whole_groups(groups: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """(row,) whether a row is of one of the groups that come first and together hold at most so many rows.

    Args:
        groups: (row,) numbers from 0 without gaps.
        order: (group,) in which they are taken, the first whatever its size.
        most: rows that are wanted at most.
    """
    sizes = np.bincount(groups)
    taken = max(1, int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")))
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[order[:taken]] = True
    return chosen[groups]


def drawn_from(drawn: int, total: int, seed: int = SEED, of: Of = "pairs") -> str | None:
    """A sentence that says what was sampled; None where everything was taken."""
    if drawn == total:
        return None
    return f"Of {total:,} {of}, {drawn:,} were looked at: whole groups drawn at random, seed {seed}."


def read_metrics(path: Path, most: int = MOST_TESTED) -> tuple[pl.DataFrame, int]:
    """A run's metrics.parquet, or of a larger one whole groups drawn at random; and how many rows it has in all.

    Memory is bounded by what is drawn, but for a column of groups.

    Args:
        path: the run's folder.
        most: rows that are wanted at most.

    Raises:
        InputError: the table is damaged.
    """
    file = path / "metrics.parquet"
    check_parquet(file)
    scan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
    with table_errors(file):
        rows = int(scan.select(pl.len()).collect().item())
        if rows <= most:
            return pl.read_parquet(file, glob=False, hive_partitioning=False), rows
        known = "group" in scan.collect_schema().names()
        groups = scan.select("group").collect()["group"] if known else pl.Series(np.arange(rows))
        drawn = pl.DataFrame({"_row": np.flatnonzero(draw_groups(groups, most))}, schema={"_row": pl.UInt32})
        # A join and no filter by a mask: it streams.
        found = scan.with_row_index("_row").join(drawn.lazy(), on="_row", how="semi", maintain_order="left")
        return found.drop("_row").collect(engine="streaming"), rows


def pairs_of(path: Path, metrics: pl.DataFrame) -> pl.DataFrame:
    """The rows of a run's pairs.parquet (or texts.parquet) that belong to these rows of its table, in their order.

    Raises:
        InputError: the table is damaged.
    """
    key, name = ("text_id", "texts") if "text_id" in metrics.columns else ("pair_id", "pairs")
    file = path / f"{name}.parquet"
    check_parquet(file)
    with table_errors(file):
        # Those in quarantine are there too; ids are unique.
        found = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        found = found.join(metrics.lazy().select(key), on=key, how="semi").collect(engine="streaming")
    return metrics.select(key).join(found, on=key, how="left", maintain_order="left")
