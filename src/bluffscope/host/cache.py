"""What is made once and kept for later runs, in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Bluffscope's folder in the user's cache, which need not exist yet; None where the user has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "bluffscope"
