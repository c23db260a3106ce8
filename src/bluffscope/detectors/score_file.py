"""A file of texts through a detector, line by line: JSONL in, the same lines with their scores out."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO, cast

from bluffscope.detectors.score import Scorer, Text
from bluffscope.errors import InputError
from bluffscope.table.atomic import AtomicFile, writing

STANDARD: Final = "-"
_MOST_LINE: Final = 64 << 20
"""Characters of a line beyond which it is no line of a JSONL file."""


def score_file(scorer: Scorer, data: Path, out: Path | None, *, whole_texts: bool) -> int:
    """Score every line of a file; no more of them are in memory than the scorer takes at once.

    Args:
        scorer: what scores them.
        data: JSONL, "-" for standard input.
        out: where the lines go; without one to standard output. A file is put in place only once it is complete.
        whole_texts: whether lines may hold a text instead of prompt and completion.

    Returns:
        0, or 3 where some line could not be scored: it has a reason in place of its score.

    Raises:
        InputError: the file cannot be read, or a line is no object with what is needed.
        RunFolderError: the output cannot be written.
    """
    failed = False
    with _opened(data) as source, _target(out) as target:
        lines, texts = itertools.tee(_parsed(source, data, whole_texts))
        for (line, _), found in zip(lines, scorer.scores(text for _, text in texts), strict=True):
            scored: dict[str, Any] = {"probability": found.probability, "logit": found.logit}
            if found.alarm is not None:
                scored["alarm"] = found.alarm
            if found.reason is not None:
                scored["reason"], failed = found.reason, True
            target.write(json.dumps({**line, **scored}, ensure_ascii=True) + "\n")
            target.flush()
    return 3 if failed else 0


def _parsed(source: TextIO, data: Path, whole_texts: bool) -> Iterator[tuple[dict[str, Any], Text]]:
    number = 0
    try:
        for number, line in enumerate(iter(partial(source.readline, _MOST_LINE), ""), start=1):
            if line.strip():
                yield _item(line, f"--data {data}, line {number}", str(number - 1), whole_texts)
    except UnicodeDecodeError as error:
        raise InputError(f"--data {data}: line {number + 1} is not UTF-8; save the file as UTF-8") from error


def _item(line: str, where: str, number: str, whole_texts: bool) -> tuple[dict[str, Any], Text]:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON; give one object a line") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: no object; give one object a line")
    content = cast("dict[str, Any]", found)
    name = str(content.get("id", number))
    needed = ("text",) if "text" in content else ("prompt", "completion")
    if needed == ("text",) and not whole_texts:
        raise InputError(f"{where}: this detector needs prompt and completion, not text")
    for field in needed:
        if not isinstance(content.get(field), str):
            ways = "text, or prompt and completion" if whole_texts else "prompt and completion"
            raise InputError(f"{where}: {field} is {_kind(content.get(field))}; give {ways} as text")
    return content, Text(name, *(content[field] for field in needed))


def _kind(value: object) -> str:
    return "missing" if value is None else f"no text ({type(value).__name__})"


def _opened(data: Path) -> contextlib.AbstractContextManager[TextIO]:
    if str(data) == STANDARD:
        return contextlib.nullcontext(sys.stdin)
    try:
        return data.expanduser().open(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"--data {data}: cannot be read ({error.strerror}); give a JSONL file") from error


@contextlib.contextmanager
def _target(out: Path | None) -> Generator[TextIO, None, None]:
    """Standard output, or a hidden file that takes its name once everything is in it."""
    if out is None:
        yield sys.stdout
        return
    with writing(out), AtomicFile(out.parent, out.name) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", write_through=True)  # pyright: ignore[reportArgumentType]
        yield text
        text.detach()
        file.commit()
