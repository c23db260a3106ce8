"""Bluffscope: what happens inside a language model when a sentence is false."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluffscope.api.calls import analyze, run
    from bluffscope.api.detector import Detector, load_detector
    from bluffscope.api.opened import Run, read_run
    from bluffscope.compare.precision import Fidelity, measure_fidelity
    from bluffscope.config import RunConfig
    from bluffscope.errors import BluffscopeError, InputError, RunFolderError
    from bluffscope.linter import Finding, LintReport
    from bluffscope.linter.library import lint
    from bluffscope.metrics import ANALYSES, Analysis, Column, Measurement
    from bluffscope.metrics.own import UserAnalysis, per_read
    from bluffscope.runs.run import RunResult

__version__ = "0.1.0"

# Re-exported at first use (PEP 562): importing bluffscope imports no torch.
_HOMES = {
    "ANALYSES": "bluffscope.metrics",
    "Analysis": "bluffscope.metrics",
    "BluffscopeError": "bluffscope.errors",
    "Column": "bluffscope.metrics",
    "Detector": "bluffscope.api.detector",
    "Fidelity": "bluffscope.compare.precision",
    "Finding": "bluffscope.linter",
    "InputError": "bluffscope.errors",
    "LintReport": "bluffscope.linter",
    "Measurement": "bluffscope.metrics",
    "Run": "bluffscope.api.opened",
    "RunConfig": "bluffscope.config",
    "RunFolderError": "bluffscope.errors",
    "RunResult": "bluffscope.runs.run",
    "UserAnalysis": "bluffscope.metrics.own",
    "analyze": "bluffscope.api.calls",
    "measure_fidelity": "bluffscope.compare.precision",
    "lint": "bluffscope.linter.library",
    "load_detector": "bluffscope.api.detector",
    "per_read": "bluffscope.metrics.own",
    "read_run": "bluffscope.api.opened",
    "run": "bluffscope.api.calls",
}

__all__ = [
    "ANALYSES",
    "Analysis",
    "BluffscopeError",
    "Column",
    "Detector",
    "Fidelity",
    "Finding",
    "InputError",
    "LintReport",
    "Measurement",
    "Run",
    "RunConfig",
    "RunFolderError",
    "RunResult",
    "UserAnalysis",
    "__version__",
    "analyze",
    "lint",
    "load_detector",
    "measure_fidelity",
    "per_read",
    "read_run",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
