"""Jobs of the benchmark, each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bluffscope.bench.spec import Job
from bluffscope.errors import BluffscopeError

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
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"} if job.strategy in ("sequential", "separate") or job.dense else {}
    command = [sys.executable, "-m", "bluffscope.bench.child"]
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
