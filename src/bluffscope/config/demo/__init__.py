"""The embedded model organism: a small Gemma-2 that knows part of bluff200, and three SAEs of its residual stream.

`MODEL_CARD.md` beside this file says what it knows, how it was made and how good it is.
"""

from __future__ import annotations

from pathlib import Path

from bluffscope.config.presets import DEMO_NAME

_WEIGHTS = Path(__file__).resolve().parent / "weights"


def model_dir() -> Path:
    """Folder of the language model and its tokenizer, in Hugging Face layout."""
    return _WEIGHTS / "model"


def sae_dir() -> Path:
    """Folder of the SAEs: a `layer_K/` (`cfg.json`, `sae_weights.safetensors`) for each layer K, SAELens layout."""
    return _WEIGHTS / "sae"


def model_place(name: str) -> str:
    """Where the model of a name is: the embedded one's folder, or the name itself."""
    return str(model_dir()) if name == DEMO_NAME else name


def sae_place(name: str) -> str:
    """Where the SAEs of a name are: the embedded ones' folder, or the name itself."""
    return str(sae_dir()) if name == DEMO_NAME else name
