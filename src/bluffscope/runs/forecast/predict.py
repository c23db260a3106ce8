"""From work and rates to seconds, memory, and what a run will wait for."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

import torch

from bluffscope.config import EngineOptions, ForecastOptions, RunConfig
from bluffscope.config.demo import model_dir
from bluffscope.config.presets import DEMO_NAME, resolve
from bluffscope.errors import InputError
from bluffscope.host.hub import hub_or_cache
from bluffscope.host.machine import free_memory
from bluffscope.model.load import load_tokenizer
from bluffscope.pairs import open_source
from bluffscope.pipeline.batch_size import (
    ROW_TOKENS,
    SHARE,
    Planned,
    batch_tokens,
    plan_run,
    predicted_peak,
    run_footprint,
    sized,
)
from bluffscope.pipeline.memory import SMALLEST_BATCH, Footprint, Shape, cell_cost
from bluffscope.pipeline.plan import BatchLimits, TextTokenizer
from bluffscope.runs.forecast.rates import GPUS, Rates, gpu_rates, measured_rates
from bluffscope.runs.forecast.work import Counted, Work, count_sample, whole_work

START_SECONDS: Final = 6.0
"""Imports and the first batch."""
PAIR_SECONDS: Final = 1.2e-4
"""Of a pair's row, from arrays to the shard's file."""
FEATURE_SECONDS: Final = 2e-7
"""Of a row of features.parquet."""
MERGE_SECONDS: Final = 1e-5
"""Of a pair when the shards are merged, its features apart (those count `FEATURE_SECONDS` once more)."""


@dataclass(frozen=True)
class Prediction:
    """Seconds of a run on so many workers."""

    name: str
    workers: int
    start: float
    """Imports and loading, once for each worker, side by side."""
    forward: float
    sae: float
    geometry: float
    """Geometry and noise, on the processor."""
    tokenise: float
    write: float
    """Rows and shards."""
    driver: float
    """What one process does whatever the workers: the data read twice, and the merge."""
    beside: bool
    """Whether tokenising and writing run beside the model."""
    memory: int
    """The most bytes that a worker holds where its model is."""
    memory_there: float
    """Bytes that it may have there."""

    @property
    def measuring(self) -> float:
        """From the first batch to the last."""
        model, files = self.forward + self.sae + self.geometry, self.tokenise + self.write
        return max(model, files) if self.beside else model + files

    @property
    def total(self) -> float:
        """Of the whole run, but for its linter and its report, whose work is bounded."""
        return self.start + self.measuring + self.driver

    @property
    def fits(self) -> bool:
        """Whether a worker's memory does."""
        return self.memory <= self.memory_there

    @property
    def slowest(self) -> str:
        """The part that takes the most time."""
        parts = {
            "the forward": self.forward,
            "encoding": self.sae,
            "geometry, noise": self.geometry,
        }
        parts |= {"tokenising": self.tokenise, "rows and shards": self.write}
        parts |= {"the one driver": self.driver, "loading": self.start}
        return max(parts, key=lambda part: parts[part])


@dataclass(frozen=True)
class Forecast:
    """What a run will take."""

    planned: Planned
    counted: Counted
    work: Work
    here: Prediction
    there: Prediction | None
    """On the GPUs that were named."""


def forecast(config: RunConfig, options: ForecastOptions) -> Forecast:
    """What a run with these options will take; nothing is written, and no weights are loaded.

    Raises:
        InputError: as a run for its options and data; or a strategy that has no forecast.
    """
    if config.engine.strategy not in ("packed", "batched"):
        raise InputError(f"--dry-run: no forecast for --strategy {config.engine.strategy}; use packed or batched")
    _check(options)
    started = time.perf_counter()
    source = open_source(config.data)
    scan = source.scan()
    reading = time.perf_counter() - started
    config = replace(config, model=resolve(config.model))
    planned = plan_run(config.model, logprob=config.measure.logprob, weights=False)
    dtype: torch.dtype = getattr(torch, planned.dtype)
    found = run_footprint(planned.shape, planned.device, config.measure)
    engine, there_memory = _batches(config, planned, found, options.gpu_kind)
    counted = count_sample(source, _tokenizer(config), _limits(engine, planned), engine)
    if counted.refused == counted.pairs:
        raise InputError(f"--dry-run: none of {counted.pairs} sampled pairs can be measured; see bluffscope lint")
    work = whole_work(counted, scan.count, planned.shape, config.measure)
    host = measured_rates(planned.shape, dtype)
    peak = predicted_peak(engine, found, scan.count) or 0
    here = _predicted(work, counted, planned.shape, host, 1, reading)
    here = replace(here, memory=peak, memory_there=free_memory(planned.device))
    there = None
    if options.gpu_kind is not None:
        rates = gpu_rates(options.gpu_kind, host, dtype)
        there = _predicted(work, counted, planned.shape, rates, options.gpus, reading)
        there = replace(there, memory=there_memory, memory_there=GPUS[options.gpu_kind].memory)
    return Forecast(planned, counted, work, here, there)


