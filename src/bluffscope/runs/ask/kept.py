"""Answers of a model on disk as they come, so that nothing is asked twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bluffscope.errors import InputError
from bluffscope.table.atomic import writing
from bluffscope.table.links import open_plain


@dataclass(frozen=True)
class Sample:
    """One answer as text."""

    text: str
    logprob: float
    """In nats, what ended it included."""
    ended: bool


class Kept:
    """Answers on disk, a line a question, so that nothing is asked twice; the first line says what they answer to."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._head = json.dumps(identity, sort_keys=True)
        self.samples: dict[str, list[Sample]] = {}

    def open(self) -> None:
        """Take in what is there.

        Raises:
            InputError: it answers to other questions, options or another model.
        """
        with writing(self._path):
            if self._path.is_symlink():
                raise InputError(f"{self._path}: a link; remove it, or give --out another name")
            if not self._path.exists():
                self._append(self._head)
                return
            lines = self._path.read_bytes().split(b"\n")
        if lines[0] != self._head.encode():
            raise InputError(
                f"{self._path}: answers of other options, questions or another model, not finished; remove it, or give "
                "--out another name"
            )
        whole = 0
        for line in lines[:-1]:  # what follows the last end of line was cut off
            whole += len(line) + 1
            if line != lines[0]:
                try:
                    found = json.loads(line)
                    self.samples[found["id"]] = [Sample(**sample) for sample in found["samples"]]
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    raise InputError(f"{self._path}: damaged; remove it, and the questions are asked again") from error
        with writing(self._path):
            os.truncate(self._path, whole)

    def add(self, answers: Mapping[str, Sequence[Sample]]) -> None:
        """Keep the answers to some questions for good, together; those that are there already stay."""
        new = {name: list(samples) for name, samples in answers.items() if name not in self.samples}
        self._append(
            *(json.dumps({"id": name, "samples": [asdict(sample) for sample in new[name]]}) for name in new),
        )
        self.samples |= new

    def _append(self, *lines: str) -> None:
        left = "".join(f"{line}\n" for line in lines).encode()
        with writing(self._path):
            descriptor = open_plain(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                while left:  # once, but on a disk that is nearly full
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Everything is elsewhere now."""
        self._path.unlink(missing_ok=True)
