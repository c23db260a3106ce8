"""Who asks: a worker in this process, or several on Ray, each with the model; a batch of questions is a shard."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import polars as pl
import torch

from bluffscope import __version__
from bluffscope.config import NO_SAE, AskOptions, MeasureOptions, ModelOptions, WorkerOptions
from bluffscope.config.layers import LayerSlice
from bluffscope.engine.base import Advance
from bluffscope.engine.placement import Node, Placement
from bluffscope.host.chat import Chat
from bluffscope.host.machine import device_peak
from bluffscope.host.stopwatch import Stopwatch, Tally
from bluffscope.model import load_model
from bluffscope.model.load import choose_device
from bluffscope.pipeline.batch_size import SHARE, plan_run, run_footprint
from bluffscope.records import Stretch
from bluffscope.runs.ask.asking import BATCH_BYTES, Asked, Asking
from bluffscope.runs.ask.draw import Answer, Drawing, Prompt, draw
from bluffscope.runs.ask.kept import Sample
from bluffscope.runs.identity import placeless
from bluffscope.runs.workers import Crew, crew_on_ray, device_of_all, here, placed, settle_worker, warn_of_rays_own

Batch = Stretch[Prompt]
"""Questions that are asked together."""
_ANSWERED: Final = {
    "id": pl.String(),
    "samples": pl.List(pl.Struct({"text": pl.String(), "logprob": pl.Float64(), "ended": pl.Boolean()})),
    "reason": pl.String(),
}
"""A question in a row: its answers, or why there are none."""


@dataclass(frozen=True)
class Described:
    """What a worker says of its model; travels between processes."""

    fingerprint: Any
    """What answers follow from: weights and precision."""

    def rejected(self, shard: Batch, reason: str) -> pl.DataFrame:
        """The table of a batch that cannot be asked."""
        return pl.DataFrame([{"id": one.id, "reason": reason} for one in shard.items], schema=_ANSWERED)


@dataclass(frozen=True)
class AskWorker:
    """Asks batches of questions, in this process or another."""

    asking: Asking
    stops: Sequence[int]
    """Tokens that end an answer."""
    stopwatch: Stopwatch

    def prepare(self, shard: Batch) -> Batch:
        """Nothing: prompts are token ids already."""
        return shard

    def measure(self, prepared: Batch, advance: Advance) -> tuple[Batch, list[list[Answer]]]:
        """Draw the answers of a batch."""
        with self.stopwatch.stage("forward"):
            asking = self.asking
            found = draw(asking.model, prepared.items, asking.drawing, self.stops, lambda: advance(0))
        advance(len(found))
        return prepared, found

    def tabulate(self, measured: tuple[Batch, list[list[Answer]]]) -> pl.DataFrame:
        """The answers as text, a question a row."""
        rows = [
            {"id": one.id, "samples": [asdict(self._sample(answer)) for answer in answers]}
            for one, answers in zip(measured[0].items, measured[1], strict=True)
        ]
        return pl.DataFrame(rows, schema=_ANSWERED)

    def _sample(self, answer: Answer) -> Sample:
        return Sample(self.asking.text(answer), answer.logprob, answer.ended)

    def describe(self) -> Described:
        """What it loaded."""
        model = self.asking.model
        return Described({"model": placeless(model.identity), "dtype": str(model.dtype)})

    def tally(self) -> Tally:
        """What it has done so far."""
        return Tally(dict(self.stopwatch.seconds), {}, device_peak(self.asking.model.device.type))

    def answer(self, question: Any) -> Any:
        """What `question` returns for this worker."""
        return question(self)


def load_worker(options: AskOptions, shots: Sequence[Asked], stopwatch: Stopwatch) -> AskWorker:
    """Load the model.

    Raises:
        InputError: it cannot be loaded, or has no chat template where one is asked for.
    """
    assert options.model is not None
    with stopwatch.stage("load"):
        model = load_model(
            options.model,
            revision=options.revision,
            blocks=None,
            device=choose_device(options.device),
            dtype=getattr(torch, options.dtype),
            head=True,
        )
        chat = Chat.of(model.name, model.tokenizer, options.system) if options.chat else None
        drawing = Drawing(options.samples, options.temperature, options.max_new_tokens, options.seed)
        asking = Asking(model, drawing, chat, shots)
        return AskWorker(asking, asking.stops(), stopwatch)


@dataclass(frozen=True)
class AskFactory:
    """Makes the worker in whatever process it is called."""

    options: AskOptions
    shots: tuple[Asked, ...]
    threads: int
    """Cores that the worker may use."""
    version: str = __version__
    """Of the package that the driver has."""

    def __call__(self) -> AskWorker:
        """Load the model."""
        settle_worker(self.version, self.threads)
        return load_worker(self.options, self.shots, Stopwatch())


@contextmanager
def askers(options: AskOptions, where: WorkerOptions, shots: Sequence[Asked]) -> Generator[Crew, None, None]:
    """The workers, loaded; those in other processes are gone when the block is left.

    Raises:
        InputError: model or machines that cannot be had.
    """
    stopwatch = Stopwatch()
    if where.engine == "local":
        warn_of_rays_own(where)
        # Nothing waits behind the model: what is drawn is on disk before the next batch begins.
        yield here(load_worker(options, shots, stopwatch), depth=0)
        return
    everything = (LayerSlice("all"),)
    chosen = ModelOptions(
        model=options.model,
        revision=options.revision,
        sae=NO_SAE,
        layers=everything,
        device="cpu",  # the driver may have no GPU
        dtype=options.dtype,
    )
    shape = plan_run(chosen, whole=True).shape

    def plan(nodes: Sequence[Node], _: Any) -> tuple[AskFactory, Placement]:
        device = device_of_all(options.device, nodes)
        found = run_footprint(shape, device, MeasureOptions())
        needed = int((found.weights + found.process + found.working + BATCH_BYTES) / SHARE)
        shared = found.weights if device == "cpu" and not found.loading else 0
        placement = placed(where.workers, device, nodes, needed, shared)
        return AskFactory(replace(options, device=device), tuple(shots), placement.cores), placement

    with crew_on_ray(where, stopwatch, plan) as crew:
        yield crew