def _check(options: ForecastOptions) -> None:
    if options.gpus < 1:
        raise InputError(f"--gpus {options.gpus}: give at least 1")
    if options.gpu_kind is not None and options.gpu_kind not in GPUS:
        raise InputError(f"--gpu-kind {options.gpu_kind}: unknown; choose from {', '.join(GPUS)}")


def _predicted(work: Work, counted: Counted, shape: Shape, rates: Rates, workers: int, reading: float) -> Prediction:
    """Seconds of the work where each worker takes its share."""
    cells = work.attention / (4 * shape.head_dim)  # of all heads and blocks
    forward = (work.products + work.attention) / rates.products + cells * rates.cell_seconds
    forward += work.forwards * shape.blocks * rates.forward_seconds
    loaded = shape.weights + sum(sae.weights for sae in shape.saes)
    geometry = work.reads * len(shape.saes) * rates.geometry_seconds + work.noise / rates.noise_numbers
    rows = work.pairs * PAIR_SECONDS + work.features * FEATURE_SECONDS
    return Prediction(
        name=rates.name,
        workers=workers,
        start=START_SECONDS + loaded * rates.seconds_a_byte,
        forward=forward / workers,
        sae=work.encode / rates.encode / workers,
        geometry=geometry / workers,
        tokenise=counted.seconds * work.pairs / counted.pairs / workers,
        write=rows / workers,
        driver=2 * reading + work.pairs * MERGE_SECONDS + work.features * FEATURE_SECONDS,
        beside=rates.apart,
        memory=0,
        memory_there=0.0,
    )


def _tokenizer(config: RunConfig) -> TextTokenizer:
    name = config.model.model
    assert name is not None  # resolve sees to it
    location = str(model_dir()) if name == DEMO_NAME else name
    with hub_or_cache([location]):
        found = load_tokenizer(location, config.model.revision, weights=False)
    bos = found.tokenizer.bos_token_id
    return TextTokenizer(
        tokenizer=found.tokenizer,
        bos=None if bos is None else int(bos),  # pyright: ignore[reportArgumentType]
        position=config.measure.position,
        join=config.data.join,
        context=found.context,
        logprob=config.measure.logprob,
    )


def _limits(engine: EngineOptions, planned: Planned) -> BatchLimits:
    shape = planned.shape
    assert engine.batch_tokens is not None and engine.row_tokens is not None  # sized fills them in
    return BatchLimits(
        batch_size=engine.batch_size,
        batch_tokens=engine.batch_tokens,
        row_tokens=engine.row_tokens,
        cell_cost=cell_cost(shape.heads, shape.head_dim, shape.block_weights),
        lengths=planned.lengths,
    )


def _batches(config: RunConfig, planned: Planned, found: Footprint, kind: str | None) -> tuple[EngineOptions, int]:
    """The options with the batches' limits filled in, for the GPU that is named or else for here; its peak memory."""
    if kind is None:
        return sized(config.engine, planned.device, found), 0
    beside = run_footprint(planned.shape, "cuda", config.measure)
    rows = config.engine.row_tokens or ROW_TOKENS
    fitting = batch_tokens(beside, "cuda", rows, int(GPUS[kind].memory * SHARE))
    tokens = config.engine.batch_tokens or fitting or SMALLEST_BATCH
    peak = beside.peak(tokens, rows) if fitting else beside.least_needed(rows)
    return replace(config.engine, batch_tokens=tokens, row_tokens=rows), peak
