"""Pairs given in memory, for the library's calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bluffscope.errors import InputError


def write_pairs(pairs: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Write pairs as JSON lines, so that they pass the same checks as any other; returns the path.

    Raises:
        InputError: a pair holds what JSON does not know.
    """
    with path.open("w", encoding="utf-8") as file:
        for index, pair in enumerate(pairs):
            try:
                file.write(json.dumps(dict(pair), default=_number) + "\n")
            except (TypeError, ValueError) as error:
                raise InputError(f"pair {index}: {error}; give text and numbers") from error
    return path


def _number(value: Any) -> Any:
    """A numpy scalar as JSON knows it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")
