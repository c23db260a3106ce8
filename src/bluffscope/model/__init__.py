"""A causal language model, truncated, and its residual stream at the positions that matter."""

from bluffscope.model.forward import ResidualReader
from bluffscope.model.head import Head
from bluffscope.model.hooks import HookPoint
from bluffscope.model.load import LanguageModel, load_model

__all__ = ["Head", "HookPoint", "LanguageModel", "ResidualReader", "load_model"]
