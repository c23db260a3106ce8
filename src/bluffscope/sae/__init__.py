"""Step 4: SAELens coders: loading, batched sparse encode and decode."""

from bluffscope.sae.coder import Coder
from bluffscope.sae.find import SaeSource, find_saes
from bluffscope.sae.load import load_coders
from bluffscope.sae.widths import SaeConfig, read_sae_configs

__all__ = ["Coder", "SaeConfig", "SaeSource", "find_saes", "load_coders", "read_sae_configs"]
