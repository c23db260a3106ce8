"""What the benchmark measures: jobs, each for a process of its own, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from bluffscope.compare.bench.texts import Sharing

Piece = Literal["text by text", "one by one", "dense", "whole model", "no pooling", "no read-ahead"]
PIECES: Final[tuple[Piece, ...]] = get_args(Piece)
"""Of the first engine, in the order in which the steps of the ladder replace them: each text in a forward of its own,
each residual encoded in a call of its own, geometry from the d x d matrix, all blocks and the LM head, memory that is
given back and taken again, and no shard read ahead or written behind."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One stretch of work that is timed."""

    pairs: int
    batch_size: Literal["auto"] | int = "auto"
    sharing: Sharing = "bundled"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process builds, and what it measures with it."""

    shape: str
    step: str
    """What the record is called: a strategy, or a step of the ladder."""
    strategy: Literal["packed", "batched", "sequential", "separate"] = "packed"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    quantize: Literal["none", "int8"] = "none"
    measurements: tuple[Measurement, ...] = ()
    older: tuple[Piece, ...] = ()
    """Pieces that the engine has left behind and that stand in for those that replaced them."""
    warm_pairs: int = 1
    """Pairs measured beforehand, not counted."""
    limit: bool = False
    """Also measure this machine's matrix-product peak at the shape's sizes."""


_LADDER: Final[tuple[tuple[str, dict[str, Any], Literal["auto"] | int, tuple[int, int, int]], ...]] = (
    ("separate", {"strategy": "separate"}, "auto", (10, 4, 1)),
    ("sequential", {"strategy": "sequential"}, "auto", (20, 6, 2)),
    ("one forward for all layers", {"strategy": "batched", "older": PIECES}, 1, (40, 10, 2)),
    ("batched", {"older": PIECES[1:]}, 8, (40, 16, 8)),  # as is often recommended (docs/speed.md)
    ("vectorised encode", {"older": PIECES[2:]}, 8, (40, 16, 8)),
    ("Gram geometry", {"older": PIECES[3:]}, 8, (200, 64, 16)),
    ("early exit", {"older": PIECES[4:]}, "auto", (1000, 200, 64)),
    ("token tries", {"strategy": "packed"}, "auto", (1000, 400, 200)),
    ("memory pooling", {"older": PIECES[5:]}, "auto", (1000, 400, 200)),
    ("async I/O", {"older": (), "limit": True}, "auto", (1000, 400, 200)),
    ("bfloat16", {"dtype": "bfloat16"}, "auto", (1000, 400, 200)),
    ("int8", {"quantize": "int8", "limit": False}, "auto", (1000, 400, 200)),
)
"""Each step: what it changes of the one before (the first two are strategies of their own), its pairs a forward, and as
few pairs as give a stable rate at the shapes demo, mid and gemma-2-2b."""
STEPS: Final = tuple(step for step, *_ in _LADDER)
STRATEGIES: Final = {"packed": "async I/O"}
"""The step at which a strategy stands that is no step itself: packed, as a run has it in float32."""
BATCH_SIZES: Final = (1, 4, 8, 16, 32)
GROWTH: Final = (100, 1000, 10_000)
_BATCHING: Final[tuple[Literal["batched", "packed"], ...]] = ("batched", "packed")


def ladder(shape: str, steps: Sequence[str] = STEPS) -> Iterator[Job]:
    """A job for each step, slowest first; the one of all float32 steps also measures the machine's limit."""
    place = ("demo", "mid", "gemma-2-2b").index(shape)
    job = Job(shape=shape, step="")
    for step, changes, size, pairs in _LADDER:
        job = replace(job, step=step, measurements=(Measurement(pairs=pairs[place], batch_size=size),), **changes)
        if step in steps:
            yield job


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
