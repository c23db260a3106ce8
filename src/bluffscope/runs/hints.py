"""What a run could do better: why it was slow, and what its options cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl
import torch

from bluffscope.config import RunConfig
from bluffscope.metrics import P_TRUE
from bluffscope.pipeline.batch_size import MOST_BATCH_TOKENS
from bluffscope.pipeline.memory import pairs
from bluffscope.records import PAIRS, STATEMENTS

SLOW_SECONDS: Final = 10.0
"""Of measuring: a shorter run is not worth a hint."""
STABLE: Final = 0.96
"""A mean stability above this says nothing of the texts: the noise is too small."""
_FEW: Final = 0.25
"""Share of a full batch's tokens below which a forward is small."""


def slow_hints(config: RunConfig, seconds: float, marks: Sequence[str], computed: Mapping[str, int]) -> list[str]:
    """One line for each reason, with what to do; none for a run that was not slow.

    Args:
        config: the run's options, with everything frozen in.
        seconds: that measuring took, loading apart.
        marks: what disturbed it (`bluffscope.host.machine.Watch`).
        computed: forwards and tokens done.
    """
    if seconds < SLOW_SECONDS:
        return []
    found: list[str] = []
    # Workers of a cluster are not this process's children: their load looks like that of others.
    for mark in marks if config.engine.address is None else ():
        if mark == "swapping":
            found.append("the machine was swapping: use a smaller --batch-size, --dtype bfloat16 or a smaller model")
        else:
            found.append(f"{mark} while this ran: close other programs for full speed")
    engine, device = config.engine, config.model.device
    here = engine.engine == "local" and device == "cpu"
    if here and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        found.append("this machine's GPU was not used: --device auto takes it")
    if engine.strategy in ("sequential", "separate"):
        found.append(f"--strategy {engine.strategy} measures one text at a time: packed produces the same table faster")
    elif engine.batch_size != "auto" and computed.get("forwards", 0) > 1:
        full = MOST_BATCH_TOKENS[device]
        if computed["tokens"] < _FEW * full * computed["forwards"]:
            most = pairs(full, computed["tokens"] / (computed["forwards"] * engine.batch_size))
            found.append(f"{engine.batch_size} pairs per forward pass are few: --batch-size auto uses about {most}")
    return found


def unasked_hints(metrics: pl.DataFrame) -> list[str]:
    """A line where the model could not be asked about every completion."""
    named = (column.name for items in (PAIRS, STATEMENTS) for column in P_TRUE.columns((), items))
    columns = [name for name in named if name in metrics.columns]
    if not columns or not (lacking := metrics.filter(pl.any_horizontal(pl.col(columns).is_null())).height):
        return []
    return [
        f"P(True) is unknown in {lacking:,} of {metrics.height:,} rows: with the question the text is longer than the "
        "model's context, or the chat template refuses it"
    ]


def noise_hints(config: RunConfig, metrics: pl.DataFrame) -> list[str]:
    """A line where noise in activation units is so small beside the residuals that every text is stable."""
    columns = [name for name in ("stability_fact", "stability_hall", "stability") if name in metrics.columns]
    measure = config.measure
    if measure.noise_mode == "relative" or not columns:
        return []
    mean = pl.concat([metrics[name].alias("stability") for name in columns]).mean()
    if not isinstance(mean, float) or mean < STABLE:
        return []
    return [
        f"stability is {mean:.2f} on average: noise of {measure.noise_std:g} is small beside these residuals; "
        "--noise-mode relative scales it to their size"
    ]
