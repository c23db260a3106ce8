"""Step 3: a causal language model, truncated, and its residual stream at the positions that matter."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluffscope.model.forward import ResidualReader
    from bluffscope.model.head import Head
    from bluffscope.model.hooks import HookPoint
    from bluffscope.model.load import LanguageModel, load_model

# Re-exported at first use (PEP 562): what only plans batches or memory imports no torch.
_HOMES = {
    "Head": "bluffscope.model.head",
    "HookPoint": "bluffscope.model.hooks",
    "LanguageModel": "bluffscope.model.load",
    "ResidualReader": "bluffscope.model.forward",
    "load_model": "bluffscope.model.load",
}

__all__ = ["Head", "HookPoint", "LanguageModel", "ResidualReader", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
