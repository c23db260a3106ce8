"""Small files of anybody's: JSON and YAML that is too large, too deep or strange is a `DocumentError`, and no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import yaml

from bluffscope.config.yaml_file import read_yaml
from bluffscope.report.view.folders import open_inside

MOST_BYTES: Final = 4 * 1024**2
"""Of a JSON file: a run's manifest has some 30 kB."""
_TAIL: Final = 4096
"""Bytes of the log that are looked at."""


class DocumentError(ValueError):
    """A file cannot be read as what its name says; why, in a few words."""


def read_json(root: Path, parts: Sequence[str]) -> dict[str, Any]:
    """A JSON file that holds an object of finite numbers.

    Raises:
        DocumentError: it holds something else, cannot be read, or has more than `MOST_BYTES`.
    """
    try:
        found: object = json.loads(_content(root, parts, MOST_BYTES), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DocumentError(_why(parts, error)) from error
    return _object(found, parts)


def read_options(root: Path, parts: Sequence[str]) -> dict[str, Any]:
    """A run's config.yaml.

    Raises:
        DocumentError: it holds something else, or cannot be read.
    """
    try:
        found: object = read_yaml(_content(root, parts, MOST_BYTES))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DocumentError(_why(parts, error)) from error
    return _object(found, parts)


def count_lines(root: Path, parts: Sequence[str]) -> int:
    """Whole lines of a file, at most those of its first 64 MiB."""
    lines = 0
    try:
        with open_inside(root, parts) as file:
            for _ in range(64):
                if not (block := file.read(1024**2)):
                    break
                lines += block.count(b"\n")
    except OSError as error:
        raise DocumentError(_why(parts, error)) from error
    return lines


def last_messages(root: Path, parts: Sequence[str], most: int) -> list[str]:
    """The last messages of a run's log, the newest last; nothing where there are none."""
    try:
        with open_inside(root, parts) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read(_TAIL).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    messages: list[str] = []
    for line in lines:
        try:
            found: object = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            messages.append(text(cast("dict[str, Any]", found).get("message")) or "")
    return [message for message in messages if message][-most:]


def under(content: object, *names: str) -> Any:
    """A value of nested objects; None where the way to it is not there."""
    for name in names:
        if not isinstance(content, Mapping):
            return None
        content = cast("Mapping[str, Any]", content).get(name)
    return content


def text(value: object) -> str | None:
    """A text, or a number as one."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def whole(value: object) -> int | None:
    """A count: a whole number that a table can have rows."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else None


def _content(root: Path, parts: Sequence[str], most: int) -> str:
    try:
        with open_inside(root, parts) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DocumentError(_why(parts, error)) from error
    if len(content) > most:
        raise DocumentError(f"{parts[-1]} is too large")
    return content.decode("utf-8")


def _object(found: object, parts: Sequence[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise DocumentError(f"{parts[-1]} holds no object")
    return cast("dict[str, Any]", found)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _why(parts: Sequence[str], error: Exception) -> str:
    if isinstance(error, DocumentError):
        return str(error)
    if isinstance(error, OSError):
        return f"{parts[-1]} cannot be read ({(error.strerror or 'no reason known').lower()})"
    return f"{parts[-1]} is {'nested too deeply' if isinstance(error, RecursionError) else 'damaged'}"
