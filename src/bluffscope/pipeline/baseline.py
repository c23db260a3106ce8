"""The old patterns, for comparison: one text at a time in a single pass, or one pass for each analysis.

The strategies `sequential` and `separate` measure with `bluffscope.reference.analyses`, call for call as it says
there, and give the same rows as the engine.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from bluffscope.errors import PairError
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.shard_rows import ShardRows
from bluffscope.records import VIEWS, Pair, Shard
from bluffscope.reference import analyses as reference
from bluffscope.reference.analyses import Counts, ReferenceOptions, Subject
from bluffscope.table.schema import Column


class Loaded(NamedTuple):
    """A whole model and its SAEs, as the reference takes them."""

    model: Any
    """Causal language model with its LM head."""
    tokenizer: Any
    saes: Mapping[int, Any]


@dataclass(frozen=True)
class BaselineWorker:
    """Measures shards one text at a time, with what was loaded once, or anew for each analysis of a shard."""

    tokenizer: TextTokenizer
    """The engine's, for the linter: the reference has its own way."""
    load: Callable[[], Loaded]
    held: list[Loaded]
    """What was loaded first; `separate` takes it out, so that it is gone when the next analysis loads its own."""
    identity: dict[str, Any]
    """The model's, for the manifest."""
    sae_identities: dict[int, dict[str, Any]]
    """Of each layer's SAE, for the manifest."""
    separate: bool
    analyses: Sequence[str]
    columns: Sequence[Column]
    options: ReferenceOptions
    keep_residuals: bool
    counts: Counts
    """Forwards, encodes and eigendecompositions done; its stopwatch is the run's."""

    @property
    def strategy(self) -> str:
        """Its name."""
        return "separate" if self.separate else "sequential"

    @property
    def stopwatch(self) -> Stopwatch:
        """Told the time of every stage."""
        return self.counts.stopwatch

    def computed(self) -> dict[str, int]:
        """How much work was done so far, for the manifest."""
        counts = self.counts
        return {
            "forwards": counts.forwards,
            "encodes": counts.encodes,
            "eigendecompositions": counts.eigendecompositions,
        }

    def run(self, shard: Shard, advance: Callable[[int], None] = lambda _: None) -> pl.DataFrame:
        """Measure every pair of a shard; one row a pair in input order, quarantined ones with their reason."""
        return self.tabulate(self.measure(self.prepare(shard), advance))

    def prepare(self, shard: Shard) -> Shard:
        """Nothing: texts are tokenised one by one, when their turn comes."""
        return shard

    @own_settings()
    def measure(self, prepared: Shard, advance: Callable[[int], None]) -> ShardRows:
        """Every analysis of every pair."""
        rows = ShardRows(prepared, self.columns, keep_residuals=self.keep_residuals)
        passes = [(name,) for name in self.analyses] if self.separate else [tuple(self.analyses)]
        for number, names in enumerate(passes):
            loaded = self._loaded()
            for pair in prepared.pairs:
                self._measure_pair(rows, loaded, pair, names, keep=number == 0)
                if number == len(passes) - 1:
                    advance(1)
            del loaded  # before the next one is loaded
        return rows

    def tabulate(self, measured: ShardRows) -> pl.DataFrame:
        """The shard's table."""
        with self.stopwatch.stage("write"):
            return measured.frame()

    def _loaded(self) -> Loaded:
        """The model and SAEs: always the same, or anew for each analysis."""
        if not self.separate:
            return self.held[0]
        if self.held:
            return self.held.pop()
        with self.stopwatch.stage("load"):
            gc.collect()  # the last one may hang in cycles: two would not fit into memory
            return self.load()

    def _measure_pair(self, rows: ShardRows, loaded: Loaded, pair: Pair, names: Sequence[str], *, keep: bool) -> None:
        """Some analyses of a pair; with `keep`, its features go into the table too."""
        try:
            subject = reference.prepare(pair, loaded.model, loaded.tokenizer, loaded.saes, self.options, self.counts)
            row = reference.token_columns(subject)
            if reference.ANALYSES.keys() - {"logprob"} <= set(names):
                row |= reference.all_analyses(subject)
            else:
                for name in names:
                    row |= reference.ANALYSES[name](subject)
            if keep:
                self._keep(rows, subject)
            rows.fill(pair.index, row)
        except PairError as error:
            rows.quarantine(pair.index, str(error).removeprefix(f"pair {pair.id}: "))

    def _keep(self, rows: ShardRows, subject: Subject) -> None:
        """The features (and the residuals, where asked for) of every layer and view, read now where no analysis did."""
        for layer in self.options.layers:
            for number, view in enumerate(VIEWS):
                reading = subject.readings.get((layer, view)) or subject.read(view, [layer])[layer]
                index = np.full(len(reading.a), subject.pair.index)
                views = np.full(len(reading.a), number)
                active = reading.a > 0
                counts, features = active.sum(1), np.nonzero(active)[1]
                rows.add_reads(index, views, layer, counts, features, reading.a[active])
                if self.keep_residuals:
                    token = np.array(subject.texts[view].reads)
                    rows.add_residuals(index, views, layer, token, reading.x.cpu().float().numpy())
