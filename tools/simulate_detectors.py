"""What detectors claim where the truth is known: the tables of docs/statistics.md, "What detectors claim".

    python tools/simulate_detectors.py [--share S] [--only TEXT] [--minutes M] [--workers N] [--json FILE]

Each column says what it must hold; it fails, and the exit code is 1, where a one-sided binomial test at .001 rejects
that. Seeds depend on the row's name and the data set's number alone. With `--json FILE` a stretch of `--minutes` goes
on where the one before it ended: what FILE counts is not drawn again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
from scipy.stats import binomtest, t

from bluffscope.detectors.conformal import calibrated_alarm, calibration_part
from bluffscope.detectors.data_sets import DataSet
from bluffscope.detectors.evaluate import detect
from bluffscope.detectors.fits import fit
from bluffscope.detectors.held_out import CHANCE, Splits
from bluffscope.detectors.inputs import Views, read_inputs
from bluffscope.detectors.measures import area
from bluffscope.detectors.sweep import sweep
from bluffscope.detectors.texts import Texts
from bluffscope.detectors.transfer import carried_over
from bluffscope.records import STATEMENTS
from bluffscope.stats import Resampling
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.study import numbered
from bluffscope.table.reader import read_run
from write_simulations import tables

STRICT = 0.001
AT_ONCE = 10
"""Data sets between two looks at the clock."""
WIDTH = 8
"""Dimensions of the residual stand-in."""
REPEATS = 5
ALPHA = 0.05
WORDS = ("one", "two", "ice", "rain", "water", "cold")

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(text, WIDTH) values that know nothing of the (text,) labels, and (text,) groups."""


def pairs(rng: np.random.Generator, n: int) -> Drawn:
    """N pairs whose sides are drawn apart."""
    return rng.normal(size=(2 * n, WIDTH)), np.repeat([0, 1], n), np.tile(np.arange(n), 2)


def mirrored(rng: np.random.Generator, n: int) -> Drawn:
    """N pairs, a group each, whose sides lie on either side of what they share."""
    shared, apart = rng.normal(size=(n, WIDTH)), 0.5 * rng.normal(size=(n, WIDTH))
    return np.concatenate([shared + apart, shared - apart]), np.repeat([0, 1], n), np.tile(np.arange(n), 2)


def mixed_groups(rng: np.random.Generator, n: int) -> Drawn:
    """N labelled texts in groups of 1 to 4 that are alike, each with labels of both kinds."""
    groups = numbered(np.repeat(np.arange(n), rng.integers(1, 5, n))[:n])
    return rng.normal(size=(n, WIDTH)) + rng.normal(size=(n, WIDTH))[groups], rng.integers(0, 2, n), groups


def groups_of_a_label(rng: np.random.Generator, n: int) -> Drawn:
    """The same, but all texts of a group have one label."""
    values, _, groups = mixed_groups(rng, n)
    return values, rng.integers(0, 2, n)[groups], groups


KINDS: dict[str, Callable[[np.random.Generator, int], Drawn]] = {
    "pairs": pairs,
    "mirrored pairs": mirrored,
    "texts, groups of both labels": mixed_groups,
    "texts, groups of one label": groups_of_a_label,
}


class Column(NamedTuple):
    """What is asked of each data set, and the bounds of the share of those of which it is true."""

    name: str
    most: float | None = None
    least: float | None = None
    average: bool = False
    """Of shares: their mean itself lies between the bounds."""


@dataclass(frozen=True)
class Row:
    """Data sets of one kind, and what they are asked."""

    table: str
    name: str
    columns: tuple[Column, ...]
    answers: Callable[[np.random.Generator], Sequence[float]]
    """What each column comes to in one data set."""
    times: int = 2000

    def totals(self, numbers: Sequence[int]) -> np.ndarray:
        """(column,) sums of the answers over some data sets."""
        seed = zlib.crc32(f"{self.table} {self.name}".encode())
        drawn = [self.answers(np.random.default_rng([16, seed, number])) for number in numbers]
        return np.array(drawn, dtype=float).sum(axis=0)


