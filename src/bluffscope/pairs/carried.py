"""The columns carried through to the tables: their types, found value by value, and the identity of pairs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from bluffscope.errors import InputError
from bluffscope.pairs.record import quoted
from bluffscope.records import LabelledText, Pair

Kind = Literal["str", "int", "float", "bool"]
MOST_CARRIED: Final = 1000
"""Further columns of a source: every row of the tables has all of them."""
_INT_TEXT: Final = re.compile(r"-?(0|[1-9][0-9]*)")
FLOAT_TEXT: Final = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?(inf|Infinity)|nan|NaN")
_BOOL_TEXT: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class CarriedColumn:
    """A further column of the source, carried through to the tables."""

    name: str
    kind: Kind
    """The narrowest type that holds all its values."""


def like_a_metric(names: Collection[str]) -> str | None:
    """What is wrong with carried columns that the statistics would take for a metric of the model, or None."""
    for name in names:
        if name.endswith("_fact") and (other := f"{name.removesuffix('_fact')}_hall") in names:
            return f"fields {quoted(name)} and {quoted(other)} are named as a metric of the results; rename or drop one"
    return None


class CarriedKinds:
    """The types of the carried columns, found value by value."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind | None] = {}

    def observe(self, extra: Mapping[str, Any], *, textual: bool) -> None:
        """Widen each column's type by one pair's values; `textual` is the record's."""
        if len(extra) > MOST_CARRIED or len(self._kinds) > MOST_CARRIED:
            last = quoted(list(extra or self._kinds)[-1])
            raise InputError(
                f"the pairs have more than {MOST_CARRIED:,} further fields (such as {last}); drop those not needed"
            )
        for name, value in extra.items():
            before = self._kinds.setdefault(name, None)
            if value is None or before == "str":
                continue
            kind = _kind(value, textual=textual)
            if before is None:
                self._kinds[name] = kind
            elif before != kind:
                self._kinds[name] = "float" if {before, kind} == {"int", "float"} else "str"

    def columns(self) -> tuple[CarriedColumn, ...]:
        """In first-seen order; a column without any value is text.

        Raises:
            InputError: Two of them would pass for a metric.
        """
        if fault := like_a_metric(self._kinds):
            raise InputError(f"the pairs' {fault}")
        return tuple(CarriedColumn(name, kind or "str") for name, kind in self._kinds.items())


def _kind(value: str | int | float | bool, *, textual: bool) -> Kind:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _INT64 else "str"
    if isinstance(value, float):
        return "float"
    return _kind_of_text(value) if textual else "str"


def _kind_of_text(text: str) -> Kind:
    """What a cell is; a number with leading zeros is a text (a code), as is one that no 64-bit integer holds."""
    if _INT_TEXT.fullmatch(text):
        return "int" if len(text) <= 20 and int(text) in _INT64 else "str"
    if FLOAT_TEXT.fullmatch(text):
        return "float"
    return "bool" if text in _BOOL_TEXT else "str"


ItemT = TypeVar("ItemT", bound=Pair | LabelledText)


def converted(item: ItemT, columns: Iterable[CarriedColumn]) -> ItemT:
    """The item with every carried column, in their order and of their type; None where it has no value."""
    return replace(item, extra={column.name: _as_kind(item.extra.get(column.name), column.kind) for column in columns})


def _as_kind(value: str | int | float | bool | None, kind: Kind) -> str | int | float | bool | None:
    if value is None:
        return None
    if kind == "str":
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "bool":
        return _BOOL_TEXT[value] if isinstance(value, str) else bool(value)
    if kind == "int":
        return int(value)
    number = float(value)
    return None if math.isnan(number) else number


class PairDigest:
    """BLAKE2b over pairs or labelled texts in order: equal for the same ones whatever format they came in.

    Carried values count by what they say (3, 3.0 and "3" are one), since CSV knows no types.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=32)

    def add(self, item: Pair | LabelledText) -> None:
        """Take in the next item as `FieldMap.item` gives it."""
        if isinstance(item, LabelledText):
            label = json.dumps(item.label)
            parts = ["text", item.id, item.domain, label, item.group or "", item.prompt, item.completion]
        else:
            complexity = "" if item.complexity is None else str(item.complexity)
            parts = [item.id, item.domain, complexity, item.prompt, item.fact, item.hallucination]
        for name in sorted(item.extra):
            text = said(item.extra[name])
            if text:
                parts += [name, text]
        encoded = [part.encode() for part in parts]
        lengths = ",".join(str(len(part)) for part in encoded)
        self._hash.update(b"".join([f"{lengths};".encode(), *encoded]))

    def hexdigest(self) -> str:
        """64 hex digits."""
        return self._hash.hexdigest()


def said(value: str | int | float | bool | None) -> str:
    """One text for all the ways in which formats write a value; empty for no value."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    kind = _kind_of_text(text)
    if kind == "bool":
        return text.lower()
    if kind == "int":
        return str(int(text))
    if kind == "float":
        number = float(text)
        if math.isnan(number):
            return ""
        return str(int(number)) if number.is_integer() and int(number) in _INT64 else repr(number)
    return text
