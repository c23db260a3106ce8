"""Where a run's time went: for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_WORKING: Final = ("tokenise", "forward", "lens", "sae", "geometry")
"""Stages that take longer with more pairs."""


class Timings(NamedTuple):
    """Seconds of a run."""

    stages: dict[str, float]
    total: float | None
    """Of the run, and of its report where that is known; None where the manifest does not say."""
    rate: float | None
    """Pairs a second once everything was loaded; None with several workers, because their seconds are summed."""


def read_timings(manifest: Mapping[str, Any], total: float | None = None) -> Timings:
    """Where the time went.

    Args:
        manifest: the run's.
        total: seconds that the run and its report took together; None leaves the report out.
    """
    taken: Mapping[str, float] = manifest.get("timings", {})
    measured = taken.get("total")
    # most runs have no lens
    stages = {name: seconds for name, seconds in taken.items() if name != "total" and (seconds or name != "lens")}
    if fidelity := (manifest.get("fidelity") or {}).get("seconds"):
        stages["fidelity"] = fidelity
    if total is not None and measured is not None:
        stages["report"] = max(0.0, total - measured - stages.get("fidelity", 0.0))
    working = sum(stages.get(name, 0.0) for name in _WORKING)
    pairs = manifest.get("counts", {}).get("pairs", 0)
    rate = pairs / working if working > 0 and pairs and manifest.get("workers") is None else None
    return Timings(stages, measured if total is None or measured is None else total, rate)