def rows() -> list[Row]:
    """All of them, in the order of the docs."""
    found: list[Row] = []
    claims = (Column("95 % interval holds .5", least=0.93), Column("t of all fits"), Column("gain claimed", most=0.025))
    for kind in KINDS:
        found += [Row("nothing is there", f"{kind}, n = {n}", claims, partial(nothing, kind, n)) for n in (60, 200)]
    claims = (Column("chosen: above .5", most=0.05), Column("best of 16, as if alone: above .5"))
    found += [Row("sweep of 8 layers where nothing is there", f"n = {n}", claims, partial(swept, n)) for n in (60, 200)]
    claims = (Column("false alarms, mean", most=0.055, least=0.035, average=True), Column("over 7.5 %"))
    found.append(Row("threshold for alpha .05", "200 groups", claims, alarms, 1000))
    for words in ("residuals know nothing", "residuals hold the word and noise"):
        claims = (Column("residual beats text", most=0.025), Column("mean difference beats text", most=0.025))
        told = partial(told_by_words, 2.0 * words.startswith("residuals hold"))
        found.append(Row("the words alone tell, n = 200", words, claims, told))
    for n, times, least in ((200, 500, None), (600, 500, None), (3000, 100, 0.9)):
        claims = (
            Column("shared: carries over", least=least),
            Column("shared: or partly", least=0.9),
            Column("not shared: chance", least=least),
            Column("not shared: or unclear", least=0.9),
            Column("not shared: carries over", most=0.01),
        )
        found.append(Row("a direction that data sets share or not", f"n = {n}", claims, partial(carried, n), times))
    claims = (Column("carries over or partly", most=0.025), Column("text above .5"))
    found.append(Row("transfer where the words alone tell", "n = 200", claims, words_carried, 500))
    return found


