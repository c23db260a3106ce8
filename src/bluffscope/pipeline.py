"""Steps 3 to 6 for one shard: token ids, packed batches, residuals, features, analyses, rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

import polars as pl
import torch

from bluffscope.config import MeasureOptions
from bluffscope.metrics import Analysis, AnalysisFunction, Measurement
from bluffscope.model import ResidualReader
from bluffscope.plan import BatchLimits, TextTokenizer, pack, pad, plan_batches
from bluffscope.records import Activations, Features, LayerState, PackedBatch, Pair, Shard, TokenizedPair
from bluffscope.rows import ShardRows
from bluffscope.sae import Coder
from bluffscope.table.schema import Column
from bluffscope.timing import Stopwatch

Advance = Callable[[int], None]
"""Told how many more pairs are done."""


class UserAnalysis(NamedTuple):
    """An analysis of the user's own: a function of a `Measurement`, and the columns it gives."""

    function: AnalysisFunction
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class ShardWorker:
    """Holds the model and SAEs once, and measures one shard after another."""

    tokenizer: TextTokenizer
    reader: ResidualReader
    coders: Mapping[int, Coder]
    analyses: Sequence[Analysis]
    columns: Sequence[Column]
    options: MeasureOptions
    limits: BatchLimits
    keep_residuals: bool
    stopwatch: Stopwatch

    def run(self, shard: Shard, advance: Advance = lambda _: None) -> pl.DataFrame:
        """Measure every pair of a shard; one row a pair in input order, quarantined ones with their reason."""
        rows = ShardRows(shard, self.columns, keep_residuals=self.keep_residuals)
        with self.stopwatch.stage("tokenise"):
            tokenized: list[TokenizedPair] = []
            for pair, result in zip(shard.pairs, self.tokenizer.tokenize(shard.pairs), strict=True):
                if isinstance(result, TokenizedPair):
                    tokenized.append(result)
                else:
                    rows.quarantine(pair.index, str(result))
                    advance(1)
            batches = list(plan_batches(tokenized, self.limits))
        for batch in batches:
            self._measure(batch, rows)
            advance(len(batch))
        with self.stopwatch.stage("write"):
            return rows.frame()

    def _measure(self, pairs: Sequence[TokenizedPair], rows: ShardRows) -> None:
        """One forward and all analyses of a batch; where a residual is not finite, of each pair alone."""
        batch, activations = self._forward(pairs)
        if not all(bool(residual.isfinite().all()) for residual in activations.residuals.values()):
            # A pair's infinities spread through the masked attention of its row: find out whose they are.
            if len(pairs) == 1:
                rows.quarantine(pairs[0].pair.index, "the residual stream is not finite (overflow in this dtype?)")
                return
            for pair in pairs:
                self._measure([pair], rows)
            return
        with self.stopwatch.stage("sae"):
            states = {layer: self._encode(layer, residual) for layer, residual in activations.residuals.items()}
        measurement = Measurement(
            pair_ids=[pair.pair.id for pair in pairs],
            read_pair=batch.read_pair,
            read_view=batch.read_view,
            states=states,
            encode=self._encode_only,
            options=self.options,
        )
        with self.stopwatch.stage("geometry"):
            for analysis in self.analyses:
                rows.add(pairs, analysis.function(measurement))
        with self.stopwatch.stage("write"):
            rows.add_features(pairs, batch, states)

    def _forward(self, pairs: Sequence[TokenizedPair]) -> tuple[PackedBatch, Activations]:
        with self.stopwatch.stage("tokenise"):
            sequences = [sequence for pair in pairs for sequence in pair.sequences]
            slots = {pair.pair.index: slot for slot, pair in enumerate(pairs)}
            batch = pack(sequences, slots, self.limits.row_tokens) if self.reader.packs else pad(sequences, slots)
        with self.stopwatch.stage("forward"):
            return batch, self.reader.read(batch)

    @torch.inference_mode()
    def _encode(self, layer: int, residual: torch.Tensor) -> LayerState:
        coder = self.coders[layer]
        residual = residual.to(coder.decoder.dtype)  # never below float32
        features, reconstruction = coder.encode_decode(residual)
        return LayerState(layer, residual, features, reconstruction, coder.decoder)

    @torch.inference_mode()
    def _encode_only(self, layer: int, residual: torch.Tensor) -> Features:
        with self.stopwatch.stage("sae"):
            return self.coders[layer].encode(residual)


def cut_shards(pairs: Iterable[tuple[Pair, str]], size: int) -> Iterator[Shard]:
    """Cut a stream of (pair, group label) into shards of `size` pairs."""
    stream = iter(pairs)
    for number in count():
        held = tuple(islice(stream, size))
        if not held:
            return
        yield Shard(number, tuple(pair for pair, _ in held), tuple(group for _, group in held))
