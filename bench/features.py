"""Time and memory of `bluffscope features` on a made-up run of the Gemma-2-2B size.

    python bench/features.py --pairs 10000 --folder /tmp/features-run

writes a run's folder with three layers of 16384 features, of which about 70 fire in a text as unequally often as
features do (Zipf), 30 of them three times as often in hallucinations; then runs the command in a process of its own
and prints its seconds and peak memory.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import tyro

from bluffscope.cli.main import main as bluffscope
from bluffscope.compare.bench.processes import fresh
from bluffscope.host.machine import peak_rss

LAYERS = (5, 12, 20)
WIDTH = 16384
ACTIVE = 70
PLANTED = slice(100, 130)
BLOCK = 500


def rates() -> np.ndarray:
    """(feature,) how often each fires."""
    zipf = 1 / np.arange(1, WIDTH + 1) ** 0.9
    clipped = np.minimum(zipf / zipf.sum() * ACTIVE, 0.95)
    return np.minimum(clipped / clipped.sum() * ACTIVE, 1)


def block(rng: np.random.Generator, ids: pl.Series) -> pl.DataFrame:
    """The features of some pairs."""
    parts = []
    for layer, view in itertools.product(LAYERS, ("prompt", "fact", "hall")):
        rate = rates()
        if view == "hall":
            rate[PLANTED] *= 3
        pair, feature = np.nonzero(rng.random((len(ids), WIDTH)) < rate)
        fired = pl.DataFrame({"pair_id": ids[pair], "feature": feature, "activation": rng.gamma(2, 3, len(pair))})
        parts.append(fired.with_columns(view=pl.lit(view), layer=pl.lit(layer)))
    columns = ("pair_id", "view", pl.col("layer", "feature").cast(pl.Int32), pl.col("activation").cast(pl.Float32))
    return pl.concat(parts).select(*columns).sort("pair_id", maintain_order=True)


def write_run(folder: Path, pairs: int) -> int:
    """A run's folder, as far as the command reads it; returns the number of activations of facts and hallucinations."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = pl.Series([f"pair-{number:06d}" for number in range(pairs)])
    frame = pl.concat(block(rng, ids[start : start + BLOCK]) for start in range(0, pairs, BLOCK))
    frame.write_parquet(folder / "features.parquet", row_group_size=100_000)
    domain = [("entity", "temporal", "logical", "adversarial")[number % 4] for number in range(pairs)]
    columns = {"pair_id": ids, "domain": domain, "group": [f"g{number // 2}" for number in range(pairs)]}
    pl.DataFrame(columns).write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    texts = dict.fromkeys(("prompt", "fact", "hallucination"), ["-"] * pairs)
    pl.DataFrame(columns | texts).write_parquet(folder / "pairs.parquet")
    (folder / "manifest.json").write_text(json.dumps({}))
    (folder / "config.yaml").write_text("{}")
    return frame.filter(pl.col("view") != "prompt").height


def command(folder: Path) -> Iterator[tuple[str, float, float]]:
    """What the command says, its seconds, and the process's peak memory in GB."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        bluffscope(["features", str(folder)])
    yield said.getvalue(), time.perf_counter() - started, peak_rss() / 1e9


def main(folder: Path, pairs: int = 10_000) -> None:
    """Write, run, print.

    Args:
        folder: of the made-up run; must not exist.
        pairs: how many it has.
    """
    activations = write_run(folder, pairs)
    ((said, seconds, peak),) = fresh("bluffscope features", command, folder)
    print(*(line for line in said.splitlines() if line.startswith(("Layer", "Of "))), sep="\n")
    print(f"{pairs:,} pairs, {activations:,} activations: {seconds:.1f} s, {peak:.2f} GB at the most")


if __name__ == "__main__":
    tyro.cli(main)