def nothing(kind: str, size: int, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Whether the intervals (this, and one with t of all fits) hold .5, and whether a gain is shown."""
    values, labels, groups = KINDS[kind](rng, size)
    lengths = rng.integers(1, 12, len(labels)).astype(float)[:, None]
    splits = Splits.drawn(groups, labels, REPEATS, rng)

    def areas(detector: str, columns: np.ndarray) -> np.ndarray:
        def scored(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            return fit(detector, columns[train], labels[train], groups[train]).probabilities(columns[test])

        return splits.by_fit(area, splits.scores(scored))

    own, other = areas("residual", values), areas("length", lengths)
    value, lo, hi = splits.estimated(own)
    narrow = (hi - value) * float(t.isf(0.025, len(own) - 1) / t.isf(0.025, len(own) // REPEATS - 1))
    return lo <= CHANCE <= hi, abs(value - CHANCE) <= narrow, splits.gained(own, [other]).lo > 0


def swept(size: int, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether a sweep says that what it chose, and that the best of its cells, lies above .5."""
    layers, (_, labels, groups) = 8, mixed_groups(rng, size)
    table = pl.DataFrame({"text_id": map(str, range(size)), "group": map(str, groups), "label": labels == 0})
    values = rng.normal(size=(size, layers, WIDTH)) + rng.normal(size=(size, layers, WIDTH))[groups]
    ids = table["text_id"].gather(np.repeat(np.arange(size), layers))
    kept = residuals(ids, np.tile(np.arange(layers), size), values.reshape(-1, WIDTH))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        metrics = table.with_columns(m=pl.Series(rng.normal(size=size)))
        metrics.write_parquet(run / "metrics.parquet", metadata={"schema_version": "1"})
        kept.write_parquet(run / "residuals.parquet")
        (run / "manifest.json").write_text("{}", encoding="utf-8")
        found = sweep(read_run(run), Resampling(repeats=2, seed=int(rng.integers(1 << 31))))
    best = found.rows.sort("auroc")[-1]
    return found.chosen["lo"] > CHANCE, best["lo"].item() > CHANCE


def residuals(ids: pl.Series, layers: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    """(row, WIDTH) residuals as a run of statements keeps them."""
    columns = {"text_id": ids, "view": ["text"] * len(ids), "layer": layers, "token": np.full(len(ids), 3)}
    return pl.DataFrame(columns | {"values": pl.Series(values).cast(pl.List(pl.Float32))})


def alarms(rng: np.random.Generator) -> tuple[float, bool]:
    """Share of fresh true texts above the threshold of 200 groups, and whether it is over 7.5 %."""
    sizes = rng.integers(1, 4, 400)
    groups = np.concatenate([np.repeat(np.arange(400), sizes)] * 2)
    labels = np.repeat([0, 1], len(groups) // 2)
    values = rng.normal(size=(400, WIDTH))[groups] + rng.normal(size=(len(groups), WIDTH)) + labels[:, None]
    apart = calibration_part(groups, rng)
    scores = fit("residual", values[~apart], labels[~apart], groups[~apart]).scores
    true = apart & (labels == 0)
    alarm = calibrated_alarm(scores(values[true]), groups[true], ALPHA, rng)
    fresh = scores(rng.normal(0, np.sqrt(2), (10_000, WIDTH)))
    share = float((fresh > alarm.threshold).mean())
    return share, share > 0.075


def made_set(name: str, rng: np.random.Generator, values: np.ndarray, labels: np.ndarray, said: list[str]) -> DataSet:
    """Labelled texts, two a group."""
    size = len(labels)
    ids = pl.Series([f"{name}{number}" for number in range(size)])
    metrics, lengths = rng.normal(size=(size, 1)), rng.integers(1, 12, size).astype(float)
    whole = (Scope(POOLED, np.arange(size)),)
    texts = Texts(STATEMENTS, ("m",), metrics, lengths, {}, labels, np.arange(size) // 2, whole)
    kept = residuals(ids, np.full(size, 4), values)
    views = Views(pl.DataFrame({"completion": said}), ids, kept.lazy())
    return DataSet(name, texts, read_inputs(texts, views, 0), views, said)


def worded(rng: np.random.Generator, labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """(text,) two words of a handful and one that tells the (text,) label in 4 of 5 texts; and that word, 0 or 1."""
    known = np.where(rng.random(len(labels)) < 0.8, labels, 1 - labels)
    return [f"{' '.join(rng.choice(WORDS, 2))} {('yes', 'no')[word]}" for word in known], known


def told_by_words(held: float, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether a detector on residuals, which hold the telling word so strongly, is said to beat the words."""
    size = 200
    labels = rng.permutation(np.repeat([0, 1], size // 2))
    said, known = worded(rng, labels)
    values = rng.normal(size=(size, WIDTH))
    values[:, 0] += held * known
    made = made_set("made", rng, values, labels, said)
    names = ("length", "text", "mean_difference", "residual")
    found = detect(made.texts, made.views, Resampling(seed=int(rng.integers(1 << 31))), names).rows
    claimed = dict(found.select("detector", pl.col("gain_lo") > 0).iter_rows())
    return claimed["residual"], claimed["mean_difference"]


def carried(size: int, rng: np.random.Generator) -> tuple[bool, ...]:
    """What transfer says of a direction that two data sets share, and of one that a third does not."""
    sets: list[DataSet] = []
    for name, axis in (("a", 0), ("b", 0), ("c", 1)):
        labels = rng.permutation(np.repeat([0, 1], size // 2))
        values = rng.normal(size=(size, WIDTH))
        values[:, axis] += 2 * labels
        sets.append(made_set(name, rng, values, labels, rng.choice(WORDS, size).tolist()))
    found = carried_over(sets, ["residual"], Resampling(repeats=2, seed=int(rng.integers(1 << 31))))
    said = dict(found.filter(detector="residual", train="a").select("test", "verdict").iter_rows())
    shared, other = said["b"], said["c"]
    return (
        shared == "carries over",
        shared in ("carries over", "partly"),
        other == "chance",
        other in ("chance", "unclear"),
        other == "carries over",
    )


def words_carried(rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether residuals that hold the telling word and noise are said to carry over, and whether the words do."""
    size, sets = 200, []
    for name in "ab":
        labels = rng.permutation(np.repeat([0, 1], size // 2))
        said, known = worded(rng, labels)
        values = rng.normal(size=(size, WIDTH))
        values[:, 0] += 2 * known
        sets.append(made_set(name, rng, values, labels, said))
    found = carried_over(sets, ["residual"], Resampling(repeats=2, seed=int(rng.integers(1 << 31))))
    cell = {row["detector"]: row for row in found.filter(train="a", test="b").to_dicts()}
    return cell["residual"]["verdict"] in ("carries over", "partly"), cell["text"]["lo"] > CHANCE


class Counted(NamedTuple):
    """What the data sets of a row have come to."""

    tried: int
    totals: np.ndarray
    """(column,) sums."""


def holds(column: Column, counted: int, total: float) -> bool:
    """Whether a column is within its bounds, or so little beyond them that chance explains it."""
    if column.average:
        return (column.least or 0.0) <= total / counted <= (column.most or 1.0)
    sides = ((column.most, "greater"), (column.least, "less"))
    return all(
        binomtest(round(total), counted, bound, side).pvalue >= STRICT for bound, side in sides if bound is not None
    )


def totals(place: int, numbers: Sequence[int]) -> np.ndarray:
    """`Row.totals` of one of `rows`, in a process of its own."""
    return rows()[place].totals(numbers)


def counted_so_far(file: Path | None, every: Sequence[Row]) -> list[Counted]:
    """What an earlier stretch has counted, by table, row and column."""
    kept: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else []
    known = {(cell["table"], cell["row"], cell["column"]): cell for cell in kept}
    found: list[Counted] = []
    for row in every:
        cells = [known.get((row.table, row.name, column.name)) for column in row.columns]
        whole = [cell for cell in cells if cell is not None]
        if len(whole) == len(cells):
            found.append(Counted(whole[0]["tried"], np.array([cell["total"] for cell in whole], dtype=float)))
        else:
            found.append(Counted(0, np.zeros(len(cells))))
    return found


def cells(every: Sequence[Row], found: Sequence[Counted]) -> Iterator[dict[str, Any]]:
    """Each column of each row as `write_simulations.py` takes it."""
    for row, (tried, sums) in zip(every, found, strict=True):
        about = {"table": row.table, "row": row.name, "truth": None, "tried": tried}
        for column, total in zip(row.columns, sums.tolist(), strict=True) if tried else ():
            shown = f"{100 * total / tried:.1f}{'' if holds(column, tried, total) else ' *'}"
            bounds = {"most": column.most, "least": column.least, "total": total}
            yield {**about, "column": column.name, **bounds, "share": total / tried, "shown": shown}
        if tried:
            yield {**about, "column": "data sets", "shown": f"{tried:,}"}


def main() -> int:
    """Simulate until all is counted or the time is over; print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the data sets, for a quick look")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="tables and rows (TABLE: ROW) that this regular expression finds")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--json", type=Path, help="file of all cells: read where it is there, and written")
    options = parser.parse_args()
    ends, every = time.monotonic() + 60 * options.minutes, rows()
    wanted = [max(1, round(options.share * row.times)) for row in every]
    found = counted_so_far(options.json, every)
    places = [place for place, row in enumerate(every) if re.search(options.only, f"{row.table}: {row.name}")]

    def next_ones() -> Iterator[tuple[int, range]]:
        """Data sets for each worker, of the rows of which the smallest share is done."""
        done = [one.tried for one in found]
        for _ in range(options.workers):
            if not (left := [place for place in places if done[place] < wanted[place]]):
                return
            place = min(left, key=lambda place: done[place] / wanted[place])
            yield place, range(done[place], min(done[place] + AT_ONCE, wanted[place]))
            done[place] += AT_ONCE

    # Not by fork: polars has threads.
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        while time.monotonic() < ends and (tasks := [*next_ones()]):
            for (place, numbers), sums in zip(tasks, pool.map(totals, *zip(*tasks, strict=True)), strict=True):
                found[place] = Counted(found[place].tried + len(numbers), found[place].totals + sums)
            if options.json:
                options.json.write_text(json.dumps([*cells(every, found)], indent=0) + "\n", encoding="utf-8")
    content = [*cells([every[place] for place in places], [found[place] for place in places])]
    print(tables(content))
    failed = [cell for cell in content if cell["shown"].endswith("*")]
    left = sum(max(0, wanted[place] - found[place].tried) for place in places)
    bounded = sum("total" in cell for cell in content)
    print(f"\n{bounded} cells, {len(failed)} outside their bound; {left:,} data sets are left")
    for cell in failed:
        print(f"FAILS: {cell['table']}: {cell['row']}, {cell['column']}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
