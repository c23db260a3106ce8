"""The work of a run, counted: a sample of its pairs goes through tokenizer, batch planner and tries, not the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from bluffscope.config import EngineOptions, MeasureOptions
from bluffscope.pairs import Source
from bluffscope.pipeline.memory import Shape
from bluffscope.pipeline.plan import BatchLimits, TextTokenizer, pack, pad, plan_batches
from bluffscope.records import PackedBatch, Pair, TokenizedPair

SAMPLE_PAIRS: Final = 2000
"""Pairs that are tokenised, in whole shards spread evenly over the input: neighbours share prefixes."""


@dataclass(frozen=True)
class Counted:
    """What the sample's batches hold."""

    pairs: int
    """Pairs tokenised."""
    refused: int
    """Of those, the ones that the run would quarantine."""
    tokens: int
    """Distinct tokens: nodes of the tries."""
    slots: int
    """Slots of all rows, their padding included."""
    cells: int
    """Query-key cells of all rows' attention."""
    reads: int
    """Residuals read at each layer."""
    targets: int
    """Completion tokens whose log-probability is asked for."""
    forwards: int
    seconds: float
    """Taken for tokenising, planning and packing."""


@dataclass(frozen=True)
class Work:
    """The whole run's work, in proportion to the sample's, in floating-point operations unless said otherwise."""

    pairs: int
    tokens: float
    """Distinct tokens."""
    slots: float
    reads: float
    """Reads at each layer."""
    forwards: float
    noise: float
    """Normal numbers of the stability analysis."""
    features: float
    """Rows of features.parquet."""
    products: float
    """Of the blocks' matrix products, and of the LM head where it is loaded."""
    attention: float
    """Of attention scores and their use."""
    encode: float
    """Of encoding, the noisy draws included."""
    geometry: float
    """Of the Gram matrices."""

    @property
    def total(self) -> float:
        """All floating-point operations."""
        return self.products + self.attention + self.encode + self.geometry


def count_sample(
    source: Source, tokenizer: TextTokenizer, limits: BatchLimits, engine: EngineOptions, most: int = SAMPLE_PAIRS
) -> Counted:
    """Tokenise and pack some shards, as the run would.

    Args:
        source: the pairs; it is scanned, and read once more up to the last shard of the sample.
        tokenizer: the run's.
        limits: of its batches.
        engine: strategy and size of shards.
        most: pairs of the sample, at least one shard.
    """
    shards = _shards(source, engine.shard_pairs, most)
    totals = np.zeros(5, dtype=np.int64)
    pairs = refused = forwards = 0
    started, reading = time.perf_counter(), 0.0
    while True:
        before = time.perf_counter()
        shard = next(shards, None)
        reading += time.perf_counter() - before
        if shard is None:
            break
        found = [pair for pair in tokenizer.tokenize(shard) if isinstance(pair, TokenizedPair)]
        pairs, refused = pairs + len(shard), refused + len(shard) - len(found)
        for batch in plan_batches(found, limits, packed=engine.strategy == "packed"):
            laid_out = _packed(batch, limits, packed=engine.strategy == "packed")
            for rows in limits.lengths.forwards(laid_out):
                totals += _sizes(laid_out.rows(rows))
                forwards += 1
    tokens, slots, cells, reads, targets = totals.tolist()
    seconds = time.perf_counter() - started - reading
    return Counted(pairs, refused, tokens, slots, cells, reads, targets, forwards, seconds)


def whole_work(counted: Counted, pairs: int, shape: Shape, measure: MeasureOptions) -> Work:
    """The work of so many pairs that are like the sample's.

    Args:
        counted: the sample.
        pairs: of the run.
        shape: of its model and SAEs; their L0 stands for the active features of every read.
        measure: what is measured.
    """
    share = pairs / counted.pairs
    slots, reads = counted.slots * share, counted.reads * share
    stored = pairs / counted.pairs * 3 * (counted.pairs - counted.refused)  # of several reads of a view, the mean
    # The first layer's fact and hallucination are encoded once more for each draw of noise.
    draws = measure.noise_draws * (1 + len(measure.noise_sweep))
    noisy = draws * reads * 2 / 3
    first = shape.saes[0]
    active = [min(sae.l0, sae.d_sae) for sae in shape.saes]
    head = counted.targets * share * 2 * shape.d_model * shape.vocabulary if shape.head else 0.0
    return Work(
        pairs=pairs,
        tokens=counted.tokens * share,
        slots=slots,
        reads=reads,
        forwards=counted.forwards * share,
        noise=noisy * first.d_in,
        features=stored * sum(active),
        products=slots * 2 * shape.block_weights * shape.blocks + head,
        attention=counted.cells * share * shape.blocks * shape.heads * 4 * shape.head_dim,
        encode=reads * sum(2 * sae.d_in * sae.d_sae for sae in shape.saes) + noisy * 2 * first.d_in * first.d_sae,
        geometry=reads * sum(2 * min(n, sae.d_in) * n * sae.d_in for n, sae in zip(active, shape.saes, strict=True)),
    )


def _shards(source: Source, size: int, most: int) -> Iterator[list[Pair]]:
    """Whole shards, evenly spread over the input from its first to its last."""
    count = -(-source.scan().count // size)
    wanted = np.unique(np.linspace(0, count - 1, max(1, min(count, most // size))).astype(int)).tolist()
    stream, position = source.pairs(), 0
    for number in wanted:
        skipped = number - position
        shard = list(islice(stream, skipped * size, (skipped + 1) * size))
        position = number + 1
        yield shard


def _packed(batch: Sequence[TokenizedPair], limits: BatchLimits, *, packed: bool) -> PackedBatch:
    sequences = [sequence for pair in batch for sequence in pair.sequences]
    slots = {pair.pair.index: slot for slot, pair in enumerate(batch)}
    if packed:
        return pack(sequences, slots, limits.row_tokens, limits.cell_cost, limits.lengths)
    return pad(sequences, slots)


def _sizes(batch: PackedBatch) -> np.ndarray:
    """Tokens, slots, cells, reads, targets."""
    rows, width = batch.input_ids.shape
    targets = 0 if batch.targets is None else len(batch.targets.token)
    found = (batch.distinct_tokens, batch.input_ids.size, rows * width**2, len(batch.read_pair), targets)
    return np.array(found, dtype=np.int64)
