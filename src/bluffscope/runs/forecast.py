"""What a run will take, before it is started: the tokens of a sample, and rates measured here in about two seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from bluffscope.config import ForecastOptions, OutputOptions, RunConfig
from bluffscope.config.presets import resolved
from bluffscope.errors import InputError
from bluffscope.host.chat import Chat
from bluffscope.host.machine import free_memory
from bluffscope.host.stopwatch import Stopwatch, best_seconds
from bluffscope.metrics.geometry import measure_geometry
from bluffscope.model.load import load_tokenizer
from bluffscope.pairs import Scan, open_source
from bluffscope.pipeline.batch_size import Planned, batch_limits, predicted_peak, run_footprint, sized
from bluffscope.pipeline.by_default import plan_settled, too_much
from bluffscope.pipeline.memory import CELL_FLOPS, Shape
from bluffscope.pipeline.plan import BatchLimits, TextTokenizer, plan_batches, with_questions
from bluffscope.pipeline.shard import cut_shards, lay_out
from bluffscope.records import Features, Shard, Tokenized
from bluffscope.runs.gpus import CORES_A_GPU, GPUS, REACHED, geometry_seconds
from bluffscope.runs.options import keeping_tokens, refuse_unlabelled_tokens
from bluffscope.table.space import NUMBER_OF_A_RESIDUAL, free_bytes

SAMPLE_PAIRS: Final = 2000
"""Pairs that are tokenised, in whole shards spread evenly over the input: neighbours share prefixes."""
ROWS: Final = 1024
"""Rows of the products that are timed: a batch of the engine."""
_WIDEST: Final = 32 << 20
"""Numbers of the largest matrix that is timed; wider ones run at no other rate."""
_READS: Final = 48
START_SECONDS: Final = 6.0
"""Imports and the first batch."""
LOAD_BYTES_A_SECOND: Final = 1e9
NOISE_A_SECOND: Final = 5e7
"""Normal numbers, on one core of a processor, wherever the model is."""
PAIR_SECONDS: Final = 1.2e-4
"""Of a pair's row, from arrays to the shard's file."""
MERGE_SECONDS: Final = 1e-5
"""Of a pair when the shards are merged, its features apart."""
FEATURE_SECONDS: Final = 2e-7
"""Of a row of features.parquet, when it is written and when it is merged."""


@dataclass(frozen=True)
class Work:
    """A run's work in proportion to its sample's, in floating-point operations unless stated otherwise."""

    pairs: int
    sampled: int
    """Pairs of the sample."""
    refused: int
    """Of those, the ones that the run would quarantine."""
    tokenising: float
    """Seconds of all pairs, for token ids, batches and tries."""
    tokens: float
    """Distinct tokens: nodes of the tries."""
    slots: float
    """Slots of all rows, their padding included."""
    reads: float
    """Reads at each layer."""
    further: float
    """Reads at further positions, of which residuals are kept."""
    forwards: float
    noise: float
    """Normal numbers of the stability analysis."""
    features: float
    """Rows of features.parquet."""
    products: float
    """Of the blocks' matrix products, and of the LM head where it is loaded."""
    attention: float
    """Of attention, mask and softmax included."""
    encode: float
    """Of encoding, the noisy draws included."""
    geometry: float
    """Of the Gram matrices."""

    @property
    def total(self) -> float:
        """All floating-point operations."""
        return self.products + self.attention + self.encode + self.geometry


