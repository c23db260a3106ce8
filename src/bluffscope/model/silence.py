"""transformers without its messages."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from bluffscope.host.quiet import libraries_quiet


@contextlib.contextmanager
def library_silence() -> Generator[None, None, None]:
    """Mute transformers' warnings, load report and bars; what matters in them is checked by `checkpoint.check_keys`.

    Downloads keep their bars, which huggingface_hub shows on terminals alone.
    """
    with libraries_quiet():
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
        from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        with libraries_quiet():
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
        if not downloads:  # the line before switches both on
            disable_progress_bars()
