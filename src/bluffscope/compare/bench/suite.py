"""Which jobs make up the benchmark, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from bluffscope.compare.bench.spec import Job, Measurement

STEPS: Final = (
    "separate",
    "sequential",
    "one forward for all layers",
    "batched",
    "vectorised encode",
    "Gram geometry",
    "early exit",
    "token tries",
    "memory pooling",
    "async I/O",
    "bfloat16",
    "int8",
)
"""The ladder, each step on top of those before; the first two are strategies of their own."""
STRATEGIES: Final = {"packed": "async I/O"}
"""The step at which a strategy stands that is no step itself: packed, as a run has it in float32."""
BATCH_SIZES: Final = (1, 4, 8, 16, 32)
PAIRS: Final[dict[str, tuple[int, ...]]] = {
    # as few as give a stable rate: of each step of the ladder, in the order of STEPS
    "demo": (10, 20, 40, 40, 40, 200, 1000, 1000, 1000, 1000, 1000, 1000),
    "mid": (4, 6, 10, 16, 16, 64, 200, 400, 400, 400, 400, 400),
    "gemma-2-2b": (1, 2, 2, 8, 8, 16, 64, 200, 200, 200, 200, 200),
}
GROWTH: Final = (100, 1000, 10_000)
_BATCHING: Final[tuple[Literal["batched", "packed"], ...]] = ("batched", "packed")
_GUIDE_BATCH: Final = 8
"""Pairs a forward of the step "batched": what is often recommended (docs/speed.md)."""


def ladder(shape: str, steps: Sequence[str] = STEPS) -> Iterator[Job]:
    """A job for each step, slowest first; the one of all float32 steps also measures the machine's limit."""
    old = Job(
        shape=shape,
        step="",
        strategy="batched",
        whole=True,
        text_by_text=True,
        one_by_one=True,
        dense=True,
        pooled=False,
        depth=0,
    )
    batched = replace(old, text_by_text=False)
    vectorised = replace(batched, one_by_one=False)
    gram = replace(vectorised, dense=False)
    early = replace(gram, whole=False)
    tries = replace(early, strategy="packed")
    pooled = replace(tries, pooled=True)
    full = Job(shape=shape, step="")
    half = replace(full, dtype="bfloat16")
    jobs = (
        replace(full, strategy="separate"),
        replace(full, strategy="sequential"),
        old,
        batched,
        vectorised,
        gram,
        early,
        tries,
        pooled,
        replace(full, limit=True),
        replace(half, limit=True),
        replace(half, quantize="int8"),
    )
    for step, job, pairs in zip(STEPS, jobs, PAIRS[shape], strict=True):
        if step in steps:
            sized = _GUIDE_BATCH if step in STEPS[3:6] else 1 if step == STEPS[2] else "auto"
            yield replace(job, step=step, measurements=(Measurement(pairs=pairs, batch_size=sized),))


def batch_sizes(shape: str, sizes: Sequence[int] = BATCH_SIZES) -> Iterator[Job]:
    """Packed and batched at each number of pairs a forward, then at as many as auto takes; each in one process."""
    least = 200 if shape == "demo" else 32
    for strategy, most in zip(_BATCHING, (64, 200), strict=True):
        times = [Measurement(pairs=max(least, size), batch_size=size) for size in sorted(sizes)]
        times = (*times, Measurement(pairs=max(least, most)))
        yield Job(shape=shape, step="batch sizes", strategy=strategy, measurements=times)


def sharing(shape: str) -> Iterator[Job]:
    """Packed and batched on prompts that share nothing, a sentence, and a page of 300 tokens."""
    for strategy, counts in zip(_BATCHING, ((32, 16, 4), (64, 64, 64)), strict=True):
        times = tuple(
            Measurement(pairs=count * (5 if shape == "demo" else 1), sharing=kind)
            for kind, count in zip(("none", "short", "long"), counts, strict=True)
        )
        yield Job(shape=shape, step="sharing", strategy=strategy, measurements=times)


def growth() -> Iterator[Job]:
    """The embedded model on more and more pairs, each in a fresh process."""
    for count in GROWTH:
        yield Job(shape="demo", step="growth", measurements=(Measurement(pairs=count),), warm_pairs=100)
