"""This package against TransformerLens and SAELens: the same job, the same results, the time each takes.

`python bench/field.py` runs, for the embedded model and the `mid` shape, the two ways of `lens_saes.py` and
the packed engine, each in a process of its own, one after the other on this machine; checks that all metrics agree;
and prints seconds a pair and their ratios. The slow ways are timed on `--pairs` pairs spread evenly over bluff200, the
engine on all of it; loading and warming up are left out, the engine's look for faults in the pairs (lint), which the
others do not take, is left out too, and nothing is drawn. The engine runs before and after the
others, so that a machine that changed its pace in between shows. Exit code 1 says that metrics differ.

Its environment: `pip install --constraint constraints.txt -r bench/requirements.txt -e .`
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import tyro

from bluffscope.api import config_from, run
from bluffscope.compare.bench.processes import fresh
from bluffscope.compare.bench.shapes import SHAPES, Shape, save_shape
from bluffscope.compare.tables import Comparison, compare

GOALS = {"guide": 100, "careful": 30}
"""Times faster than each way that the engine is meant to be, at the mid shape."""


def engine(folder: Path, layers: Sequence[int]) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Analyse all bundled pairs as `bluffscope analyze` does, but for the figures: the record, and the table."""
    options = {"model": str(folder / "model"), "sae": str(folder / "sae"), "layers": list(layers)}
    options |= {"logprob": False, "keep_residuals": False}  # as the others
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        config = config_from(**options, device="cpu", dtype="float32", out=Path(scratch) / "run")
        result = run(config, draw=False)
        timings: dict[str, float] = result.manifest["timings"]
        table = result.metrics()
    seconds = sum(seconds for stage, seconds in timings.items() if stage not in ("load", "lint", "total"))
    yield {"seconds_per_pair": seconds / len(table), "pairs": len(table), "timings": timings}, table


def lens(way: str, folder: Path, layers: Sequence[int], pairs: int) -> Iterator[dict[str, Any]]:
    """One of the field's ways."""
    from lens_saes import measured  # seconds-slow, and it patches transformers for its whole process

    yield measured(way, folder / "model", folder / "sae", layers, pairs)


def agreement(table: pl.DataFrame, rows: list[dict[str, Any]]) -> Comparison:
    """The package's own comparison, float32 tolerances, of the rows' pairs."""
    wanted = table.filter(pl.col("pair_id").is_in([row["pair_id"] for row in rows]))
    return compare(wanted, rows, "float32")


def compare_shape(shape: Shape, pairs: int) -> list[dict[str, Any]]:
    """Measure one shape every way; one record a way."""
    with tempfile.TemporaryDirectory(prefix="field-") as scratch:
        folder = Path(scratch)
        save_shape(shape, folder)
        ((first, table),) = fresh("the engine", engine, folder, shape.layers)
        ways = {way: next(fresh(way, lens, way, folder, shape.layers, pairs)) for way in GOALS}
        ((second, _),) = fresh("the engine", engine, folder, shape.layers)
    ours = [first["seconds_per_pair"], second["seconds_per_pair"]]
    packed = statistics.mean(ours)
    records: list[dict[str, Any]] = []
    for way, measured in ways.items():
        found = agreement(table, measured["rows"])
        seconds = measured["seconds"]
        records.append(
            {
                "shape": shape.name,
                "way": way,
                "dtype": "float32",
                "pairs": len(seconds),
                "seconds_per_pair": statistics.mean(seconds),
                "standard_error": statistics.stdev(seconds) / math.sqrt(len(seconds)) if len(seconds) > 1 else None,
                "times_slower": statistics.mean(seconds) / packed,
                **{f"{name}_per_pair": count / len(seconds) for name, count in measured["counts"].items()},
                "agrees": found.holds,
                "agreement": str(found),
                "threads": measured["threads"],
                "versions": measured["versions"],
            }
        )
    engine_record = {"shape": shape.name, "way": "packed", "dtype": "float32", "pairs": first["pairs"]}
    return [*records, engine_record | {"seconds_per_pair": packed, "runs": ours, "timings": first["timings"]}]


def show(records: list[dict[str, Any]]) -> None:
    """Print one line a way."""
    for record in records:
        line = f"{record['shape']:5} {record['way']:8} {record['seconds_per_pair']:9.4f} s a pair"
        if record["way"] == "packed":
            print(f"{line}, {record['pairs']} pairs; runs: " + ", ".join(f"{each:.4f}" for each in record["runs"]))
            continue
        goal = f" (goal: {GOALS[record['way']]})" if record["shape"] == "mid" else ""
        error = record["standard_error"]
        print(
            f"{line}, {record['pairs']} pairs, standard error {'unknown' if error is None else f'{error:.4f}'}: "
            f"packed is {record['times_slower']:.0f} times faster{goal}; "
            f"{record['forwards_per_pair']:.0f} forwards, {record['encodes_per_pair']:.0f} encodes, "
            f"{record['eigendecompositions_per_pair']:.0f} eigendecompositions, {record['threads']} threads"
        )
        print(f"      {'results agree' if record['agrees'] else 'RESULTS DIFFER'}: {record['agreement']}")


def main(
    shape: tuple[Literal["demo", "mid"], ...] = ("demo", "mid"), pairs: int = 20, out: Path = Path("field.json")
) -> int:
    """Measure everything and print the ratios.

    Args:
        shape: models.
        pairs: pairs that the slow ways are timed on.
        out: file of the records.
    """
    if pairs < 1:
        sys.exit(f"--pairs {pairs}: give at least 1")
    started = time.perf_counter()
    records = [record for name in shape for record in compare_shape(SHAPES[name], pairs)]
    out.write_text(json.dumps(records, indent=1), encoding="utf-8")
    show(records)
    print(f"{out} written after {time.perf_counter() - started:.0f} s")
    return 0 if all(record.get("agrees", True) for record in records) else 1


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
