"""One process of the benchmark: builds a shape once, and measures pairs with it one or more times."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from bluffscope.compare.bench.jobs import Job
from bluffscope.compare.bench.parts import OneByOne, TextByText, dense_geometry
from bluffscope.compare.bench.shapes import SHAPES, build_coders, build_language_model
from bluffscope.compare.bench.texts import LONG_WORDS, LONG_WORDS_OF_THE_DEMO, write_pairs
from bluffscope.config import DataOptions, EngineOptions, MeasureOptions, ModelOptions, OutputOptions, RunConfig
from bluffscope.engine.local import run_here
from bluffscope.errors import InputError
from bluffscope.host.buffers import Buffers, kept_heap
from bluffscope.host.machine import Watch, peak_rss, reset_peak_rss
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES
from bluffscope.model import LanguageModel
from bluffscope.model.quantize import quantize_to_int8
from bluffscope.pairs import Source, open_source
from bluffscope.pipeline.batch_size import predicted_peak
from bluffscope.pipeline.build import OF_THE_REFERENCE, Parts, RunWorker, assemble
from bluffscope.pipeline.shard import cut_shards
from bluffscope.records import Shard
from bluffscope.reference.model import ReferenceOptions, tokenise
from bluffscope.runs.forecast import ROWS, product_seconds
from bluffscope.sae import Coder
from bluffscope.table.folder import RunFolder
from bluffscope.table.merge import merge
from bluffscope.table.schema import table_columns
from bluffscope.table.shards import write_shard


def records(job: Job) -> Iterator[dict[str, Any]]:
    """What each measurement of a job took, and then the machine's limit where the job asks for it."""
    started = time.perf_counter()
    built = Built(job)
    layers = len(built.parts.coders)
    load = time.perf_counter() - started
    about = {"shape": job.shape, "step": job.step, "strategy": job.strategy, "dtype": job.dtype}
    words = LONG_WORDS_OF_THE_DEMO if SHAPES[job.shape].embedded else LONG_WORDS
    with tempfile.TemporaryDirectory(prefix="bluffscope-bench-") as scratch:
        for number, measurement in enumerate(job.measurements):
            data = write_pairs(Path(scratch) / f"{number}.jsonl", measurement.pairs, measurement.sharing, words)
            config = RunConfig(
                data=DataOptions(data=str(data)),
                model=ModelOptions(
                    model=job.shape, sae=job.shape, device="cpu", dtype=job.dtype, quantize=job.quantize
                ),
                engine=EngineOptions(strategy=job.strategy, batch_size=measurement.batch_size),
                measure=MeasureOptions(logprob="off"),
                output=OutputOptions(out=Path(scratch) / f"run-{number}", keep_residuals="off"),
            )
            if number == 0 and job.strategy != "separate":  # libraries settle down, weights are touched
                warm = replace(config.output, out=Path(scratch) / "warm")
                built.measure(replace(config, output=warm, data=replace(config.data, limit=job.warm_pairs)))
            found = built.measure(config)
            yield {
                **about,
                "quantize": job.quantize,
                **dataclasses.asdict(measurement),
                "layers": layers,
                "limit": job.limit,
                "load_seconds": load,
                **found,
            }
    if job.limit:
        yield about | {"step": "limit"} | built.limit()


def build(job: Job) -> Parts:
    """The job's shape, as far as the job needs it."""
    shape = SHAPES[job.shape]
    dtype = getattr(torch, job.dtype)
    whole = "whole model" in job.older or job.strategy in OF_THE_REFERENCE
    model = build_language_model(shape, blocks=None if whole else 1 + max(shape.layers), head=whole, dtype=dtype)
    if job.quantize != "none":
        quantize_to_int8(model.network, model.device)
    coders = build_coders(shape, torch.promote_types(dtype, torch.float32))
    if "one by one" in job.older:
        names = [field.name for field in dataclasses.fields(Coder)]
        coders = {layer: OneByOne(**{name: getattr(coder, name) for name in names}) for layer, coder in coders.items()}
    if "no pooling" in job.older:
        coders = {layer: replace(coder, buffers=Buffers(enabled=False)) for layer, coder in coders.items()}
    return Parts(model, coders, shape.name)


