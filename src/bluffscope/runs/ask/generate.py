"""A model's answers to questions: batch after batch, kept on disk as they come."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from bluffscope.config import AskOptions, WorkerOptions
from bluffscope.errors import InputError, RunFolderError, RunStopped, WorkerLostError
from bluffscope.host.signals import stoppable
from bluffscope.host.terminal import count
from bluffscope.runs.ask.asking import Asked, written
from bluffscope.runs.ask.draw import Prompt, alike, batched
from bluffscope.runs.ask.kept import Kept, Sample
from bluffscope.runs.ask.worker import AskWorker, Batch, askers
from bluffscope.runs.workers import Crew, check_engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replies:
    """What a model answered."""

    kept: Kept
    """The answers, and the file that holds them until they are written elsewhere."""
    prompts: Mapping[str, str]
    """As the model was asked, by the question's id."""
    left_out: Mapping[str, str]
    """Why a question was not answered, by its id."""
    peak_bytes: int
    """The most memory held where the model is; of several workers, the largest."""


@dataclass(frozen=True)
class Put:
    """Questions as the model is asked them."""

    prompts: list[Prompt]
    refused: dict[str, str]
    """Why a question cannot be asked, by its id."""
    batches: list[list[int]]
    """Places of the prompts that are asked together."""
    identity: dict[str, Any]
    """What the answers follow from."""


def put(worker: AskWorker, questions: Sequence[Asked], batch_size: int | None) -> Put:
    """What a worker makes of questions; asked where the model is.

    Args:
        worker: with the model.
        questions: whose ids are unique.
        batch_size: questions a batch; None for as many as memory allows.

    Raises:
        InputError: none of them can be asked.
    """
    asking = worker.asking
    prompts, refused = asking.prompts(questions)
    if not prompts:
        name, reason = next(iter(refused.items()))
        raise InputError(f"question {name!r}: {reason}; no question can be asked")
    size = batch_size or asking.questions_a_batch(prompts)
    digest = hashlib.blake2b(json.dumps([[one.id, one.ids] for one in prompts]).encode(), digest_size=16).hexdigest()
    identity = {"prompts": digest, "drawing": asdict(asking.drawing), "batch": size}
    batches = list(batched(prompts, size, alike(asking.model.config, asking.drawing.most_tokens)))
    return Put(prompts, refused, batches, identity | worker.describe().fingerprint)


def asked(options: AskOptions, where: WorkerOptions, questions: Sequence[Asked], out: Path, progress: Any) -> Replies:
    """Load the model and put the questions to it, those whose answers are on disk not again.

    Args:
        options: model, draw and examples.
        where: in which processes.
        questions: all of them, whose ids are unique; the first `options.shots` are examples.
        out: where judged answers will stand; what is answered so far is kept beside it until then.
        progress: told how many questions are answered.

    Raises:
        InputError: options, a model or questions that cannot be used.
        RunFolderError: the answers cannot be written.
        WorkerLostError: workers on Ray die.
        RunStopped: Ctrl-C or SIGTERM came. After each of these three, the same call goes on where it was.
    """
    options.check()
    if options.shots >= len(questions):
        raise InputError(f"--shots {options.shots}: leaves none of {len(questions)} questions to ask; give fewer")
    check_engine(where)
    shots, rest = questions[: options.shots], questions[options.shots :]
    with askers(options, where, shots) as crew:
        found: Put = crew.ask(partial(put, questions=rest, batch_size=options.batch_size))
        left_out = dict(found.refused)
        _say(left_out)
        kept = Kept(out.with_name(f"{out.name}.part"), found.identity)
        kept.open()
        with _going_on():
            lost = _ask(crew, found, kept, progress)
        _say(lost)
        texts = {one.id: written(one.text, shots, chat=options.chat) for one in rest if one.id in kept.samples}
        return Replies(kept, texts, left_out | lost, crew.tally().peak_bytes)


def _ask(crew: Crew, found: Put, kept: Kept, progress: Any) -> dict[str, str]:
    """Ask what is not on disk yet; returns why a question could not be, by its id."""
    lost: dict[str, str] = {}

    def missing() -> Iterator[Batch]:
        for number, places in enumerate(found.batches):
            batch = tuple(found.prompts[place] for place in places)
            # What a disk that was full took a part of is drawn whole again: answers follow from the whole batch.
            if not all(one.id in kept.samples for one in batch):
                yield Batch(number, batch)

    def commit(_: Batch, frame: pl.DataFrame) -> None:
        kept.add({row["id"]: [Sample(**one) for one in row["samples"]] for row in frame.to_dicts() if row["samples"]})
        lost.update({row["id"]: row["reason"] for row in frame.to_dicts() if row["reason"]})

    with stoppable() as check:

        def advance(questions: int) -> None:
            progress.advance(questions)
            check()

        progress.start(sum(len(batch.items) for batch in missing()))
        try:
            crew.run(list(missing()), commit, advance)
        finally:
            progress.finish()
    return lost


def _say(left_out: Mapping[str, str]) -> None:
    if left_out:
        name, reason = next(iter(left_out.items()))
        _log.warning("%s left out, the first %r: %s", count(len(left_out), "question"), name, reason)


@contextmanager
def _going_on() -> Generator[None, None, None]:
    """Within the block, whatever ends the run says how it goes on."""
    try:
        yield
    except (RunFolderError, WorkerLostError) as error:
        raise type(error)(f"{error}; answers so far are kept: run the same command again") from error
    except KeyboardInterrupt as stop:
        raise RunStopped(getattr(stop, "signal_number", signal.SIGINT), "the same command") from stop
