"""Checks of a run's files: one that no run writes is refused in one line, before anything is computed from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.table.atomic import unreadable

_NUMBER: Final = (int, float)
_TEXT: Final = (str, int, float)

_ARROW: Final = {"text": ("string",), "whole numbers": ("int",), "numbers": ("float", "double")}
_NAMES: Final[dict[Any, str]] = {
    str: "text",
    int: "a whole number",
    _NUMBER: "a number",
    _TEXT: "text or a number",
}

MANIFEST: Final[dict[str, Any]] = {
    "model": {"name": _TEXT},
    "data": {"name": _TEXT, "digest": _TEXT},
    "saes": {"*": {}},
    "packages": {},
    "seeds": {},
    "counts": {"*": _NUMBER},
    "timings": {"*": _NUMBER},
    "memory": {"peak_bytes": _NUMBER},
    "health": {"status": _TEXT, "findings": [{"severity": str, "message": _TEXT, "means": _TEXT, "do": _TEXT}]},
    "lint": {
        "headline": str,
        "rows": int,
        "rows_in_all": int,
        "findings": [{"severity": str, "message": _TEXT, "pairs": [_TEXT]}],
    },
    "dtype": str,
    "quantize": str,
    "metric_versions": {"*": int},
    "added": {"*": {"label": str, "unit": str, "doc": str}},
    "files": {"*": {"sha256": str}},
}
"""What is read of manifest.json; what is null or not there is left out. "*" is any key, {} any object."""
CONFIG: Final[dict[str, Any]] = {"model": {"layers": [int]}, "measure": {}, "data": {}, "engine": {}, "output": {}}
"""The same of config.yaml."""
ABOUT: Final[dict[str, Any]] = {
    "corrections": str,
    "families": [{"family": _TEXT, "tests": int}],
    "pairs": int,
    "groups": int,
    "largest_group": int,
    "intervals": str,
    "errors": str,
    "cluster_by": str,
    "closed_completions": [str],
    "seed": int,
    "family": str,
    "by": [str],
    "detectors": {"notes": [str]},
    "notes": [str],
    "length_unit": str,
}
"""The same of stats.json."""

_ID: Final = "pair_id or text_id"
_KEYS: Final = {_ID: "text", "view": "text", "layer": "whole numbers"}
TABLES: Final[dict[str, dict[str, str]]] = {
    "metrics.parquet": {_ID: "text"},
    "pairs.parquet": {"pair_id": "text", "prompt": "text", "fact": "text", "hallucination": "text"},
    "texts.parquet": {"text_id": "text", "prompt": "text", "completion": "text"},
    "quarantine.parquet": {_ID: "text", "reason": "text"},
    "features.parquet": {**_KEYS, "feature": "whole numbers", "activation": "numbers"},
    "tokens.parquet": {"text_id": "text", **dict.fromkeys(("token_index", "label", "start", "end"), "whole numbers")},
    "token_features.parquet": {
        "text_id": "text",
        **dict.fromkeys(("layer", "token", "feature"), "whole numbers"),
        "activation": "numbers",
    },
    "residuals.parquet": {**_KEYS, "token": "whole numbers", "values": "lists of numbers"},
    "further_residuals.parquet": {
        **_KEYS,
        "position": "text",
        "token": "whole numbers",
        "values": "lists of numbers",
    },
}
"""Columns that a run's tables are joined and computed by, and what they hold."""
_PLAIN: Final = ("metrics.parquet", "pairs.parquet", "texts.parquet", "quarantine.parquet")
"""Tables of numbers and text only."""


def read_json(file: Path, again: str = "run the analysis again") -> dict[str, Any]:
    """A JSON file that holds an object.

    Args:
        file: what is read.
        again: how to make it again.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        found: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{unreadable(file, error)}: {again}") from error
    except RecursionError as error:
        raise InputError(f"{file} is damaged (nested too deeply): {again}") from error
    return as_mapping(found, file, again)


def as_mapping(found: object, file: Path, again: str = "run the analysis again") -> dict[str, Any]:
    """What a file holds, if it is an object.

    Raises:
        InputError: it is none.
    """
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged (no mapping in it): {again}")
    return cast("dict[str, Any]", found)


def check_columns(columns: Mapping[str, str], file: Path) -> None:
    """Refuse a run's table that lacks a column of `TABLES`, or has another kind of values in it.

    Args:
        columns: the Arrow type of each, as text.
        file: the table.

    Raises:
        InputError: which column.
    """
    if file.name in _PLAIN and (nested := [name for name, kind in columns.items() if "<" in kind]):
        raise InputError(f"{file} is damaged (column {nested[0][:60]!r} holds no plain values): run the analysis again")
    for name, kind in TABLES.get(file.name, {}).items():
        found = next((columns[one] for one in name.split(" or ") if one in columns), "nothing")
        outer, _, inner = found.partition("<")  # large_list<element: int32> holds no whole numbers, but lists of them
        plain = kind.removeprefix("lists of ")
        held = outer if plain == kind else inner if outer.endswith("list") else ""
        if not any(part in held for part in _ARROW[plain]):
            name = name.partition(" or ")[0]
            raise InputError(f"{file} is damaged (column {name!r} holds {found}, not {kind}): run the analysis again")


def checked(found: Mapping[str, Any], shape: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What a file holds, without nulls where it is looked at.

    Args:
        found: its content.
        shape: what is expected, such as `MANIFEST`.
        file: for the message.

    Raises:
        InputError: a value of another kind.
    """
    return _object(found, shape, file, "")


def _object(found: Any, shape: Mapping[str, Any], file: Path, where: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise _damaged(file, where, "an object")
    kept: dict[str, Any] = {}
    for key, value in cast("Mapping[Any, Any]", found).items():
        expected = shape.get(str(key), shape.get("*"))
        if expected is None:
            kept[str(key)] = value
        elif value is not None:
            kept[str(key)] = _value(value, expected, file, f"{where}.{key}".lstrip("."))
    return kept


def _value(value: Any, expected: Any, file: Path, where: str) -> Any:
    if isinstance(expected, dict):
        return _object(value, cast("dict[str, Any]", expected), file, where)
    if isinstance(expected, list):
        if not isinstance(value, list):
            raise _damaged(file, where, "a list")
        (inner,) = cast("list[Any]", expected)
        return [_value(item, inner, file, where) for item in cast("list[Any]", value) if item is not None]
    if isinstance(value, bool) or not isinstance(value, expected):
        raise _damaged(file, where, _NAMES[expected])
    return value


def _damaged(file: Path, where: str, expected: str) -> InputError:
    return InputError(f"{file} is damaged ({where[:60] or 'it'} is not {expected}): run the analysis again")