@dataclass
class Built:
    """A model with its SAEs, built when it is first needed."""

    job: Job

    @cached_property
    def parts(self) -> Parts:
        """The model and its SAEs."""
        return build(self.job)

    def measure(self, config: RunConfig) -> dict[str, Any]:
        """Measure the pairs that the options name, into a run's folder; what it took."""
        stopwatch = Stopwatch()
        worker = self._changed(assemble(config, self.parts, ANALYSES, lambda layers: table_columns(layers), stopwatch))
        config = worker.loaded.config
        if self.job.strategy == "separate":
            vars(self).pop("parts")  # it loads its own for each analysis: two would not fit
        source = open_source(config.data)
        scan = source.scan()
        assert config.output.out is not None
        folder = RunFolder.create(config.output.out)
        committed: list[int] = []

        def commit(shard: Shard, frame: pl.DataFrame) -> None:
            with stopwatch.stage("write"):
                write_shard(folder.shards, shard.number, frame)
            committed.append(shard.number)

        reset_peak_rss()
        with Watch() as watch:
            started = time.perf_counter()
            pairs = zip(source.pairs(), scan.groups, strict=True)
            shards = cut_shards(pairs, config.engine.shard_pairs)
            depth = 0 if "no read-ahead" in self.job.older else 1
            with nullcontext() if "no pooling" in self.job.older else kept_heap():
                run_here(shards, worker, commit, lambda _: None, depth)
            with stopwatch.stage("write"):
                merged = merge(folder, len(committed), worker.columns, {})
            seconds = time.perf_counter() - started - stopwatch.seconds.get("load", 0.0)
        if merged.quarantined:
            raise InputError(
                f"{merged.quarantined} of the benchmark's pairs cannot be measured: {dict(merged.reasons)}"
            )
        return {
            "seconds": seconds,
            "seconds_per_pair": seconds / scan.count,
            "stages": dict(stopwatch.seconds),
            "computed": worker.computed(),
            "peak_bytes": peak_rss(),
            "marks": list(watch.marks),
            **self._beside(worker, source, scan.count),
        }

    def limit(self) -> dict[str, Any]:
        """The machine's peak of matrix products, each of a block's sizes at its best, and what a token and a read take.

        Returns:
            peak_flops: a second, over one block's products together; by_size: of each; flops_per_token: of the loaded
            blocks' products (attention apart); flops_per_encode: of one residual in the first layer's SAE, and
            encode_peak_flops at its size.
        """
        model, coder = self.parts.model, next(iter(self.parts.coders.values()))
        linear = [module for module in model.blocks[0].modules() if isinstance(module, nn.Linear)]
        sizes = [(module.in_features, module.out_features) for module in linear]
        seconds = {size: product_seconds(*size, model.dtype) for size in set(sizes)}
        flops = [2 * ROWS * rows * columns for rows, columns in sizes]
        encode = 2 * coder.d_in * coder.d_sae
        return {
            "tokens": ROWS,
            "threads": torch.get_num_threads(),
            "peak_flops": sum(flops) / sum(seconds[size] for size in sizes),
            "by_size": {f"{a} x {b}": 2 * ROWS * a * b / taken for (a, b), taken in seconds.items()},
            "flops_per_token": len(model.blocks) * sum(flops) / ROWS,
            "flops_per_encode": encode,
            "encode_peak_flops": ROWS * encode / product_seconds(coder.d_in, coder.d_sae, coder.decoder.dtype),
        }

    def _beside(self, worker: RunWorker, source: Source, count: int) -> dict[str, Any]:
        """What was predicted of the engine's memory; what a forward of the reference takes, and a plain call."""
        if (footprint := worker.loaded.footprint) is not None:
            return {
                "predicted_bytes": predicted_peak(worker.loaded.config.engine, footprint, count),
                "held_bytes": footprint.weights + footprint.saes,
            }
        if self.job.strategy != "sequential":
            return {}
        options = ReferenceOptions(layers=tuple(self.parts.coders), prepend_bos=worker.tokenizer.bos is not None)
        tokenizer = self.parts.model.tokenizer
        texts = [text.ids for pair in source.pairs() for text in tokenise(pair, tokenizer, options).values()]
        return {
            "plain_forward_seconds": plain_forward_seconds(self.parts.model, texts),
            "baseline_forward_seconds": worker.stopwatch.seconds["forward"] / worker.computed()["forwards"],
        }

    def _changed(self, worker: RunWorker) -> RunWorker:
        """The worker with the job's older pieces put in."""
        batched = worker.in_batches
        if batched is None:
            return replace(worker, load=lambda: build(self.job))  # once more for each analysis of `separate`
        reader = batched.reader
        if "text by text" in self.job.older:
            reader = TextByText(reader.model, reader.points, None)
        if "no pooling" in self.job.older:
            reader = replace(reader, buffers=Buffers(enabled=False))
        geometry = dense_geometry if "dense" in self.job.older else batched.decompose
        return replace(batched, reader=reader, decompose=geometry)


def plain_forward_seconds(model: LanguageModel, texts: list[list[int]]) -> float:
    """Seconds of one plain call of the causal language model, the mean over texts, as anybody would make it."""
    with torch.no_grad():
        model.network(input_ids=torch.tensor([texts[0]]))  # its first call does not count, as that of the run did not
        started = time.perf_counter()
        for ids in texts:
            model.network(input_ids=torch.tensor([ids]))
        return (time.perf_counter() - started) / len(texts)
