"""Questions with their right answers: of a data set as it is published, or of fields by their names."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.pairs.layout import GOLD, PAIRS, Fields, Layout, LeftOut, Values
from bluffscope.pairs.located import located
from bluffscope.pairs.paths import FieldError, picked
from bluffscope.pairs.readers import read_records
from bluffscope.pairs.record import Record, listed, quoted
from bluffscope.pairs.schemas import AUTO, check_schema, layout_of

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "question": ("question", "prompt"),
    "answers": ("answers", "answer", "fact"),
    "aliases": ("aliases",),
    "id": ("id", "question_id"),
    "domain": ("domain",),
}
"""What a question has, and the fields that hold it unless `--columns` names another."""
ALL: Final = "all"
BLUFFQA: Final = "bluffqa"
"""The bundled question set (docs/bluffqa.md)."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its right answers."""

    id: str
    text: str
    golds: tuple[str, ...]
    """Right answers and their aliases, at least one."""
    domain: str = ALL


def read_questions(
    data: str, schema: str = AUTO, columns: Sequence[str] = (), limit: int | None = None
) -> list[Question]:
    """The questions of a file, a folder, or a dataset of the hub.

    Args:
        data: as ``analyze --data``; or `BLUFFQA`.
        schema: the data set, or auto.
        columns: KEY=NAME, with the keys of `KEYS`; NAME may be a path.
        limit: read only the first questions.

    Raises:
        InputError: the data cannot be read, holds no question, or an id twice; one line that says where.
    """
    check_schema(schema)
    mapped = _mapped(columns)
    if mapped and schema != AUTO:
        raise InputError(f"--schema {schema} and --columns contradict each other; give one")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1")
    left_out: Counter[str] = Counter()
    found: dict[str, Question] = {}
    for number, record in enumerate(_records(data)):
        if len(found) == limit:
            break
        try:
            values = _values(record.fields, schema, mapped)
            question = _question(values, number)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except (FieldError, InputError) as error:
            raise InputError(f"{record.place} (question {number}): {error}") from error
        if question.id in found:
            raise InputError(
                f"{record.place} (question {number}): id {quoted(question.id)} is taken; give each its own"
            )
        found[question.id] = question
    if left_out:
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in left_out.most_common())
        _log.warning("%s: left out: %s", data, reasons)
    if not found:
        raise InputError(f"{data}: no question with an answer in it; see docs/ask.md for what is read")
    return list(found.values())


def _records(data: str) -> Iterator[Record]:
    def tell(line: str) -> None:
        _log.warning("%s", line, extra={"called": "note"})

    bundled = resources.files("bluffscope.runs.ask").joinpath("data", f"{BLUFFQA}.jsonl")
    for file in [Path(str(bundled))] if data == BLUFFQA else located(data).files:
        yield from read_records(file, tell)


def _mapped(columns: Sequence[str]) -> dict[str, str]:
    mapped: dict[str, str] = {}
    for column in columns:
        key, equals, name = column.partition("=")
        if not equals or not name or key not in KEYS:
            raise InputError(f"--columns {quoted(column)}: expected KEY=NAME; the keys are {', '.join(KEYS)}")
        if key in mapped:
            raise InputError(f"--columns {quoted(column)}: {key} is mapped twice; map it once")
        mapped[key] = name
    return mapped


def _values(fields: Fields, schema: str, mapped: Mapping[str, str]) -> Values:
    """Question, answers, aliases, id and domain of a record, as they stand there."""
    layout = None if mapped else layout_of(fields, schema)
    if layout is not None:
        return _of_layout(layout, fields)
    values: Values = {}
    for key, names in KEYS.items():
        if key in mapped:
            values[key] = picked(mapped[key], fields)
        else:
            name = next((name for name in names if name in fields), None)
            values[key] = None if name is None else fields[name]
    for key in ("question", "answers"):
        if key not in mapped and not any(name in fields for name in KEYS[key]):
            raise FieldError(
                f"no field {' or '.join(map(quoted, KEYS[key]))}; the fields here are {listed(fields)}; name the right "
                f"one with --columns {key}=NAME"
            )
    return values


def _of_layout(layout: Layout, fields: Fields) -> Values:
    if layout.holds not in (GOLD, PAIRS):
        raise FieldError(f"looks like {layout.title}: {layout.holds}, without right answers; name them with --columns")
    try:
        if layout.asks is not None:
            return layout.asks(fields)
        assert layout.values is not None
        pair = layout.values(fields)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = quoted(f"{type(error).__name__}: {error}")
        raise FieldError(f"the record is not laid out like {layout.title} ({reason}); drop or mend it") from error
    return {"question": pair["prompt"], "answers": pair["fact"], "id": pair.get("id"), "domain": pair.get("domain")}


def _question(values: Values, number: int) -> Question:
    text = _text(values["question"], "question")
    answers = [*_texts(values["answers"], "answers"), *_texts(values.get("aliases"), "aliases")]
    if text is None:
        raise LeftOut("no question")
    if not answers:
        raise LeftOut("no right answer")
    name, domain = (_text(values.get(key), key) for key in ("id", "domain"))
    return Question(str(number) if name is None else name, text, tuple(dict.fromkeys(answers)), domain or ALL)


def _text(value: Any, key: str) -> str | None:
    """A text or number as text; None where there is none."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise FieldError(f"{key}: expected text, got a {type(value).__name__}; name a text with --columns {key}=NAME")
    text = str(value).strip()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FieldError(f"{key}: half a surrogate pair, which is not a character; rewrite the text")
    return text or None


def _texts(value: Any, key: str) -> list[str]:
    """The texts of a list, of a list in JSON, or a single one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = value
        value = cast("list[Any]", parsed) if isinstance(parsed, list) else value
    items = cast("Sequence[Any]", value) if isinstance(value, list | tuple) else [value]
    return [text for item in items if (text := _text(item, key)) is not None]
