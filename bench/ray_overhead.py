"""What Ray costs: the same pairs measured in this process and by workers on the same cores.

Run it on an idle machine; it prints the seconds of both and the overhead, and fails if their tables differ by more than
rounding.

    python bench/ray_overhead.py --pairs 200000 --workers 2
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from polars.testing import assert_frame_equal

from bluffscope.api import config_from, run
from bluffscope.compare.bench.texts import write_pairs
from bluffscope.runs.run import RunResult


def timed(data: Path, out: Path, **options: object) -> tuple[RunResult, float, float]:
    """A run, its seconds in all, and those after everything was loaded."""
    begun = time.perf_counter()
    result = run(config_from(data=str(data), out=out, **options), draw=False)
    total = time.perf_counter() - begun
    timings = result.manifest["timings"]
    return result, total, timings["total"] - timings["load"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2, help="each with its share of the cores")
    parser.add_argument("--shard-pairs", type=int, default=256)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bluffscope-overhead-") as scratch:
        folder = Path(scratch)
        data = write_pairs(folder / "pairs.jsonl", chosen.pairs)
        same = {"shard_pairs": chosen.shard_pairs}
        ray, ray_total, ray_after = timed(data, folder / "ray", engine="ray", workers=chosen.workers, **same)
        workers = ray.manifest["workers"]
        torch.set_num_threads(workers["number"] * workers["threads"])
        local, local_total, local_after = timed(data, folder / "local", **same)
        assert_frame_equal(local.metrics(), ray.metrics(), rel_tol=1e-3, abs_tol=1e-3)
    print(f"{chosen.pairs} pairs, {chosen.shard_pairs} a shard; cores: {workers['number'] * workers['threads']}")
    for name, total, after in (("local", local_total, local_after), ("ray", ray_total, ray_after)):
        print(f"{name:<6} {total:8.1f} s in all | {after:8.1f} s once loaded | {chosen.pairs / after:7.0f} pairs/sec")
    print(f"each of {workers['number']} workers: {workers['pairs_per_second_each']:.0f} pairs/sec")
    print(f"overhead of Ray: {ray_total / local_total - 1:+.1%} in all, {ray_after / local_after - 1:+.1%} once loaded")


if __name__ == "__main__":
    main()
