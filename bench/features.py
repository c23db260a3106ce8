"""Time and memory of `bluffscope features` on a made-up run of the Gemma-2-2B size.

    python bench/features.py --pairs 10000 --folder /tmp/features-run

writes a run's folder with three layers of 16384 features, of which about 70 fire in a text as unequally often as
features do (Zipf), 30 of them three times as often in hallucinations; then runs the command in a process of its own
and prints its seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

LAYERS = (5, 12, 20)
WIDTH = 16384
ACTIVE = 70
PLANTED = slice(100, 130)
BLOCK = 500
COMMAND = """
import sys
from bluffscope.cli.main import main
from bluffscope.host.machine import peak_rss
code = main(sys.argv[1:])
print(peak_rss(), file=sys.stderr)
sys.exit(code)
"""


def rates() -> np.ndarray:
    """(feature,) how often each fires."""
    zipf = 1 / np.arange(1, WIDTH + 1) ** 0.9
    clipped = np.minimum(zipf / zipf.sum() * ACTIVE, 0.95)
    return np.minimum(clipped / clipped.sum() * ACTIVE, 1)


def block(rng: np.random.Generator, ids: list[str]) -> pl.DataFrame:
    """The features of some pairs."""
    parts = []
    for layer in LAYERS:
        for view in ("prompt", "fact", "hall"):
            rate = rates()
            if view == "hall":
                rate[PLANTED] *= 3
            pair, feature = np.nonzero(rng.random((len(ids), WIDTH)) < rate)
            parts.append(
                pl.DataFrame(
                    {
                        "pair_id": pl.Series(ids)[pair],
                        "view": [view] * len(pair),
                        "layer": np.full(len(pair), layer, np.int32),
                        "feature": feature.astype(np.int32),
                        "activation": rng.gamma(2, 3, len(pair)).astype(np.float32),
                    }
                )
            )
    return pl.concat(parts).sort("pair_id", maintain_order=True)


def write_run(folder: Path, pairs: int) -> int:
    """A run's folder, as far as the command reads it; gives the number of activations of facts and hallucinations."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = [f"pair-{number:06d}" for number in range(pairs)]
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


def main() -> None:
    """Write, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, required=True, help="must not exist")
    options = parser.parse_args()
    activations = write_run(options.folder, options.pairs)
    command = [sys.executable, "-c", COMMAND, "features", str(options.folder)]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    seconds = time.perf_counter() - started
    peak = int(done.stderr.splitlines()[-1]) / 1e9
    lines = [line for line in done.stdout.splitlines() if line.startswith(("Layer", "Of "))]
    lines.append(f"{options.pairs:,} pairs, {activations:,} activations: {seconds:.1f} s, {peak:.2f} GB at the most")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
