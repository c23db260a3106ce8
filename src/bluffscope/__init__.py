"""Bluffscope: what happens inside a language model when a sentence is false."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluffscope.api import analyze
    from bluffscope.config import RunConfig
    from bluffscope.errors import BluffscopeError, InputError, RunFolderError
    from bluffscope.fidelity import Fidelity
    from bluffscope.linting import lint
    from bluffscope.metrics import ANALYSES, Analysis, Measurement
    from bluffscope.pairs.lint import Finding, LintReport
    from bluffscope.pipeline import UserAnalysis
    from bluffscope.run import RunResult, measure_fidelity
    from bluffscope.table.reader import read_run
    from bluffscope.table.schema import Column

__version__ = "0.1.0"

# Re-exported at first use (PEP 562): importing bluffscope imports no torch.
_HOMES = {
    "ANALYSES": "bluffscope.metrics",
    "Analysis": "bluffscope.metrics",
    "BluffscopeError": "bluffscope.errors",
    "Column": "bluffscope.table.schema",
    "Fidelity": "bluffscope.fidelity",
    "Finding": "bluffscope.pairs.lint",
    "InputError": "bluffscope.errors",
    "LintReport": "bluffscope.pairs.lint",
    "Measurement": "bluffscope.metrics",
    "RunConfig": "bluffscope.config",
    "RunFolderError": "bluffscope.errors",
    "RunResult": "bluffscope.run",
    "UserAnalysis": "bluffscope.pipeline",
    "analyze": "bluffscope.api",
    "measure_fidelity": "bluffscope.run",
    "lint": "bluffscope.linting",
    "read_run": "bluffscope.table.reader",
}

__all__ = [
    "ANALYSES",
    "Analysis",
    "BluffscopeError",
    "Column",
    "Fidelity",
    "Finding",
    "InputError",
    "LintReport",
    "Measurement",
    "RunConfig",
    "RunFolderError",
    "RunResult",
    "UserAnalysis",
    "__version__",
    "analyze",
    "lint",
    "measure_fidelity",
    "read_run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
