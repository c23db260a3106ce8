"""Other libraries while they start up: their chatter kept from the user, and settings they read for that time only."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Generator, Mapping
from typing import Any

from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive

# What they say is of compiled extras that this machine's torch does not fit, and of each other's deprecations.
# transformers imports the first two wherever they are installed, asked for or not.
_CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree")


@contextlib.contextmanager
def libraries_quiet() -> Generator[None, None, None]:
    """Show no Python warnings, and only errors of these loggers."""
    with exclusive():
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


def check_docstrings() -> None:
    """Refuse a Python that strips docstrings: transformers and Altair read their own, and fail blaming something else.

    Raises:
        InputError: it does.
    """
    if sys.flags.optimize > 1:
        raise InputError(
            "python -OO (PYTHONOPTIMIZE=2) strips the docstrings that transformers and Altair read as they start; "
            "unset it, or use -O (PYTHONOPTIMIZE=1)"
        )


@contextlib.contextmanager
def replaced(owner: Any, **values: Any) -> Generator[None, None, None]:
    """Within the block, a module or class of another library has these attributes; to be used where calls are alone."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextlib.contextmanager
def environment(settings: Mapping[str, str | None]) -> Generator[None, None, None]:
    """Set these environment variables, or remove those with the value None; restore them afterwards."""
    with exclusive():
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
