"""Other libraries' chatter while they start up: kept from the user, since what matters in it is checked here."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Generator

# What they say is of compiled extras that this machine's torch does not fit, and of each other's deprecations.
# transformers imports the first two wherever they are installed, asked for or not.
_CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree")


@contextlib.contextmanager
def libraries_quiet() -> Generator[None, None, None]:
    """Inside, no Python warning is shown and these loggers speak of errors only."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
