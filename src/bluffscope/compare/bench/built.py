"""A shape built in this process, and what it takes to measure pairs with it."""

from __future__ import annotations

import dataclasses
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch

from bluffscope.compare.bench.limit import matrix_peak, plain_forward_seconds
from bluffscope.compare.bench.parts import OneByOne, TextByText, dense_geometry
from bluffscope.compare.bench.shapes import SHAPES, build_coders, build_language_model
from bluffscope.compare.bench.spec import Job
from bluffscope.config import RunConfig
from bluffscope.engine import LocalEngine
from bluffscope.errors import InputError
from bluffscope.host.buffers import Buffers, kept_heap
from bluffscope.host.machine import Watch, peak_rss, reset_peak_rss
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES
from bluffscope.model.quantize import quantize_to_int8
from bluffscope.pairs import open_source
from bluffscope.pipeline.batch_size import predicted_peak
from bluffscope.pipeline.build import OF_THE_REFERENCE, Parts, RunWorker, assemble
from bluffscope.pipeline.shard import cut_shards
from bluffscope.records import Shard
from bluffscope.reference.model import ReferenceOptions, tokenise
from bluffscope.table.folder import RunFolder
from bluffscope.table.merge import merge
from bluffscope.table.schema import table_columns
from bluffscope.table.shards import write_shard


def build(job: Job) -> Parts:
    """The job's shape, as far as the job needs it."""
    shape = SHAPES[job.shape]
    dtype = getattr(torch, job.dtype)
    whole = job.whole or job.strategy in OF_THE_REFERENCE
    model = build_language_model(shape, blocks=None if whole else 1 + max(shape.layers), head=whole, dtype=dtype)
    if job.quantize != "none":
        quantize_to_int8(model.network, model.device)
    coders = build_coders(shape, torch.promote_types(dtype, torch.float32))
    return Parts(model, coders, shape.name)


@dataclass
class Built:
    """A model with its SAEs, built when it is first needed."""

    job: Job
    _kept: Parts | None = None

    @property
    def parts(self) -> Parts:
        """The model and its SAEs."""
        if self._kept is None:
            self._kept = build(self.job)
        return self._kept

    def measure(self, config: RunConfig) -> dict[str, Any]:
        """Measure the pairs that the options name, into a run's folder that is removed again; what it took."""
        stopwatch = Stopwatch()
        worker = self._changed(
            assemble(config, self._parts(), ANALYSES, lambda layers: table_columns(layers), stopwatch)
        )
        config = worker.loaded.config
        if self.job.strategy == "separate":
            self._kept = None  # it loads its own for each analysis: two would not fit
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
            with kept_heap() if self.job.pooled else nullcontext():
                LocalEngine(self.job.depth).run(shards, lambda: worker, commit, lambda _: None)
            with stopwatch.stage("write"):
                merged = merge(folder, len(committed), worker.columns, {})
            seconds = time.perf_counter() - started - stopwatch.seconds.get("load", 0.0)
        if merged.quarantined:
            raise InputError(
                f"{merged.quarantined} of the benchmark's pairs cannot be measured: {dict(merged.reasons)}"
            )
        shutil.rmtree(folder.path)
        found: dict[str, Any] = {
            "seconds": seconds,
            "seconds_per_pair": seconds / scan.count,
            "stages": dict(stopwatch.seconds),
            "computed": worker.computed(),
            "peak_bytes": peak_rss(),
            "marks": list(watch.marks),
        }
        if (footprint := worker.loaded.footprint) is not None:
            found["predicted_bytes"] = predicted_peak(config.engine, footprint, scan.count)
            found["held_bytes"] = footprint.weights + footprint.saes
        elif self.job.strategy == "sequential":
            options = ReferenceOptions(layers=tuple(self.parts.coders), prepend_bos=worker.tokenizer.bos is not None)
            texts = [
                text.ids
                for pair in source.pairs()
                for text in tokenise(pair, self.parts.model.tokenizer, options).values()
            ]
            found["plain_forward_seconds"] = plain_forward_seconds(self.parts.model, texts)
            found["baseline_forward_seconds"] = stopwatch.seconds["forward"] / worker.computed()["forwards"]
        return found

    def limit(self) -> dict[str, Any]:
        """The machine's matrix-product peak at this model's sizes, and what a token and a read cost at least."""
        return matrix_peak(self.parts.model, self.parts.coders)

    def _parts(self) -> Parts:
        coders = self.parts.coders
        if self.job.one_by_one:
            coders = {
                layer: OneByOne(**{field.name: getattr(coder, field.name) for field in dataclasses.fields(coder)})
                for layer, coder in coders.items()
            }
        if not self.job.pooled:
            coders = {layer: replace(coder, buffers=Buffers(enabled=False)) for layer, coder in coders.items()}
        return replace(self.parts, coders=coders)

    def _changed(self, worker: RunWorker) -> RunWorker:
        """The worker with the job's older pieces put in."""
        batched = worker.in_batches
        if batched is None:
            return replace(worker, load=lambda: build(self.job))  # once more for each analysis of `separate`
        reader = batched.reader
        if self.job.text_by_text:
            reader = TextByText(reader.model, reader.points, None)
        if not self.job.pooled:
            reader = replace(reader, buffers=Buffers(enabled=False))
        geometry = dense_geometry if self.job.dense else batched.decompose
        return replace(batched, reader=reader, decompose=geometry)
