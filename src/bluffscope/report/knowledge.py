"""Which scopes hold what a model knows, and which what it does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bluffscope.config.presets import DEMO_NAME
from bluffscope.metrics.logprob import KNOWS


def knowledge(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns that may say whether a model knows a pair, the more telling one first.

    `known` speaks of the model that the data were made with: for the bundled benchmark this is the demo model.
    """
    return ("known", KNOWS) if (manifest.get("model") or {}).get("name") == DEMO_NAME else (KNOWS, "known")


def known_scopes(manifest: Mapping[str, Any], scopes: Collection[str]) -> tuple[str, ...]:
    """The scopes of what a model knows and of what it does not, where both are among these."""
    pairs = [(f"{name}=true", f"{name}=false") for name in knowledge(manifest)]
    return next((pair for pair in pairs if all(name in scopes for name in pair)), ())


def knows(manifest: Mapping[str, Any], scope: str) -> bool | None:
    """Whether a scope holds what this very model knows (True) or does not know (False); None of any other."""
    column, _, value = scope.partition("=")
    return {"true": True, "false": False}.get(value) if column == knowledge(manifest)[0] else None
