"""Answers that were generated elsewhere: as chat APIs and vLLM write them, joined to their questions."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.pairs.readers import format_of, read_records, suffixes
from bluffscope.pairs.record import listed, shown
from bluffscope.runs.ask.questions import Question

_IDS: Final = ("custom_id", "question_id", "id", "group")
_QUESTIONS: Final = ("question", "prompt", "problem", "input", "inputs", "query")
_TEXTS: Final = (
    "answer",
    "answers",
    "completion",
    "completions",
    "samples",
    "text",
    "response",
    "responses",
    "generations",
    "output",
    "outputs",
)
_LABEL: Final = re.compile(r"^\s*(?:q(?:uestion)?|user|human)\s*[:.]\s*", re.IGNORECASE)
_MARK: Final = re.compile(r"\n|<[^<>\n]{1,30}>")
_log = logging.getLogger(__name__)


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, list[str]]:
    """The answers of a file by the ids of their questions, in the file's order; empty texts among them.

    Joined by id where the record has one that a question has, else by the question's text. What cannot be joined, and
    records without an answer, are counted in a warning.

    Args:
        path: JSON, JSON lines, CSV or Parquet.
        questions: those that were asked.

    Raises:
        InputError: the file cannot be read, has no field for an answer, or no answer in it belongs to a question.
    """
    if not path.exists():
        raise InputError(f"--answers {shown(path)}: no such file; give the file of the answers")
    if format_of(path) is None or not path.is_file():
        raise InputError(f"--answers {shown(path)}: unknown file type; give a {suffixes()} file")
    ids = {question.id for question in questions}
    by_text: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        by_text[_plain(question.text)].append(question.id)
    found: dict[str, list[str]] = {}
    lost: Counter[str] = Counter()
    for record in read_records(path, lambda line: _log.warning("%s", line, extra={"called": "note"})):
        texts = _answers(record.fields)
        if texts is None:
            raise InputError(
                f"{record.place}: no answer; expected choices, outputs, response, answer, completion or text, and the "
                f"fields here are {listed(record.fields)}"
            )
        if not texts:
            lost["an error or nothing in place of an answer"] += 1
            continue
        name = _joined(record.fields, ids, by_text)
        if name is None:
            lost["no question with its id or text"] += len(texts)
            continue
        found.setdefault(name, []).extend(texts)
    _say(path, lost, len(ids) - len(found))
    if not found:
        raise InputError(
            f"--answers {shown(path)}: no answer belongs to a question; each needs the question's id (id or custom_id) "
            "or its text (question or prompt)"
        )
    return found


def _say(path: Path, lost: Counter[str], without: int) -> None:
    if lost:
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in lost.most_common())
        _log.warning("%s: answers left out: %s", shown(path), reasons)
    if without:
        _log.warning("%s: %s without an answer", shown(path), f"{without:,} question{'' if without == 1 else 's'}")


def _joined(fields: Mapping[str, Any], ids: set[str], by_text: Mapping[str, list[str]]) -> str | None:
    """The id of the question that a record answers; None where none does, or its text is that of several."""
    for key in _IDS:
        value = fields.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() in ids:
            return str(value).strip()
    for text in _asked(fields):
        named = by_text.get(_plain(text), [])
        if len(named) == 1:
            return named[0]
    return None


def _asked(fields: Mapping[str, Any]) -> Iterable[str]:
    """Texts that may be the question: whole ones, then the lines of a prompt from the last, without labels."""
    request = _object(fields, "request")
    whole: list[str] = []
    for place in (fields, _object(fields, "doc"), request, _object(request, "body")):
        whole += [value for key in _QUESTIONS if isinstance(value := place.get(key), str)]
        messages = place.get("messages") or place.get("prompt")
        for message in reversed(_objects(messages)):
            if message.get("role") == "user" and (text := _content(message.get("content"))):
                whole.append(text)
                break
    yield from whole
    for text in whole:
        yield from (_LABEL.sub("", line) for line in reversed(_MARK.split(text)) if line.strip())


def _answers(fields: Mapping[str, Any]) -> list[str] | None:
    """The answers of a record: none where there is an error in their place; None where it has no field for them."""
    body = _body(fields)
    texts = _of_response(body)
    if texts is not None:
        return texts
    if fields.get("error"):
        return []
    for key in _TEXTS:
        if key in body and not isinstance(body[key], dict):
            return _listed(body[key])
    return [] if body is not fields or not fields.keys().isdisjoint(("response", "result", "custom_id")) else None


def _body(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The response itself, which batch files and logs wrap."""
    for key in ("response", "result", "body", "message"):
        inner = fields.get(key)
        if isinstance(inner, dict) and inner:
            return _body(cast("dict[str, Any]", inner))
    return fields


def _of_response(body: Mapping[str, Any]) -> list[str] | None:
    """Of a response as servers and libraries write them; None of anything else."""
    output = _objects(body.get("output"))
    if "choices" in body:  # chat completions and completions: OpenAI, vLLM and others
        found = [_said(_object(choice, "message")) or choice.get("text") for choice in _objects(body["choices"])]
    elif "candidates" in body:  # Gemini
        contents = [_object(one, "content") for one in _objects(body["candidates"])]
        found = [_content(content.get("parts")) for content in contents]
    elif any("type" in item for item in output):  # OpenAI's responses: reasoning and calls of tools beside messages
        found = [_said(item) for item in output if item.get("type") in (None, "message")]
    elif "content" in body and (body.get("role") == "assistant" or body.get("type") == "message"):  # Anthropic, Ollama
        found = [_said(body)]
    elif "generated_text" in body:  # TGI and pipelines; a conversation ends with the answer
        conversation = _objects(body["generated_text"])
        found = [_said(conversation[-1])] if conversation else _listed(body["generated_text"])
        found += [one.get("generated_text") for one in _objects(_object(body, "details").get("best_of_sequences"))]
    elif "filtered_resps" in body or "resps" in body:  # lm-evaluation-harness
        found = _strings(body.get("filtered_resps", body.get("resps")))
    else:
        return None
    return [text for text in found if isinstance(text, str)]


def _said(message: Mapping[str, Any]) -> str | None:
    """What a message says; where the API refused, that."""
    text = _content(message.get("content"))
    refusal = message.get("refusal")
    return refusal if text is None and isinstance(refusal, str) else text


def _strings(value: Any) -> list[str]:
    """Texts in lists of lists; none where log-probabilities stand beside them: choices that were scored, not said."""
    if isinstance(value, str):
        return [value]
    items = cast("list[Any]", value) if isinstance(value, list) else []
    if any(isinstance(item, int | float) for item in items):
        return []
    return [text for item in items for text in _strings(item)]


def _listed(value: Any) -> list[str]:
    """Texts of a field: one, or those of a list of texts or of objects with a text; an item without one is empty."""
    if value is None:
        return []
    items = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [_one(item) for item in items]


def _one(item: Any) -> str:
    if isinstance(item, dict):
        fields = cast("dict[str, Any]", item)
        keys = [
            key
            for key in ("text", "content", "answer", "completion", "generated_text")
            if isinstance(fields.get(key), str | list)
        ]
        return "" if not keys else _content(fields[keys[0]]) or ""
    if isinstance(item, bool):
        return "yes" if item else "no"
    return "" if item is None else str(item)


def _content(value: Any) -> str | None:
    """The text of a message, which may come in parts."""
    if isinstance(value, str):
        return value
    parts = [part.get("text", part.get("refusal")) for part in _objects(value)]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else None


def _object(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
