"""Work that is measured in a fresh process: jobs of the benchmark, and scripts of bench/."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from bluffscope.compare.bench.jobs import Job
from bluffscope.errors import BluffscopeError
from bluffscope.host.own_process import ASLEEP, BRIEFLY
from bluffscope.host.quiet import environment

RECORD_SECONDS = 4 * 3600.0
"""How long a measurement may take before it counts as hanging."""
_STDERR = 2
T = TypeVar("T")
Record = dict[str, Any]
"""What was measured once; the keys of bench.json."""


class JobFailed(BluffscopeError, RuntimeError):
    """A process of the benchmark ended without its records."""


def run_job(job: Job) -> Iterator[Record]:
    """Run a job in a fresh process and give its records as they come.

    Raises:
        JobFailed: the process ended early; what it said last says why.
    """
    # The reference goes from torch's products to numpy's eigendecompositions and back: threads of the one that wait
    # busily would slow down the other, and make the baseline look slower than it is.
    idle = "dense" in job.older or job.strategy in ("sequential", "separate")
    settings: dict[str, str | None] = {**dict.fromkeys(BRIEFLY), **ASLEEP} if idle else {}
    return fresh(f"benchmark step {job.step!r} of shape {job.shape}", _records, job, settings=settings)


def fresh(
    what: str, work: Callable[..., Iterator[T]], *arguments: object, settings: Mapping[str, str | None] | None = None
) -> Iterator[T]:
    """Do some work in a fresh process and give what it yields as it comes.

    Args:
        what: what it is, for the error.
        work: a function of a module.
        arguments: what it is called with.
        settings: environment variables of the process; None removes one.

    Raises:
        JobFailed: the process ended early; what it said last says why.
    """
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, arguments))
    with environment(settings or {}):
        process.start()
    there.close()
    reason = f"nothing was heard of it for {RECORD_SECONDS:g} s"
    try:
        while here.poll(RECORD_SECONDS):
            found = here.recv()
            if found is None:
                process.join(60)  # it gives back what it holds: a process that is killed leaves semaphores
                return
            if isinstance(found, str):
                reason = found
                break
            yield found
    except EOFError:
        process.join(60)
        reason = f"exit code {process.exitcode}"
    finally:
        process.kill()
        process.join(60)
        here.close()
    raise JobFailed(f"{what} failed: {reason}")


def _records(job: Job) -> Iterator[Record]:
    from bluffscope.compare.bench.measure import records  # seconds-slow: torch

    return records(job)


def _send(there: Connection, work: Callable[..., Iterator[object]], arguments: tuple[object, ...]) -> None:
    """Send what some work yields, then None; or the reason why there is no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)  # libraries are loud while they load
    logging.getLogger("bluffscope").setLevel(logging.ERROR)
    try:
        for found in work(*arguments):
            there.send(found)
        there.send(None)
    except Exception as error:  # whatever it is, the process that asked is told
        there.send(f"{type(error).__name__}: {error}")
