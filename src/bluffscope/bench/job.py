"""One process of the benchmark: builds a shape once, measures it one or more times, prints a record a time.

`python -m bluffscope.bench.job` reads a `Job` as JSON from standard input; `run_job` starts it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bluffscope.bench.texts import LONG_WORDS, LONG_WORDS_OF_THE_DEMO, Sharing, write_pairs
from bluffscope.config import DataOptions, EngineOptions, ModelOptions, OutputOptions, RunConfig
from bluffscope.errors import BluffscopeError

Record = dict[str, Any]
"""What was measured once; the keys of bench.json."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One stretch of work that is timed."""

    pairs: int
    batch_size: Literal["auto"] | int = "auto"
    sharing: Sharing = "bundled"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process builds, and what it measures with it."""

    shape: str
    step: str
    """What the record is called: a strategy, or a step of the ladder."""
    strategy: Literal["packed", "batched", "sequential", "separate"] = "packed"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    quantize: Literal["none", "int8"] = "none"
    measurements: tuple[Measurement, ...] = ()
    whole: bool = False
    """All blocks and the LM head, as if no layer were the last one needed."""
    text_by_text: bool = False
    """Each text in a forward of its own."""
    one_by_one: bool = False
    """Each residual encoded in a call of its own."""
    dense: bool = False
    """Geometry from the d x d matrix."""
    pooled: bool = True
    """Memory that is freed is kept, buffers are used again."""
    depth: int = 1
    """Shards read ahead and written behind; 0 for none."""
    warm_pairs: int = 1
    """Pairs measured beforehand, not counted."""
    limit: bool = False
    """Also measure this machine's matrix-product peak at the shape's sizes."""


class JobFailed(BluffscopeError, RuntimeError):
    """A process of the benchmark ended without its records."""


def run_job(job: Job) -> Iterator[Record]:
    """Run a job in a fresh process and give its records as they come.

    Raises:
        JobFailed: the process ended early; the last lines it wrote say why.
    """
    # The reference goes from torch's products to numpy's eigendecompositions and back: threads of the one that wait
    # busily would slow down the other, and make the baseline look slower than it is.
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"} if job.strategy in ("sequential", "separate") or job.dense else {}
    command = [sys.executable, "-m", "bluffscope.bench.job"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(
            command,
            env=os.environ | waiting,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(job)))
            process.stdin.close()
            for line in process.stdout:
                yield json.loads(line)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            said.seek(0)
            last = " | ".join(said.read().strip().splitlines()[-3:]) or f"exit code {process.returncode}"
            raise JobFailed(f"benchmark step {job.step!r} of shape {job.shape} failed: {last}")


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


def _records(job: Job) -> Iterator[Record]:
    from bluffscope.bench.built import build
    from bluffscope.bench.shapes import SHAPES

    started = time.perf_counter()
    built = build(job)
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
            if number == 0:  # libraries settle down, weights are touched for the first time
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
                "layers": len(built.parts.coders),
                "limit": job.limit,
                "load_seconds": load,
                **found,
            }
        if job.limit:
            yield {"shape": job.shape, "step": "limit", "dtype": job.dtype, **built.limit()}


if __name__ == "__main__":
    raise SystemExit(main())
