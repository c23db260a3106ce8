"""Settings of a process that runs this package alone: our command, Ray's workers and the benchmark's children.

A library leaves its caller's process as it is, so nothing of this happens when bluffscope is imported.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Final

ASLEEP: Final = {"OMP_WAIT_POLICY": "PASSIVE"}
"""OpenMP's threads sleep while they wait for each other, which costs a quiet machine up to a quarter of its speed on
small models. Threads that spin use up the processor time that the thread they wait for needs: next to two other
programs the same work takes 20 times as long."""
BRIEFLY: Final = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""They spin for a tenth of a millisecond (GNU's; 1 ms in LLVM's and Intel's) and then sleep: as fast as the default on
a quiet machine, and better than it where other programs start later."""
_OF_THE_USER: Final = ("OMP_WAIT_POLICY", *BRIEFLY)
_ALLOCATIONS: Final = 50_000
"""New objects between two looks for garbage; with Python's 700, imports take a fifth longer."""
_RUNNING: Final = Path("/proc/loadavg")
_LOOKS, _APART_SECONDS = 4, 0.003


def settle() -> None:
    """Make this process a good neighbour and quick to start; to be called before torch is imported.

    OpenMP reads how its threads wait when it is loaded. What the user has set in the environment stays.
    """
    gc.set_threshold(_ALLOCATIONS, 20, 20)
    if "torch" not in sys.modules:
        os.environ.update(waiting())


def waiting() -> dict[str, str]:
    """How OpenMP's threads are to wait in processes that are about to start, as environment variables.

    None where the user has set one. Results are the same whatever they say.
    """
    if any(name in os.environ for name in _OF_THE_USER):
        return {}
    return dict(ASLEEP if others_running() >= 0.5 else BRIEFLY)


def others_running() -> float:
    """Other threads on this machine that run or wait for a core, less the cores that this process leaves idle anyway.

    At least 0; one that runs for a moment only does not count. Where the system has no such number (all but Linux),
    it is taken from the load of the last minute, and 0 without one.
    """
    spare = (os.cpu_count() or 1) - len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    try:
        return max(0, min(_runnable() for _ in range(_LOOKS)) - 1 - spare)
    except (OSError, ValueError, IndexError):
        return max(0.0, os.getloadavg()[0] - 0.5 - spare) if hasattr(os, "getloadavg") else 0.0


def _runnable() -> int:
    """Threads of the machine that run or wait for a core, this one included."""
    time.sleep(_APART_SECONDS)
    return int(_RUNNING.read_text().split()[3].partition("/")[0])
