"""Records to pairs: which field is which, what each may hold, and the types of the columns carried through."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, cast

from bluffscope.errors import InputError
from bluffscope.host.chat import is_conversation
from bluffscope.metrics import LOGPROB, METRICS
from bluffscope.pairs.labels import MAP_THEM
from bluffscope.pairs.readers import MAX_LINE_BYTES, Record, quoted
from bluffscope.records import VIEWS, Pair

Kind = Literal["str", "int", "float", "bool"]
KEYS: Final = ("id", "domain", "complexity", "prompt", "fact", "hallucination")

MOST_CARRIED: Final = 1000
"""Further columns of a source: every row of the tables has all of them."""

_RESULT_COLUMNS: Final = frozenset(
    {"pair_id", "index", "group", "view", "layer", "feature", "activation"}
    | {f"{view}_{column}" for view in VIEWS for column in ("tokens", "read_token")}
    | {metric.name for metric in LOGPROB.of_pair}
)
_OPEN: Final = {*LOGPROB.metrics, *(metric for metric in METRICS if metric.swept)}
_METRIC_NAMES: Final = "|".join(f"{re.escape(metric.name)}{'.*' if metric in _OPEN else ''}" for metric in METRICS)
_RESULT_PATTERN: Final = re.compile(rf"^l\d+_(prompt|fact|hall)_|^({_METRIC_NAMES})_(fact|hall|diff)$|^_", re.ASCII)
_INT_TEXT: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT_TEXT: Final = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?(inf|Infinity)|nan|NaN")
_BOOL_TEXT: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class CarriedColumn:
    """A further column of the source, carried through to the tables."""

    name: str
    kind: Kind
    """The narrowest type that holds all its values."""


class RowError(InputError):
    """One record that is no pair: its place, what is wrong and what to do, in one line."""

    def __init__(self, message: str, index: int, pair_id: str | None) -> None:
        super().__init__(message)
        self.index = index
        """Position in the input, from 0."""
        self.pair_id = str(index) if pair_id is None else pair_id
        """The pair's id, or its position where the record gives none that can be read."""


class _FieldError(Exception):
    """What is wrong with a field, without the place; `FieldMap.pair` adds it."""


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Which field of a record gives each key of a pair."""

    names: Mapping[str, str]
    """The field's name, by key of `KEYS`."""
    mapped: frozenset[str]
    """The keys that the user named a field for: such a field must be there."""
    file_domains: bool
    """Whether the file's name is the domain; a record's own domain is then not looked at."""
    chat: bool = False
    """Whether a prompt may be a conversation, a list of messages."""

    @classmethod
    def parse(cls, columns: Iterable[str], *, file_domains: bool, chat: bool = False) -> FieldMap:
        """The field map of `DataOptions.columns`, each KEY=NAME.

        Raises:
            InputError: No "=", an unknown or repeated key, no name, or a domain that is given twice.
        """
        given: dict[str, str] = {}
        for column in columns:
            key, equals, name = column.partition("=")
            if not equals or not name:
                raise InputError(f"--columns {quoted(column)}: expected KEY=NAME, such as prompt=question")
            if key not in KEYS:
                raise InputError(f"--columns {quoted(column)}: unknown key {quoted(key)}; use one of {', '.join(KEYS)}")
            if key in given:
                raise InputError(f"--columns {quoted(column)}: {key} is mapped twice; map it once")
            given[key] = name
        if file_domains and "domain" in given:
            raise InputError("--columns domain=... and --domain-from file contradict each other; give one of them")
        return cls({key: given.get(key, key) for key in KEYS}, frozenset(given), file_domains, chat)

    def pair(self, record: Record, index: int, file_domain: str) -> Pair:
        """The pair that a record holds, checked; `extra` has its carried values, cleaned but not yet converted.

        Raises:
            RowError: A field is missing or of the wrong type, or a carried name belongs to the result.
        """
        pair_id: str | None = None
        try:
            pair_id = self._optional_text(record, "id")
            return Pair(
                index=index,
                id=str(index) if pair_id is None else pair_id,
                domain=self._domain(record, file_domain),
                complexity=self._complexity(record),
                prompt=self._text(record, "prompt"),
                fact=self._text(record, "fact"),
                hallucination=self._text(record, "hallucination"),
                extra=self._carried(record),
            )
        except _FieldError as error:
            known = "" if pair_id is None else f", id {quoted(pair_id)}"
            raise RowError(f"{record.place} (pair {index}{known}): {error}", index, pair_id) from error

    def _value(self, record: Record, key: str) -> Any:
        """The field of a key; None where it is absent, null, not a number (NaN) or blank text."""
        name = self.names[key]
        if name not in record.fields:
            if key in self.mapped or key in ("prompt", "fact", "hallucination"):
                raise _FieldError(
                    f"field {quoted(name)} is missing; the fields here are {_listed(record.fields)}; "
                    f"name the right one with --columns {key}=NAME"
                )
            return None
        value = record.fields[name]
        if isinstance(value, str) and not value.strip():
            return None
        return None if isinstance(value, float) and math.isnan(value) else value

    def _text(self, record: Record, key: str) -> str:
        value = self._value(record, key)
        if value is None:
            raise _FieldError(f"field {quoted(self.names[key])} is empty; give it a text or drop the pair")
        if key == "prompt" and is_conversation(value):
            if not self.chat:
                raise _FieldError(
                    f"field {quoted(self.names[key])} holds a conversation; --chat measures it with the model's own "
                    "chat template"
                )
            value = json.dumps(value, ensure_ascii=False)
        if key != "prompt" and isinstance(value, bool | float):
            raise _FieldError(f"field {quoted(self.names[key])} holds {_described(value)}; expected a text: {MAP_THEM}")
        return _as_text(value, self.names[key])

    def _optional_text(self, record: Record, key: str) -> str | None:
        value = self._value(record, key)
        return None if value is None else _as_text(value, self.names[key])

    def _domain(self, record: Record, file_domain: str) -> str:
        if self.file_domains:
            return _as_text(file_domain, "domain")
        return self._optional_text(record, "domain") or "all"

    def _complexity(self, record: Record) -> int | None:
        value = self._value(record, "complexity")
        if value is None:
            return None
        number = value
        if isinstance(value, str):
            text = value.strip()
            number = float(text) if _FLOAT_TEXT.fullmatch(text) else None
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number not in range(1, 11):
            raise _FieldError(
                f"field {quoted(self.names['complexity'])} is {quoted(value)}; expected a whole number from 1 to 10"
            )
        return int(number)

    def _carried(self, record: Record) -> dict[str, Any]:
        consumed = self.names.values()
        extra = {
            name: _carried_value(value, _free_name(name))
            for name, value in record.fields.items()
            if name not in consumed
        }
        if fault := _like_a_metric(extra):
            raise _FieldError(fault)
        return extra


