"""Other libraries: their chatter kept from the user while they start up, and settings they read for a time only."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Generator, Mapping
from typing import Final

import numpy as np

# What they say is of compiled extras that this machine's torch does not fit, and of each other's deprecations.
# transformers imports the first two wherever they are installed, asked for or not.
_CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree")

plain_numpy: Final = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
"""Decorates functions that compute with numpy: its error state as in a fresh process, whatever the caller has set."""


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


@contextlib.contextmanager
def environment(settings: Mapping[str, str | None]) -> Generator[None, None, None]:
    """Inside, these environment variables are set, or not there where the value is None; then all is as before."""
    before = {name: os.environ.get(name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
