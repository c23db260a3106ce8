"""One process of the benchmark: builds a shape once, measures it one or more times, prints a record a time.

`python -m bluffscope.compare.bench.child` reads a `Job` as JSON from standard input; `bench.job.run_job` starts it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bluffscope.compare.bench.built import Built
from bluffscope.compare.bench.shapes import SHAPES
from bluffscope.compare.bench.spec import Job, Measurement
from bluffscope.compare.bench.texts import LONG_WORDS, LONG_WORDS_OF_THE_DEMO, write_pairs
from bluffscope.config import DataOptions, EngineOptions, ModelOptions, OutputOptions, RunConfig


def main() -> int:
    """Read a job, measure, print the records."""
    given = json.load(sys.stdin)
    given["measurements"] = tuple(Measurement(**item) for item in given["measurements"])
    logging.getLogger("bluffscope").setLevel(logging.ERROR)
    job = Job(**given)
    for record in _records(job):
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()
    return 0


def _records(job: Job) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    built = Built(job)
    layers = len(built.parts.coders)
    load = time.perf_counter() - started
    with tempfile.TemporaryDirectory(prefix="bluffscope-bench-") as scratch:
        for number, measurement in enumerate(job.measurements):
            words = LONG_WORDS_OF_THE_DEMO if SHAPES[job.shape].embedded else LONG_WORDS
            data = write_pairs(Path(scratch) / f"{number}.jsonl", measurement.pairs, measurement.sharing, words)
            config = RunConfig(
                data=DataOptions(data=str(data)),
                model=ModelOptions(
                    model=job.shape, sae=job.shape, device="cpu", dtype=job.dtype, quantize=job.quantize
                ),
                engine=EngineOptions(strategy=job.strategy, batch_size=measurement.batch_size),
                output=OutputOptions(out=Path(scratch) / f"run-{number}"),
            )
            if (
                number == 0 and job.strategy != "separate"
            ):  # libraries settle down, weights are touched for the first time
                warm = replace(config.output, out=Path(scratch) / "warm")
                built.measure(replace(config, output=warm, data=replace(config.data, limit=job.warm_pairs)))
            found = built.measure(config)
            yield {
                "shape": job.shape,
                "step": job.step,
                "strategy": job.strategy,
                "dtype": job.dtype,
                "quantize": job.quantize,
                **dataclasses.asdict(measurement),
                "layers": layers,
                "limit": job.limit,
                "load_seconds": load,
                **found,
            }
        if job.limit:
            yield {"shape": job.shape, "step": "limit", "dtype": job.dtype, **built.limit()}


if __name__ == "__main__":
    raise SystemExit(main())
