"""Pages of single features on Neuronpedia, where an SAE's metadata names its place there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_HOME: Final = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+")


def feature_pages(manifest: Mapping[str, Any], layer: int) -> str | None:
    """Where a layer's features have their pages: a feature's index after it and a slash; None where it is unknown.

    Args:
        manifest: the run's.
        layer: which.
    """
    home = manifest.get("saes", {}).get(str(layer), {}).get("neuronpedia_id")
    # It comes from a file of the SAE: nothing but a path may become part of a link.
    known = isinstance(home, str) and _HOME.fullmatch(home) is not None
    return f"https://neuronpedia.org/{home}" if known else None