@dataclass(frozen=True)
class Prediction:
    """A run on so many workers."""

    name: str
    workers: int
    seconds: Mapping[str, float]
    """By stage, in their order."""
    memory: int
    """The most bytes that a worker holds where its model is."""
    memory_there: float
    """Bytes that it may have there."""

    @property
    def measuring(self) -> float:
        """Seconds that grow with the pairs and shrink with the workers."""
        return sum(list(self.seconds.values())[1:-1])

    @property
    def total(self) -> float:
        """Seconds of the whole run, but for its linter and its report, whose work is bounded."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Residuals:
    """What residuals.parquet will take."""

    size: int
    """Bytes."""
    kept: bool
    why_not: str | None
    """Where nobody said that they are not kept."""

    @classmethod
    def of(cls, output: OutputOptions, work: Work, shape: Shape) -> Residuals:
        """Those of a run with this work."""
        size = int((work.reads + work.further) * NUMBER_OF_A_RESIDUAL * sum(sae.d_in for sae in shape.saes))
        if output.keep_residuals != "auto":
            return cls(size, output.keep_residuals == "on", None)
        why_not = too_much(size, free_bytes(output.out or Path("runs")))
        return cls(size, why_not is None, why_not)


@dataclass(frozen=True)
class Forecast:
    """What a run will take."""

    planned: Planned
    work: Work
    here: Prediction
    there: Prediction | None
    """On the GPUs that were named."""
    scan: Scan
    """What was found in the data."""
    residuals: Residuals
    unmeasured: str | None
    """Why log-probabilities will not be measured although nobody said so; None otherwise."""


def forecast(config: RunConfig, options: ForecastOptions) -> Forecast:
    """What a run with these options will take; nothing is written, and no weights are loaded.

    Raises:
        InputError: as a run for its options and data; or a strategy that has no forecast.
    """
    _check(config, options)
    started = time.perf_counter()
    source = open_source(config.data)
    scan = source.scan()
    refuse_unlabelled_tokens(config, scan)
    reading = time.perf_counter() - started
    gpu = None if options.gpu_kind is None else GPUS[options.gpu_kind]
    where: dict[str, Any] = {} if gpu is None else {"device": "cuda", "free": gpu.memory}
    config, planned, unmeasured = plan_settled(resolved(keeping_tokens(config)), weights=False, **where)
    device = planned.device if gpu is None else "cuda"
    footprint = run_footprint(planned.shape, device, config.measure)
    engine = sized(config.engine, device, footprint, None if gpu is None else int(gpu.memory))
    config = replace(config, engine=engine)
    shards = cut_shards(source.grouped(), engine.shard_pairs, scan.arrangement)
    sample = _spread(shards, ceil(scan.count / engine.shard_pairs), engine.shard_pairs)
    work = _count(sample, scan.count, planned.shape, config, batch_limits(engine, planned.shape, planned.lengths))
    dtype: torch.dtype = getattr(torch, planned.dtype)
    residuals = Residuals.of(config.output, work, planned.shape)

    def predicted(
        name: str, workers: int, rates: Sequence[float], geometry: float, cores: int, where: str, memory: float
    ) -> Prediction:
        analyses = Analyses(geometry, cores * NOISE_A_SECOND)
        seconds = _seconds(work, planned.shape, rates, analyses, reading, workers)
        peak = predicted_peak(engine, run_footprint(planned.shape, where, config.measure), scan.count)
        return Prediction(name, workers, seconds, peak or 0, memory)

    threads = torch.get_num_threads()
    name = f"this processor, {threads} thread{'' if threads == 1 else 's'}"
    rates = [rate * REACHED["cpu"] for rate in _product_rates(planned.shape, dtype)]
    geometry = _geometry_seconds(planned.shape)
    here = predicted(name, 1, rates, geometry, threads, planned.device, free_memory(planned.device))
    if gpu is None or options.gpu_kind is None:
        return Forecast(planned, work, here, None, scan, residuals, unmeasured)
    rates = [peak * REACHED["gpu"] for peak in (gpu.half if dtype.itemsize == 2 else gpu.single, gpu.single)]
    geometry = geometry_seconds(gpu, planned.shape, ceil(work.reads / max(1, work.forwards)))
    there = predicted(options.gpu_kind, options.gpus, rates, geometry, CORES_A_GPU, device, gpu.memory)
    return Forecast(planned, work, here, there, scan, residuals, unmeasured)


def product_seconds(rows: int, columns: int, dtype: torch.dtype) -> float:
    """Seconds of the product of `ROWS` rows with a matrix of this size."""
    left, weight = torch.randn(ROWS, rows).to(dtype), torch.randn(columns, rows).to(dtype)
    with torch.inference_mode():
        return best_seconds(lambda: torch.nn.functional.linear(left, weight))


def _check(config: RunConfig, options: ForecastOptions) -> None:
    if config.engine.strategy not in ("packed", "batched"):
        raise InputError(f"--dry-run: no forecast for --strategy {config.engine.strategy}; use packed or batched")
    if options.gpus < 1:
        raise InputError(f"--gpus {options.gpus}: give at least 1")
    if options.gpu_kind is not None and options.gpu_kind not in GPUS:
        raise InputError(f"--gpu-kind {options.gpu_kind}: unknown; choose from {', '.join(GPUS)}")


def _spread(shards: Iterator[Shard], count: int, size: int) -> Iterator[Shard]:
    """Some of the shards, evenly spread."""
    stride = min(count, ceil(count * size / SAMPLE_PAIRS))
    return islice(shards, stride // 2, None, stride)


def _count(shards: Iterator[Shard], pairs: int, shape: Shape, config: RunConfig, limits: BatchLimits) -> Work:
    """Tokenise and pack a sample as the run would, and scale what it takes to so many pairs."""
    tokenizer, packed = _tokenizer(config), config.engine.strategy == "packed"
    sampled = refused = 0
    totals = np.zeros(8)
    stopwatch = Stopwatch()
    for shard in shards:
        with stopwatch.stage("tokenise"):
            found = [pair for pair in tokenizer.tokenize(shard.items) if isinstance(pair, Tokenized)]
            sampled, refused = sampled + len(shard.items), refused + len(shard.items) - len(found)
            if config.measure.p_true:
                found = list(with_questions(tokenizer, found))
            for pairs_of_batch in plan_batches(found, limits, packed=packed):
                batch = lay_out(pairs_of_batch, limits, packed=packed)
                for rows in limits.lengths.forwards(batch):
                    part = batch.rows(rows)
                    height, width = part.input_ids.shape
                    targets, answers = (
                        0 if asked is None else len(asked.token) for asked in (part.targets, part.answers)
                    )
                    reads, further = len(part.read_item), 0 if part.further is None else len(part.further.row)
                    sizes = (part.distinct_tokens, height * width, height * width**2)
                    totals += (*sizes, reads, further, targets, answers, 1)
    if refused == sampled:
        raise InputError(f"--dry-run: none of {sampled} sampled pairs can be measured; see bluffscope lint")
    share = pairs / sampled
    tokens, slots, cells, reads, further, targets, answers, forwards = (float(total) * share for total in totals)
    measure, first = config.measure, shape.saes[0]
    # The first layer's fact and hallucination are encoded once more for each draw of noise.
    noisy = measure.noise_draws * (1 + len(measure.noise_sweep)) * reads * 2 / 3 if first.d_sae else 0.0
    active = [min(sae.l0, sae.d_sae) for sae in shape.saes]  # of every read: what is published
    # The lens applies the head at each layer, and takes as long again for what it makes of the logits.
    lenses = 1 + 2 * len(shape.saes) if measure.trajectory == "on" else 1
    head = (targets * lenses + answers) * 2 * shape.d_model * shape.vocabulary if shape.head else 0.0
    return Work(
        pairs=pairs,
        sampled=sampled,
        refused=refused,
        tokenising=stopwatch.seconds["tokenise"] * share,
        tokens=tokens,
        slots=slots,
        reads=reads,
        further=further,
        forwards=forwards,
        noise=noisy * first.d_in,
        features=share * 3 * (sampled - refused) * sum(active),  # of several reads of a view, the mean is stored
        products=slots * 2 * shape.block_weights * shape.blocks + head,
        attention=cells * shape.blocks * shape.heads * (4 * shape.head_dim + CELL_FLOPS),
        encode=reads * sum(2 * sae.d_in * sae.d_sae for sae in shape.saes) + noisy * 2 * first.d_in * first.d_sae,
        geometry=reads * sum(2 * min(n, sae.d_in) * n * sae.d_in for n, sae in zip(active, shape.saes, strict=True)),
    )


def _tokenizer(config: RunConfig) -> TextTokenizer:
    assert config.model.model is not None  # resolve sees to it
    found = load_tokenizer(config.model.model, config.model.revision, weights=False)
    bos: Any = found.tokenizer.bos_token_id
    chat = Chat.of(config.model.model, found.tokenizer, config.data.system) if config.data.chat else None
    return TextTokenizer(
        tokenizer=found.tokenizer,
        bos=bos if chat is None else chat.bos,
        chat=chat,
        position=config.measure.first_position,
        further=config.measure.further_positions,
        join=config.data.join,
        context=found.context,
        logprob=config.measure.scores_completions,
    )


class Analyses(NamedTuple):
    """What the analyses take on a device."""

    geometry: float
    """Seconds of one read at one layer."""
    noise: float
    """Normal numbers a second."""


def _seconds(
    work: Work, shape: Shape, rates: Sequence[float], analyses: Analyses, reading: float, workers: int
) -> dict[str, float]:
    """Seconds by stage; `rates` of the blocks and of the SAEs."""
    loaded = shape.weights + sum(sae.weights for sae in shape.saes)
    shared = {
        "forward": (work.products + work.attention) / rates[0],
        "SAE": work.encode / rates[1],
        "geometry, noise": work.reads * shape.encoding * analyses.geometry + work.noise / analyses.noise,
        "tokenise": work.tokenising,
        "rows, shards": work.pairs * PAIR_SECONDS + work.features * FEATURE_SECONDS,
    }
    return (
        {"start and load": START_SECONDS + loaded / LOAD_BYTES_A_SECOND}
        | {stage: seconds / workers for stage, seconds in shared.items()}
        # One process, however many workers there are: it reads the data twice.
        | {"read, merge": 2 * reading + work.pairs * MERGE_SECONDS + work.features * FEATURE_SECONDS}
    )


def _product_rates(shape: Shape, dtype: torch.dtype) -> tuple[float, float]:
    """Floating-point operations a second of products of the model's width, and of the SAEs', with random numbers."""
    first, found = shape.saes[0], list[float]()
    exact = torch.promote_types(dtype, torch.float32)
    for rows, columns, kind in ((shape.d_model, shape.d_mlp, dtype), (first.d_in, first.d_sae, exact)):
        columns = min(columns or shape.d_mlp, max(64, _WIDEST // rows))  # without an SAE nothing has its width
        found.append(2.0 * ROWS * rows * columns / product_seconds(rows, columns, kind))
    return found[0], found[1]


def _geometry_seconds(shape: Shape) -> float:
    """Seconds of one read, the mean over the layers, with as many active features as are published."""
    generator = torch.Generator().manual_seed(0)
    taken = 0.0
    for sae in (sae for sae in shape.saes if sae.d_sae):
        active = max(1, min(round(sae.l0), sae.d_sae))
        rows = min(sae.d_sae, max(active, 2048))
        indices = torch.cat([torch.randperm(rows, generator=generator)[:active].sort().values for _ in range(_READS)])
        values = torch.rand(_READS * active, generator=generator) + 0.1
        features = Features(indptr=torch.arange(_READS + 1) * active, indices=indices, values=values, d_sae=rows)
        decoder = torch.randn(rows, sae.d_in, generator=generator)
        taken += best_seconds(lambda features=features, decoder=decoder: measure_geometry(features, decoder))
    return taken / _READS / max(1, shape.encoding)
