"""Judged answers as labelled texts, one a line; what somebody corrected in them by hand is kept."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from bluffscope.errors import InputError
from bluffscope.pairs.readers import read_records
from bluffscope.pairs.record import shown
from bluffscope.runs.ask.judge import Judgement
from bluffscope.runs.ask.questions import Question
from bluffscope.table.atomic import write_bytes

LABELS: Final[Mapping[str, bool | None]] = {"right": True, "wrong": False, "refused": None, "empty": None}
"""What a verdict is as a label."""
Known = Literal["always", "sometimes", "never", "refused", "no answer"]
KNOWN: Final[tuple[Known, ...]] = ("always", "sometimes", "never", "refused", "no answer")
"""How often a model is right about a question; refused: no answer is right or wrong, and some decline."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """One judged answer: a line of the file."""

    id: str
    """The question's id, a slash and the answer's number, from 0."""
    group: str
    """The question's id."""
    domain: str
    prompt: str
    completion: str
    label: bool | None
    """Whether it is right; None where it declines or is empty."""
    label_by: Literal["judge", "hand"]
    verdict: str
    judge_reason: str
    cluster: str
    """The judge's normal form; empty for an empty answer."""
    answer_entropy: float | None
    """Nats over the clusters of the question's answers, without empty ones; None where all are empty."""
    answer_logprob: float | None = None
    """Of the answer given its prompt, in nats, what ended it included; None where it was generated elsewhere."""


@dataclass(frozen=True)
class Given:
    """A question's answers before they are judged."""

    texts: Sequence[str]
    prompt: str | None = None
    """As the model was asked; the question's text where that is not known."""
    logprobs: Sequence[float | None] | None = None


def judged(
    question: Question,
    texts: Sequence[str],
    judgements: Sequence[Judgement],
    *,
    prompt: str | None = None,
    logprobs: Sequence[float | None] | None = None,
) -> list[Answer]:
    """The answers to one question.

    Args:
        question: what was asked.
        texts: the answers.
        judgements: of each.
        prompt: as the model was asked; the question's text unless given.
        logprobs: of each answer, where they are known.
    """
    entropy = answer_entropy([found.cluster for found in judgements if found.verdict != "empty"])
    return [
        Answer(
            id=f"{question.id}/{number}",
            group=question.id,
            domain=question.domain,
            prompt=question.text if prompt is None else prompt,
            completion=text,
            label=LABELS[found.verdict],
            label_by="judge",
            verdict=found.verdict,
            judge_reason=found.reason,
            cluster=found.cluster,
            answer_entropy=entropy,
            answer_logprob=None if logprobs is None else logprobs[number],
        )
        for number, (text, found) in enumerate(zip(texts, judgements, strict=True))
    ]


def answer_entropy(clusters: Sequence[str]) -> float | None:
    """Entropy of how often each cluster occurs, in nats; None without any."""
    if not clusters:
        return None
    shares = [count / len(clusters) for count in Counter(clusters).values()]
    return max(0.0, -math.fsum(share * math.log(share) for share in shares))


def corrected(path: Path) -> dict[str, Answer]:
    """The answers of an earlier file whose label somebody changed, by id; none where there is no file.

    Raises:
        InputError: the file is not one that `write_answers` wrote.
    """
    if not path.exists():
        return {}
    return {
        answer.id: replace(answer, label_by="hand")
        for answer in read_written(path)
        if answer.label_by == "hand" or answer.label != LABELS[answer.verdict]
    }


def read_written(path: Path) -> list[Answer]:
    """The answers of a file, with labels that somebody may have changed.

    Raises:
        InputError: the file is not one that `write_answers` wrote.
    """
    found: list[Answer] = []
    for record in read_records(path, lambda _: None):
        fields = record.fields
        verdict = fields.get("verdict")
        if (
            not isinstance(verdict, str)
            or verdict not in LABELS
            or not Answer.__dataclass_fields__.keys() <= fields.keys()
        ):
            raise InputError(f"--out {record.place}: not a file of judged answers; give another file")
        if not isinstance(fields["label"], bool | None):
            raise InputError(f"{record.place}: label is {fields['label']!r}; expected true, false or null")
        found.append(Answer(**{key: fields[key] for key in Answer.__dataclass_fields__}))
    return found


def given_again(path: Path) -> dict[str, Given]:
    """The answers of a file as they were given, by the question's id: to be judged again.

    Raises:
        InputError: the file is not one that `write_answers` wrote.
    """
    by_question: dict[str, list[Answer]] = {}
    for answer in read_written(path):
        by_question.setdefault(answer.group, []).append(answer)
    return {
        name: Given(
            [answer.completion for answer in some],
            some[0].prompt,
            [answer.answer_logprob for answer in some],
        )
        for name, some in by_question.items()
    }


def with_corrections(answers: Iterable[Answer], by_hand: Mapping[str, Answer]) -> tuple[list[Answer], int]:
    """The answers with the labels that were changed by hand, where question and answer are still the same.

    Returns:
        The answers, and how many have a label by hand.
    """
    made: list[Answer] = []
    kept = 0
    for answer in answers:
        earlier = by_hand.get(answer.id)
        if earlier is not None and (earlier.prompt, earlier.completion) == (answer.prompt, answer.completion):
            answer = replace(answer, label=earlier.label, label_by="hand")
            kept += 1
        made.append(answer)
    if kept < len(by_hand):
        lost = len(by_hand) - kept
        _log.warning(
            "%s of an answer that is not there any more: not kept", f"{lost:,} label{'s' * (lost > 1)} by hand"
        )
    return made, kept


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write the answers as JSON lines, all or none.

    Raises:
        InputError: the path is a link, or no file.
        RunFolderError: the system refused.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"--out {shown(path)}: not a regular file; give another")
    lines = (json.dumps(asdict(answer), ensure_ascii=False) for answer in answers)
    # Half a surrogate pair, which a model's bytes may end in, cannot be written as UTF-8.
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))


def known(answers: Iterable[Answer]) -> dict[str, tuple[str, Known]]:
    """How often the model is right about each question: its domain and that, by its id."""
    by_question: dict[str, list[Answer]] = {}
    for answer in answers:
        by_question.setdefault(answer.group, []).append(answer)
    return {name: (some[0].domain, _known(some)) for name, some in by_question.items()}


def _known(answers: Sequence[Answer]) -> Known:
    said = [answer for answer in answers if answer.verdict != "empty" or answer.label is not None]
    right = sum(answer.label is True for answer in said)
    if right:
        return "always" if right == len(said) else "sometimes"
    if any(answer.label is False for answer in said):
        return "never"
    return "refused" if said else "no answer"
