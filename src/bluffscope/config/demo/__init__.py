"""The embedded model organism: a small Gemma-2 that knows part of bluff200, and three SAEs of its residual stream.

`MODEL_CARD.md` beside this file says what it knows, how it was made and how good it is.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).resolve().parent / "weights"


def model_dir() -> Path:
    """Folder of the language model and its tokenizer, in Hugging Face layout."""
    return _WEIGHTS / "model"


def sae_dir() -> Path:
    """Folder of the SAEs: a `layer_K/` (`cfg.json`, `sae_weights.safetensors`) for each layer K, SAELens layout."""
    return _WEIGHTS / "sae"
