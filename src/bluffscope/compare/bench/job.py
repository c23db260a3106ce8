"""Jobs of the benchmark, each in a fresh process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from threading import Timer
from typing import Any

from bluffscope.compare.bench.spec import Job
from bluffscope.errors import BluffscopeError
from bluffscope.host.own_process import ASLEEP, BRIEFLY, waiting

RECORD_SECONDS = 4 * 3600.0
"""How long a measurement may take before it counts as hanging."""
Record = dict[str, Any]
"""What was measured once; the keys of bench.json."""


class JobFailed(BluffscopeError, RuntimeError):
    """A process of the benchmark ended without its records."""


def run_job(job: Job) -> Iterator[Record]:
    """Run a job in a fresh process and give its records as they come.

    Raises:
        JobFailed: the process ended early; the last lines it wrote say why.
    """
    # The reference goes from torch's products to numpy's eigendecompositions and back: threads of the one that wait
    # busily would slow down the other, and make the baseline look slower than it is.
    asleep = job.strategy in ("sequential", "separate") or job.dense
    environment = {name: value for name, value in os.environ.items() if not (asleep and name in BRIEFLY)}
    environment |= ASLEEP if asleep else waiting()
    command = [sys.executable, "-m", "bluffscope.compare.bench.child"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        watch = _killing(process)
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died; what it said comes below
                process.stdin.write(json.dumps(asdict(job)))
                process.stdin.close()
            for line in process.stdout:
                watch.cancel()
                yield json.loads(line)
                watch = _killing(process)
        except BaseException:
            process.kill()
            raise
        finally:
            watch.cancel()
        if process.wait(timeout=60) != 0:
            said.seek(0)
            last = " | ".join(said.read().strip().splitlines()[-3:]) or f"exit code {process.returncode}"
            raise JobFailed(f"benchmark step {job.step!r} of shape {job.shape} failed: {last}")


def _killing(process: subprocess.Popen[str]) -> Timer:
    """Ends a process that takes too long for its next record, unless it is cancelled."""
    timer = Timer(RECORD_SECONDS, process.kill)
    timer.daemon = True
    timer.start()
    return timer
