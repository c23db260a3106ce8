"""Options of where work is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Where the work is done; every choice produces the same results."""

    engine: Literal["local", "ray"] = "local"
    """Run in this process, or with Ray on several cores, GPUs or machines (extra `ray`)."""
    workers: Literal["auto"] | int = "auto"
    """Number of Ray workers, each with its own copy of the model; auto is one per GPU, or one per 4 cores."""
    address: str | None = None
    """Address of a Ray cluster, HOST:PORT or auto (default: start Ray on this machine)."""