def _listed(names: Iterable[str], most: int = 20) -> str:
    every = [quoted(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "") or "none"


def _as_text(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _FieldError(f"field {quoted(name)} holds {_described(value)}; expected a text")
    return _sound(str(value), name)


def _described(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, dict) else f"{quoted(value)} ({type(value).__name__})"


def _sound(text: str, name: str) -> str:
    """The text, if it can be written as UTF-8 to every format and is of a length that texts have."""
    if len(text) > MAX_LINE_BYTES:
        raise _FieldError(f"field {quoted(name)} has {len(text):,} characters; a text may have {MAX_LINE_BYTES:,}")
    if "\0" in text:
        raise _FieldError(f"field {quoted(name)} has a NUL character; remove it")
    # isascii first: it is a flag of the string, and spares most texts the encoding.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            bad = ascii(text[error.start])[1:-1]
            raise _FieldError(
                f"field {quoted(name)} has half a surrogate pair ({bad}), which is not a character; rewrite the text"
            ) from error
    return text


@lru_cache(maxsize=1024)
def _free_name(name: str) -> str:
    _sound(name, name)
    if name in _RESULT_COLUMNS or name in KEYS or _RESULT_PATTERN.search(name):
        raise _FieldError(f"field {quoted(name)} has the name of a column of the results; rename or drop it")
    return name


def _like_a_metric(names: Collection[str]) -> str | None:
    """What is wrong with carried columns that the statistics would take for a metric of the model, or None."""
    for name in names:
        if name.endswith("_fact") and (other := f"{name.removesuffix('_fact')}_hall") in names:
            return f"fields {quoted(name)} and {quoted(other)} are named as a metric of the results; rename or drop one"
    return None


def _carried_value(value: Any, name: str) -> str | int | float | bool | None:
    """A carried value as text, number, truth value or None."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, str):
        return _sound(value, name) or None
    try:
        text = _plain(value)
        return _sound(text if isinstance(text, str) else json.dumps(value, ensure_ascii=False, default=_plain), name)
    except TypeError as error:
        raise _FieldError(f"field {quoted(name)} holds {error}; drop it or write it as text") from error
    except RecursionError as error:
        raise _FieldError(f"field {quoted(name)} is nested too deeply; drop it or write it as text") from error


def _plain(value: object) -> object:
    """What JSON has no type for, as text; lists and objects as they are."""
    if isinstance(value, (list, tuple, dict)):
        return cast("object", value)
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")


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
        if fault := _like_a_metric(self._kinds):
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
    if _FLOAT_TEXT.fullmatch(text):
        return "float"
    return "bool" if text in _BOOL_TEXT else "str"


def converted(pair: Pair, columns: Iterable[CarriedColumn]) -> Pair:
    """The pair with every carried column, in their order and of their type; None where it has no value."""
    return replace(pair, extra={column.name: _as_kind(pair.extra.get(column.name), column.kind) for column in columns})


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
    """BLAKE2b over pairs in order: equal for the same pairs whatever format they came in.

    Carried values count by what they say (3, 3.0 and "3" are one), since CSV knows no types.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=32)

    def add(self, pair: Pair) -> None:
        """Take in the next pair as `FieldMap.pair` gives it."""
        complexity = "" if pair.complexity is None else str(pair.complexity)
        parts = [pair.id, pair.domain, complexity, pair.prompt, pair.fact, pair.hallucination]
        for name in sorted(pair.extra):
            text = said(pair.extra[name])
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
