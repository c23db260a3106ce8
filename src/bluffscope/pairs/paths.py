"""Paths into nested fields (`mc1_targets.choices[0]`, `incorrect_answers[*]`), and prompts composed of fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.pairs.record import listed, quoted

_PATH: Final = re.compile(r"([^.\[\]]+)((?:\.[^.\[\]]+|\[(?:\*|-?[0-9]{1,9})\])+)")
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\*|-?[0-9]{1,9})\]")
_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|\\[nt\\]")
_ESCAPES: Final = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}


class FieldError(Exception):
    """What is wrong with a field, without the place, which whoever knows the record adds."""


def root_of(name: str, fields: Mapping[str, Any]) -> str:
    """The field that a name means: the one of exactly that name, else the one that its path starts from."""
    path = None if name in fields else _PATH.fullmatch(name)
    return name if path is None else path[1]


def picked(name: str, fields: Mapping[str, Any]) -> Any:
    """The value of a field, or what a path leads to in it; a list for each `[*]`.

    Raises:
        FieldError: there is no such field, or the path leads nowhere in it.
    """
    if name in fields:
        return fields[name]
    path = _PATH.fullmatch(name)
    if path is None or path[1] not in fields:
        missing = name if path is None else path[1]
        raise FieldError(f"field {quoted(missing)} is missing; the fields here are {listed(fields)}")
    steps = [key or (None if index == "*" else int(index)) for key, index in _STEP.findall(path[2])]
    return _followed(fields[path[1]], steps, name)


def _followed(value: Any, steps: list[str | int | None], name: str) -> Any:
    for at, step in enumerate(steps):
        value = _opened(value)
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                names = f"; there are {listed(cast('dict[str, Any]', value))}" if isinstance(value, dict) else ""
                raise FieldError(f"{quoted(name)}: no field {quoted(step)} to be found{names}")
            value = cast("dict[str, Any]", value)[step]
            continue
        if not isinstance(value, list):
            raise FieldError(f"{quoted(name)}: no list before [{'*' if step is None else step}]")
        items = cast("list[Any]", value)
        if step is None:
            return [_followed(item, steps[at + 1 :], name) for item in items]
        if not -len(items) <= step < len(items):
            raise FieldError(f"{quoted(name)}: no item {step} in a list of {len(items)}")
        value = items[step]
    return value


def _opened(value: Any) -> Any:
    """What a text of JSON holds, since a table of text has no other lists."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with fields in braces."""

    parts: tuple[tuple[str, str], ...]
    """A text and the name of the field that follows it; no name after the last."""

    @classmethod
    def parse(cls, text: str) -> Template:
        r"""The template of ``--prompt-template``; ``\n``, ``\t`` and ``\\`` are read, ``{{`` is a brace.

        Raises:
            InputError: a brace without its partner, or no field at all.
        """
        parts: list[tuple[str, str]] = []
        before, end = "", 0
        for found in _PART.finditer(text):
            before += text[end : found.start()]
            end = found.end()
            if found[1]:
                parts.append((before, found[1]))
                before = ""
            elif found[0] in _ESCAPES:
                before += _ESCAPES[found[0]]
            else:
                raise InputError(f"--prompt-template {quoted(text)}: {found[0]} names no field; write {{{{ for a brace")
        if not parts:
            raise InputError(f"--prompt-template {quoted(text)}: it names no field, such as {{question}}")
        return cls((*parts, (before + text[end:], "")))

    def filled(self, fields: Mapping[str, Any]) -> str:
        """The prompt of a record.

        Raises:
            FieldError: a field is missing, empty, or no text or number.
        """
        return "".join(before + (self._text(name, fields) if name else "") for before, name in self.parts)

    def _text(self, name: str, fields: Mapping[str, Any]) -> str:
        try:
            value = picked(name, fields)
        except FieldError as error:
            raise FieldError(f"--prompt-template: {error}") from error
        if value is None or value == "":
            raise FieldError(f"field {quoted(name)} of --prompt-template is empty; give it a text or drop the pair")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise FieldError(f"field {quoted(name)} of --prompt-template is no text; name one in it by its path")
        return str(value)
