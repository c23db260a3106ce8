"""Pairs given in memory, for the library's calls: tables of polars, pandas and `datasets`, or mappings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.pairs.record import INDEX_LEFT_OUT, UNNAMED

_log = logging.getLogger(__name__)


class Frame(Protocol):
    """A table of pandas."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""
        ...

    def to_dict(self, orient: Any) -> Any:
        """With "records": the rows as mappings."""
        ...


Pairs: TypeAlias = str | Path | Iterable[Mapping[str, Any]] | pl.DataFrame | Frame
"""A path, the name of a dataset, or the pairs themselves."""


def write_pairs(pairs: Iterable[Mapping[str, Any]] | pl.DataFrame | Frame, path: Path) -> Path:
    """Write pairs as JSON lines, so that they pass the same checks as any other; returns the path.

    Raises:
        InputError: a pair holds what JSON does not know.
    """
    with path.open("w", encoding="utf-8") as file:
        for index, pair in enumerate(_rows(pairs)):
            try:
                file.write(json.dumps(dict(pair), default=_number) + "\n")
            except (TypeError, ValueError) as error:
                raise InputError(f"pair {index}: {error}; give text and numbers") from error
    return path


def _rows(pairs: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of whatever holds them, without an index that has no name. No library is imported to ask what it is."""
    if isinstance(pairs, Mapping):
        names = ", ".join(map(repr, list(pairs)[:3]))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        raise InputError(f"the data is a mapping of {names}; give one of its values, or a list of pairs")
    if isinstance(pairs, pl.LazyFrame):
        pairs = pairs.collect()
    if isinstance(pairs, pl.DataFrame):
        names, rows = pairs.columns, pairs.iter_rows(named=True)
    elif hasattr(pairs, "columns") and hasattr(pairs, "notna"):  # pandas; NaN, NaT and NA are its nulls
        names = list(pairs.columns)
        rows = pairs.astype(object).where(pairs.notna(), None).to_dict("records")
    elif hasattr(pairs, "column_names"):  # datasets and Arrow
        names = list(pairs.column_names or ())
        rows = pairs.to_pylist() if hasattr(pairs, "to_pylist") else iter(pairs)
    else:
        yield from pairs
        return
    dropped = [name for name in names if isinstance(name, str) and UNNAMED.fullmatch(name)]
    if dropped:
        _log.warning(INDEX_LEFT_OUT)
    for row in rows:
        yield {str(name): value for name, value in row.items() if name not in dropped}


def _number(value: Any) -> Any:
    """A numpy scalar as JSON knows it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")
