"""What the verdicts do where the truth is known: the tables of docs/statistics.md. `python tools/simulate_verdicts.py`.

Each cell says what it must hold; it fails, and the exit code is 1, where a one-sided binomial test at .001 rejects
that. Seeds depend on the cell's name and the table's number alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from scipy.stats import binomtest

from bluffscope.stats.multiplicity import benjamini_hochberg
from made_up_pairs import (
    SHAPES,
    Data,
    Texts,
    closed,
    clustered,
    effect,
    length_alone,
    mirrors,
    slope,
    text_effect,
    text_groups,
    text_length,
    unequal_spread,
)
from write_simulations import tables

STRICT = 0.001
Make = Callable[[np.random.Generator], Data | Texts]
ROUGH = ("threshold", "1/L")


def significant(name: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether a p value is below .05, for the metrics that have it."""
    return lambda rows: rows[name].drop_nulls() < 0.05


def verdict(name: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether each metric has this verdict."""
    return lambda rows: rows["verdict"] == name


def any_verdict(name: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether the family has one with this verdict."""
    return lambda rows: pl.Series([(rows["verdict"] == name).any()])


def found_by(*names: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether Benjamini-Hochberg over the larger of these p values finds each metric."""
    return lambda rows: pl.Series(benjamini_hochberg(rows.select(names).to_numpy().max(axis=1)) < 0.05)


def rejected(*names: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether all of these p values are below .05."""
    return lambda rows: rows.select(names).max_horizontal() < 0.05


def alone(rows: pl.DataFrame) -> pl.Series:
    """Whether each metric would separate if it were the only one of its family."""
    same = rows["mean_diff"] * rows["adj_mean_diff"] > 0
    return same & rejected("p", "adj_p", "skew_p")(rows) & (rows["equivalence_p"] >= 0.05)


def beyond(rows: pl.DataFrame, other: Callable[[pl.DataFrame], pl.Series], share: float) -> pl.Series:
    """How much more often metrics separate than a share of what another rule finds."""
    return alone(rows).cast(pl.Float64) - share * other(rows).cast(pl.Float64)


def covers(ends: str, truth: float) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether the interval holds the truth."""
    return lambda rows: rows[f"{ends}_lo"].is_between(-np.inf, truth) & (rows[f"{ends}_hi"] >= truth)


def opposite(rows: pl.DataFrame) -> pl.Series:
    """Whether raw and adjusted effect are both significant, with opposite signs."""
    signs = rows["mean_diff"] * rows["adj_mean_diff"] < 0
    return signs & (rows["p"] < 0.05) & (rows["adj_p"] < 0.05)


def named(text: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Whether each metric's reason says this."""
    return lambda rows: rows["reason"].str.contains(text, literal=True)


@dataclass(frozen=True)
class Cell:
    """One number of one table."""

    table: str
    row: str
    column: str
    make: Make
    of: Callable[[pl.DataFrame], pl.Series]
    families: int = 500
    most: float | None = None
    least: float | None = None
    truth: float | None = None
    """Of a mean: what it must be within Monte Carlo error; None where the cell is a share."""

    @property
    def data(self) -> str:
        """What the seeds come from: cells of the same data see the same tables."""
        return f"{self.make.func.__name__} {sorted(self.make.keywords.items(), key=lambda item: item[0])}"  # type: ignore[attr-defined]


def cells() -> list[Cell]:
    """All of them, in the order of the docs."""
    of_pairs = (_nulls(), _shapes(), _slopes(), _power(), _answers(), _skew(), _large(), _coverage(), _bound())
    return [cell for part in (*of_pairs, _texts()) for cell in part]


def _nulls() -> Iterable[Cell]:
    for pairs in (20, 50, 200, 1000):
        quarter = np.maximum(0, np.arange(pairs) - pairs // 4 + 1)
        makes = {
            kind: partial(effect, pairs=pairs, dz=0.0, mean=0, kind=kind) for kind in ("normal", "t2", "ties", "skew")
        }
        makes |= {
            "spread by length": partial(unequal_spread, pairs=pairs),
            "clusters of 4": partial(clustered, pairs=pairs, groups=np.arange(pairs) // 4),
            "one cluster of a quarter": partial(clustered, pairs=pairs, groups=quarter),
            "mirrors": partial(mirrors, pairs=pairs),
            "closed answers": partial(closed, pairs=pairs, answers=("yes", "no")),
        }
        for row, make in makes.items():
            most = 0.08 if row == "skew" and pairs == 20 else 0.06
            families, column = 800 if pairs == 20 else 500, f"n = {pairs}"
            raw = "closed" not in row  # what answers do is no effect at equal wording, but it is a raw one
            yield Cell("no effect: p < .05", row, column, make, significant("p"), families, most if raw else None)
            yield Cell("no effect: adj_p < .05", row, column, make, significant("adj_p"), families, most)
            yield Cell(
                "no effect: families with `separates`", row, column, make, any_verdict("separates"), families, 0.05
            )


def _shapes() -> Iterable[Cell]:
    for size, families in ((0.5, 500), (2.0, 100)):
        for pairs in (200, 1000):
            for mean in (-1, 1, 3):
                for row in SHAPES:
                    make = partial(length_alone, pairs=pairs, shape=row, mean=mean, size=size)
                    most = None if size > 1 else 0.1 if row in ROUGH else 0.07
                    column = f"n = {pairs}, {mean:+d}"
                    yield Cell(
                        f"length alone, {size} sd: adj_p < .05", row, column, make, significant("adj_p"), families, most
                    )
                    if size < 1:
                        line = significant("linear_p")
                        yield Cell(
                            "length alone, 0.5 sd: the straight line's p < .05", row, column, make, line, families
                        )
                        found = verdict("separates")
                        yield Cell("length alone, 0.5 sd: `separates`", row, column, make, found, families)


def _slopes() -> Iterable[Cell]:
    for by in (1, 0.75, 0.5, 0.35):
        make = partial(slope, pairs=200, by=by)
        for column in ("confounded", "separates", "equivalent", "inconclusive"):
            bounds = {"confounded": (None, 0.9), "equivalent": (0.02, None)}.get(column, (None, None))
            bounds = bounds if by == 1 else (None, None)
            yield Cell(
                "length alone, a line of slope s, n = 200", f"s = {by}", column, make, verdict(column), 2000, *bounds
            )


def _power() -> Iterable[Cell]:
    for longest, dz, mean in ((8, 0.5, 1), (8, 0.2, 1), (8, 0.2, 0), (15, 0.2, 1), (15, 0.2, 0)):
        make = partial(effect, pairs=200, dz=dz, mean=mean, longest=longest)
        row = f"d_z {dz}, facts of 3 to {longest} tokens, mean dL {mean:+d}"
        columns = {
            "alone: separates": alone,
            "straight line": rejected("p", "linear_p"),
            "Wilcoxon": rejected("p_wilcoxon"),
            "of 20: separates": verdict("separates"),
            "straight line, BH": found_by("p", "linear_p"),
            "Wilcoxon, BH": found_by("p_wilcoxon"),
        }
        for column, of in columns.items():
            least = 0.97 if dz == 0.5 and "separates" in column else None
            yield Cell("power, n = 200", row, column, make, of, 500, least=least)
        if dz < 0.5:
            other = columns["straight line" if mean else "Wilcoxon"]
            kept = partial(beyond, other=other, share=0.85)
            column = f"separates - 0.85 x {'straight line' if mean else 'Wilcoxon'}"
            yield Cell("power kept, a metric alone", row, column, make, kept, 500, least=0.0, truth=0.0)
    grouped = partial(clustered, pairs=200, groups=np.arange(200) // 4, dz=0.5)
    makes = {"d_z 0.5, clusters of 4": grouped, "d_z 0.5, mirrors": partial(mirrors, pairs=200, dz=0.5)}
    for row, make in makes.items():
        yield Cell("power, n = 200", row, "of 20: separates", make, verdict("separates"))


def _answers() -> Iterable[Cell]:
    yes_no, letters = ("yes", "no"), ("A", "B", "C", "D")
    for row, answers in (("yes, no", yes_no), ("A to D", letters)):
        make = partial(closed, pairs=200, answers=answers, dz=1.0)
        yield Cell(
            "closed answers, d_z 1, n = 200", f"{row}, balanced", "separates", make, verdict("separates"), least=0.95
        )
    make = partial(closed, pairs=200, answers=yes_no, dz=1.0, fixed=True)
    row = "yes is always right"
    yield Cell("closed answers, d_z 1, n = 200", row, "separates", make, verdict("separates"), 100, most=0.0)
    yield Cell(
        "closed answers, d_z 1, n = 200",
        row,
        "named as the reason",
        make,
        named("gives the label away"),
        100,
        least=1.0,
    )


def _skew() -> Iterable[Cell]:
    for mean, families in ((0.0, 1000), (0.2, 1000)):
        make = partial(effect, pairs=200, dz=mean, mean=0, kind="skew")
        row = f"mean {mean}"
        columns = {
            "p < .05": (significant("p"), None if mean else 0.06),
            "adj_p < .05": (significant("adj_p"), None if mean else 0.06),
            "Wilcoxon p < .05": (significant("p_wilcoxon"), None),
            "opposite signs": (opposite, 0.001),
        }
        for column, (of, most) in columns.items():
            yield Cell("skewed noise, n = 200", row, column, make, of, families, most)
        for column in ("mean_diff", "adj_mean_diff"):
            estimates = partial(pl.DataFrame.get_column, name=column)
            yield Cell("skewed noise, n = 200: mean estimates", row, column, make, estimates, families, truth=mean)


def _large() -> Iterable[Cell]:
    make = partial(effect, pairs=20_000, dz=0.03, mean=0)
    for column, most in (("separates", 0.0), ("equivalent", None)):
        yield Cell("a trivial effect, d_z 0.03, n = 20,000", "normal", column, make, verdict(column), 100, most)


def _coverage() -> Iterable[Cell]:
    for pairs in (20, 50, 200):
        for dz in (0.0, 0.5, 1.5):
            make = partial(effect, pairs=pairs, dz=dz, mean=0)
            for column, ends in (("dz", "dz"), ("adj_dz", "adj")):
                row = f"n = {pairs}, d_z {dz}"
                yield Cell("coverage of 95 % intervals", row, column, make, covers(ends, dz), 500, least=0.915)
    for dz in (0.0, 0.5, 1.5):
        make = partial(clustered, pairs=40, groups=np.arange(40) // 4, dz=dz)
        for column, ends in (("dz", "dz"), ("adj_dz", "adj")):
            row = f"10 clusters of 4, d_z {dz}"
            yield Cell("coverage of 95 % intervals", row, column, make, covers(ends, dz), 500, least=0.91)


def _bound() -> Iterable[Cell]:
    for pairs in (200, 1000):
        make = partial(effect, pairs=pairs, dz=0.2, mean=0)
        table = "an effect at the bound, d_z 0.2"
        yield Cell(table, f"n = {pairs}", "equivalence_p < .05", make, significant("equivalence_p"), 500, 0.06)
        yield Cell(table, f"n = {pairs}", "families with `equivalent`", make, any_verdict("equivalent"), 500, 0.05)


def _texts() -> Iterable[Cell]:
    for texts in (40, 200, 1000):
        makes = {
            kind: partial(text_effect, texts=texts, g=0.0, mean=0, kind=kind)
            for kind in ("normal", "skew", "spread by length")
        }
        makes |= {
            f"groups of 4, {name}": partial(text_groups, texts=texts, mixed=mixed)
            for name, mixed in (("one label", False), ("both labels", True))
        }
        for row, make in makes.items():
            column = f"n = {texts}"
            for name in ("p", "adj_p"):
                table = f"labelled texts, no effect: {name} < .05"
                yield Cell(table, row, column, make, significant(name), most=0.06)
            table = "labelled texts, no effect: families with `separates`"
            yield Cell(table, row, column, make, any_verdict("separates"), most=0.05)
    for row in SHAPES:
        make = partial(text_length, texts=200, shape=row, mean=1, size=0.5)
        table = "labelled texts, length alone, 0.5 sd, n = 200"
        yield Cell(table, row, "adj_p < .05", make, significant("adj_p"), most=0.07)
        yield Cell(table, row, "separates", make, verdict("separates"), most=0.01)
    for g in (0.2, 0.5, 0.8):
        for mean in (0, 1):
            make = partial(text_effect, texts=200, g=g, mean=mean)
            table, row = "labelled texts, power, n = 200", f"g {g}, false texts longer by {mean}"
            yield Cell(table, row, "alone: separates", make, alone)
            yield Cell(table, row, "of 20: separates", make, verdict("separates"))
    for texts in (40, 200):
        for g in (0.0, 0.5, 1.5):
            make = partial(text_effect, texts=texts, g=g, mean=0)
            for column, ends in (("g", "g"), ("adj_g", "adj")):
                table, row = "labelled texts, coverage of 95 % intervals", f"n = {texts}, g {g}"
                yield Cell(table, row, column, make, covers(ends, g), least=0.915)


@dataclass(frozen=True)
class Result:
    """What a cell came to."""

    cell: Cell
    total: float
    squares: float
    tried: int

    @property
    def share(self) -> float:
        """Share of what was found, or the mean."""
        return self.total / self.tried if self.tried else float("nan")

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(max(0.0, self.squares / self.tried - self.share**2) / self.tried))

    @property
    def holds(self) -> bool:
        """Whether a one-sided binomial test leaves the bound standing; of a mean, a z test."""
        cell = self.cell
        if cell.truth is not None:
            below = cell.truth - self.share
            return (below if cell.least is not None else abs(below)) <= 3.3 * self.error
        sides = ((cell.most, "greater"), (cell.least, "less"))
        found = round(self.total)
        tests = (binomtest(found, self.tried, bound, side) for bound, side in sides if bound is not None and self.tried)
        return all(test.pvalue >= STRICT for test in tests)

    def __str__(self) -> str:
        if not self.tried:
            return "-"
        text = f"{100 * self.share:.1f}" if self.cell.truth is None else f"{self.share:.4f} ± {self.error:.4f}"
        return text if self.holds else f"{text} *"


def counted(places: Sequence[int], tables: range) -> np.ndarray:
    """(cell, 3) sum, sum of squares and number of values, for cells of the same data over some tables."""
    every = cells()
    wanted = [every[place] for place in places]
    found = np.zeros((len(wanted), 3))
    for number in tables:
        rng = np.random.default_rng([12, zlib.crc32(wanted[0].data.encode()), number])
        rows = wanted[0].make(rng).rows()
        for place, cell in enumerate(wanted):
            if number < cell.families:
                values = cell.of(rows).drop_nulls().cast(pl.Float64).to_numpy()
                found[place] += values.sum(), (values**2).sum(), len(values)
    return found


def run(share: float, workers: int, only: str) -> list[Result]:
    """Every cell with what it came to."""
    every = cells()
    alike: dict[str, list[int]] = {}
    for place, cell in enumerate(every):
        if only in cell.table:
            alike.setdefault(cell.data, []).append(place)
    tasks = [
        (places, range(start, min(start + 50, most)))
        for places in alike.values()
        for most in [max(1, round(share * max(every[place].families for place in places)))]
        for start in range(0, most, 50)
    ]
    totals = np.zeros((len(every), 3))
    # Not by fork: polars has threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [(places, pool.submit(counted, places, tables)) for places, tables in tasks]
        for places, job in jobs:
            totals[places] += job.result()
    results = (
        Result(cell, total, squares, int(tried)) for cell, (total, squares, tried) in zip(every, totals, strict=True)
    )
    return [result for result in results if only in result.cell.table]


def main() -> int:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the tables, for a quick look")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="tables whose title holds this")
    parser.add_argument("--json", type=Path, help="also write all cells to this file")
    options = parser.parse_args()
    results = run(options.share, options.workers, options.only)
    failed = [result.cell for result in results if not result.holds]
    content = [
        {name: getattr(result.cell, name) for name in ("table", "row", "column", "most", "least", "truth")}
        | {"share": result.share, "tried": result.tried, "shown": str(result)}
        for result in results
    ]
    print(tables(content))
    print(f"\n{len(results)} cells, {len(failed)} outside their bound")
    for cell in failed:
        print(f"FAILS: {cell.table}: {cell.row}, {cell.column}")
    if options.json:
        options.json.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
