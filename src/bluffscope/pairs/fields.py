"""Records to pairs: which field is which, and what each may hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.host.chat import is_conversation
from bluffscope.metrics import LOGPROB, METRICS
from bluffscope.pairs.carried import FLOAT_TEXT, like_a_metric
from bluffscope.pairs.paths import FieldError
from bluffscope.pairs.record import Record, listed, quoted
from bluffscope.pairs.spans import checked_spans
from bluffscope.pairs.text_files import MAX_LINE_BYTES
from bluffscope.records import VIEWS, LabelledText, Pair

KEYS: Final = ("id", "domain", "complexity", "prompt", "fact", "hallucination")
TEXTS: Final = ("prompt", "fact", "hallucination")
LABELLED_KEYS: Final = ("id", "domain", "group", "prompt", "completion", "text", "label", "spans")
"""Of a labelled text, which has a completion or is one text as a whole."""

_RESULT_COLUMNS: Final = frozenset(
    {"pair_id", "text_id", "index", "group", "view", "layer", "feature", "activation", "read_token"}
    | {f"{view}_{column}" for view in (*VIEWS, "text") for column in ("tokens", "read_token")}
    | {metric.name for metric in LOGPROB.of_pair}
)
_OPEN: Final = {*LOGPROB.metrics, *(metric for metric in METRICS if metric.swept)}
_METRIC_NAMES: Final = "|".join(f"{re.escape(metric.name)}{'.*' if metric in _OPEN else ''}" for metric in METRICS)
_RESULT_PATTERN: Final = re.compile(rf"^l\d+_(prompt|fact|hall)_|^({_METRIC_NAMES})_(fact|hall|diff)$|^_", re.ASCII)

_LABELLED_PATTERN: Final = re.compile(rf"^(l\d+_(prompt_)?)?({_METRIC_NAMES})$|^_", re.ASCII)


class RowError(InputError):
    """One record that is no pair (or labelled text): its place, what is wrong and what to do, in one line."""

    def __init__(self, message: str, index: int, pair_id: str | None) -> None:
        super().__init__(message)
        self.index = index
        """Position in the input, from 0."""
        self.pair_id = str(index) if pair_id is None else pair_id
        """The pair's id, or its position where the record gives none that can be read."""

    @classmethod
    def of(
        cls, record: Record, index: int, error: FieldError, item_id: str | None = None, kind: str = "pair"
    ) -> RowError:
        """What is wrong with a record, with its place."""
        known = "" if item_id is None else f", id {quoted(item_id)}"
        return cls(f"{record.place} ({kind} {index}{known}): {error}", index, item_id)


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Which field of a record gives each key of a pair, or of a labelled text."""

    names: Mapping[str, str]
    """The field's name, by key of `KEYS` or `LABELLED_KEYS`."""
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
            if key not in (*KEYS, *LABELLED_KEYS):
                known = ", ".join(dict.fromkeys((*KEYS, *LABELLED_KEYS)))
                raise InputError(f"--columns {quoted(column)}: unknown key {quoted(key)}; use one of {known}")
            if key in given:
                raise InputError(f"--columns {quoted(column)}: {key} is mapped twice; map it once")
            given[key] = name
        if file_domains and "domain" in given:
            raise InputError("--columns domain=... and --domain-from file contradict each other; give one of them")
        of_pair, of_text = given.keys() - set(LABELLED_KEYS), given.keys() - set(KEYS)
        if of_pair and of_text:
            raise InputError(
                f"--columns {min(of_text)}=... and {min(of_pair)}=... contradict each other: a labelled text has no "
                f"{min(of_pair)}; give one"
            )
        keys = LABELLED_KEYS if of_text else KEYS
        return cls({key: given.get(key, key) for key in keys}, frozenset(given), file_domains, chat)

    @property
    def labelled(self) -> bool:
        """Whether a record holds a labelled text rather than a pair."""
        return "label" in self.names

    @property
    def kind(self) -> str:
        """What a record holds, for messages."""
        return "text" if self.labelled else "pair"

    def of_labelled(self) -> FieldMap:
        """The same for labelled texts."""
        names = {key: self.names.get(key, key) for key in LABELLED_KEYS}
        return replace(self, names=names, mapped=self.mapped & names.keys())

    def item(self, record: Record, index: int, file_domain: str, number: int) -> Pair | LabelledText:
        """The pair or labelled text of a record, checked; `extra` has its carried values, cleaned but not converted.

        Args:
            record: of one pair, or of one text whose label is true or false already.
            index: its position among the pairs or texts, from 0.
            file_domain: the name of its file, without suffixes.
            number: its position among the records, from 0: the id of one that has none.

        Raises:
            RowError: A field is missing or of the wrong type, or a carried name belongs to the result.
        """
        item_id: str | None = None
        try:
            item_id = self._optional_text(record, "id")
            name, domain = str(number) if item_id is None else item_id, self._domain(record, file_domain)
            if self.labelled:
                return self._labelled(record, index, name, domain)
            return Pair(
                index=index,
                id=name,
                domain=domain,
                complexity=self._complexity(record),
                prompt=self._text(record, "prompt"),
                fact=self._text(record, "fact"),
                hallucination=self._text(record, "hallucination"),
                extra=self._carried(record),
            )
        except FieldError as error:
            raise RowError.of(record, index, error, item_id, self.kind) from error

    def _labelled(self, record: Record, index: int, name: str, domain: str) -> LabelledText:
        if self.names["text"] in record.fields:
            for key in ("prompt", "completion"):
                if self.names[key] in record.fields and self._value(record, key) is not None:
                    raise FieldError(
                        f"fields {quoted(self.names['text'])} and {quoted(self.names[key])}: a text stands alone, or "
                        "is a prompt with its completion; drop one of the two"
                    )
            prompt, completion = "", self._text(record, "text")
        else:
            prompt, completion = self._prompt(record), self._text(record, "completion")
        spans = self._value(record, "spans")
        of_text = {} if spans is None else {"spans": checked_spans(spans, completion, self.names["spans"])}
        return LabelledText(
            index=index,
            id=name,
            label=bool(record.fields[self.names["label"]]),
            domain=domain,
            group=self._optional_text(record, "group"),
            prompt=prompt,
            completion=completion,
            extra=self._carried(record) | of_text,
        )

    def _prompt(self, record: Record) -> str:
        """Of a labelled text: it need not have one."""
        absent = self.names["prompt"] not in record.fields or self._value(record, "prompt") is None
        return "" if absent else self._text(record, "prompt")

    def _value(self, record: Record, key: str) -> Any:
        """The field of a key; None where it is absent, null, not a number (NaN) or blank text."""
        name = self.names[key]
        if name not in record.fields:
            if key in self.mapped or key in (*TEXTS, "completion"):
                raise FieldError(
                    f"field {quoted(name)} is missing; the fields here are {listed(record.fields)}; "
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
            raise FieldError(f"field {quoted(self.names[key])} is empty; give it a text or drop the {self.kind}")
        if key == "prompt" and is_conversation(value):
            if not self.chat:
                raise FieldError(
                    f"field {quoted(self.names[key])} holds a conversation; --chat measures it with the model's own "
                    "chat template"
                )
            value = json.dumps(value, ensure_ascii=False)
        if key != "prompt" and isinstance(value, bool | float):
            value = json.dumps(value)
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
            number = float(text) if FLOAT_TEXT.fullmatch(text) else None
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number not in range(1, 11):
            raise FieldError(
                f"field {quoted(self.names['complexity'])} is {quoted(value)}; expected a whole number from 1 to 10"
            )
        return int(number)

    def _carried(self, record: Record) -> dict[str, Any]:
        consumed = self.names.values()
        extra = {
            name: _carried_value(value, _free_name(name, labelled=self.labelled))
            for name, value in record.fields.items()
            if name not in consumed
        }
        if fault := like_a_metric(extra):
            raise FieldError(fault)
        return extra


def _as_text(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise FieldError(f"field {quoted(name)} holds {_described(value)}; expected a text")
    return _sound(str(value), name)


def _described(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, dict) else f"{quoted(value)} ({type(value).__name__})"


def _sound(text: str, name: str) -> str:
    """The text, if it can be written as UTF-8 to every format and is of a length that texts have."""
    if len(text) > MAX_LINE_BYTES:
        raise FieldError(f"field {quoted(name)} has {len(text):,} characters; a text may have {MAX_LINE_BYTES:,}")
    if "\0" in text:
        raise FieldError(f"field {quoted(name)} has a NUL character; remove it")
    # isascii first: it is a flag of the string, and spares most texts the encoding.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            bad = ascii(text[error.start])[1:-1]
            raise FieldError(
                f"field {quoted(name)} has half a surrogate pair ({bad}), which is not a character; rewrite the text"
            ) from error
    return text


@lru_cache(maxsize=1024)
def _free_name(name: str, *, labelled: bool) -> str:
    _sound(name, name)
    keys, pattern = (LABELLED_KEYS, _LABELLED_PATTERN) if labelled else (KEYS, _RESULT_PATTERN)
    if name in _RESULT_COLUMNS or name in keys or pattern.search(name):
        raise FieldError(f"field {quoted(name)} has the name of a column of the results; rename or drop it")
    return name


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
        raise FieldError(f"field {quoted(name)} holds {error}; drop it or write it as text") from error
    except RecursionError as error:
        raise FieldError(f"field {quoted(name)} is nested too deeply; drop it or write it as text") from error


def carried_text(value: Any, name: str) -> Any:
    """A list or object as the text that is carried, so that pairs of one record share it; all else as it is."""
    try:
        return _carried_value(value, name) if isinstance(value, list | tuple | dict) else value
    except FieldError:  # told once the pair is read
        return cast("Any", value)


def _plain(value: object) -> object:
    """What JSON has no type for, as text; lists and objects as they are."""
    if isinstance(value, (list, tuple, dict)):
        return cast("object", value)
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")
