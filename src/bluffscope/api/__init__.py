"""The library's calls, above everything else: measuring, opening a run, and what is made of one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluffscope.api.calls import analyze
    from bluffscope.api.closing import CompletedRun, run
    from bluffscope.api.opened import Run, read_run
    from bluffscope.api.options import config_from

# Re-exported at first use: a finished run is opened without torch.
_HOMES = {
    "CompletedRun": "bluffscope.api.closing",
    "Run": "bluffscope.api.opened",
    "analyze": "bluffscope.api.calls",
    "config_from": "bluffscope.api.options",
    "read_run": "bluffscope.api.opened",
    "run": "bluffscope.api.closing",
}

__all__ = ["CompletedRun", "Run", "analyze", "config_from", "read_run", "run"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
