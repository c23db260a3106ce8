"""study.json: what the answers in a study's folder answer to, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bluffscope.config import AskOptions
from bluffscope.errors import InputError
from bluffscope.pairs.record import shown
from bluffscope.runs.ask.questions import Question
from bluffscope.table.damage import read_json
from bluffscope.table.folder import write_json

RECORD: Final = "study.json"
ANSWERS: Final = "answers.jsonl"
_DECIDING: Final = (
    *("model", "revision", "dtype", "chat", "system"),
    *("samples", "temperature", "max_new_tokens", "shots", "seed"),
)
"""Options that answers follow from."""


def record_of(options: AskOptions, questions: Sequence[Question]) -> dict[str, Any]:
    """What answers follow from: options by name, and a digest of the questions' ids and texts."""
    said = json.dumps([[question.id, question.text] for question in questions])
    named = {name: getattr(options, name) for name in _DECIDING}
    if options.model is not None and (path := Path(options.model).expanduser()).exists():
        named["model"] = str(path.resolve())
    return {"asking": named, "questions": hashlib.blake2b(said.encode(), digest_size=16).hexdigest()}


def answers_there(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder has answers to all of this already.

    Args:
        folder: of the study.
        record: as `record_of` makes it.

    Raises:
        InputError: the folder has answers to other questions, by other options, or of unknown origin.
    """
    path, answers = folder / RECORD, folder / ANSWERS
    for file in (path, answers):
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise InputError(f"{shown(file)}: not a regular file; remove it, or give --out another folder")
    if not answers.exists():  # those on their way know themselves what they answer to
        return False
    if not path.exists():
        raise InputError(
            f"{shown(answers)}: answers that this command did not ask for; give --out another folder, or measure "
            f"them with: bluffscope analyze --data {shown(answers)}"
        )
    known = read_json(path)
    was = known.get("asking")
    if not isinstance(was, dict):
        raise InputError(f"{shown(path)}: damaged; remove it together with {ANSWERS}, or give --out another folder")
    changed = [
        f"--{name.replace('_', '-')} was {was.get(name)!r}, now {value!r}"
        for name, value in record["asking"].items()
        if was.get(name) != value
    ]
    if known.get("questions") != record["questions"]:
        changed.append("the questions are others")
    if changed:
        raise InputError(f"--out {shown(folder)}: {'; '.join(changed)}; give --out another folder")
    return True


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write study.json, before the answers are.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    write_json(folder / RECORD, record)


__all__ = ["ANSWERS", "RECORD", "answers_there", "record_of", "write_record"]
