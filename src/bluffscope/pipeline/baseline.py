"""The old patterns, for comparison: one text at a time in a single pass, or one pass for each analysis.

The strategies `sequential` and `separate` measure with `bluffscope.reference.analyses`, call for call as it says
there, and give the same rows as the engine.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bluffscope.errors import PairError
from bluffscope.host.float64_guard import own_settings
from bluffscope.pipeline.plan.token_labels import token_labels
from bluffscope.pipeline.shard_rows import ShardRows
from bluffscope.pipeline.worker import Advance, Parts, RunWorker
from bluffscope.records import Item, Shard
from bluffscope.reference import analyses as reference
from bluffscope.reference.analyses import Counts, ReferenceOptions, Subject
from bluffscope.reference.model import logits


@dataclass(frozen=True, kw_only=True)
class BaselineWorker(RunWorker):
    """Measures shards one text at a time, with a model loaded once, or reloaded for each analysis of a shard."""

    load: Callable[[], Parts]
    held: list[Parts]
    """What was loaded first; `separate` takes it out, so that it is gone when the next analysis loads its own."""
    separate: bool
    analyses: Sequence[str]
    options: ReferenceOptions
    counts: Counts
    """Forwards, encodes and eigendecompositions done; its stopwatch is the run's."""

    @property
    def parts(self) -> Parts | None:
        """What it holds just now."""
        return self.held[0] if self.held else None

    def computed(self) -> dict[str, int]:
        """How much work was done so far, for the manifest."""
        counts = self.counts
        return {
            "forwards": counts.forwards,
            "encodes": counts.encodes,
            "eigendecompositions": counts.eigendecompositions,
        }

    def prepare(self, shard: Shard) -> Shard:
        """Nothing: texts are tokenised one by one, when their turn comes."""
        return shard

    @own_settings()
    def measure(self, prepared: Shard, advance: Advance) -> ShardRows:
        """Every analysis of every pair."""
        rows = self.loaded.rows(prepared)
        passes = [(name,) for name in self.analyses] if self.separate else [tuple(self.analyses)]
        for number, names in enumerate(passes):
            parts = self._parts()
            for pair in prepared.items:
                self._measure_pair(rows, parts, pair, names, keep=number == 0)
                if number == len(passes) - 1:
                    advance(1)
            del parts  # before the next one is loaded
        return rows

    def _parts(self) -> Parts:
        """The model and SAEs: always the same, or reloaded for each analysis."""
        if not self.separate:
            return self.held[0]
        if self.held:
            return self.held.pop()
        with self.stopwatch.stage("load"):
            gc.collect()  # the last one may hang in cycles: two would not fit into memory
            return self.load()

    def _measure_pair(self, rows: ShardRows, parts: Parts, pair: Item, names: Sequence[str], *, keep: bool) -> None:
        """Some analyses of a pair; with `keep`, its features go into the table too."""
        try:
            saes = {layer: coder.sae for layer, coder in parts.coders.items()}
            model = parts.model
            subject = reference.prepare(pair, model.network, model.tokenizer, saes, self.options, self.counts)
            row = reference.token_columns(subject)
            if set(names) >= reference.OF_SAES:
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
        if self.by_token:
            self._keep_tokens(rows, subject)
        if self.options.further:
            self._keep_further(rows, subject)
        if not subject.saes:
            self._keep_bare(rows, subject)
        for layer in subject.saes:
            for number, view in enumerate(subject.views):
                reading = subject.readings.get((layer, view)) or subject.read(view, [layer])[layer]
                index = np.full(len(reading.a), subject.item.index)
                views = np.full(len(reading.a), number)
                active = reading.a > 0
                counts, features = active.sum(1), np.nonzero(active)[1]
                token = np.array(subject.texts[view].reads)
                rows.add_reads(index, views, layer, token, counts, features, reading.a[active])
                if self.loaded.config.output.keep_residuals == "on":
                    rows.add_residuals(index, views, layer, token, reading.x.cpu().float().numpy())

    def _keep_tokens(self, rows: ShardRows, subject: Subject) -> None:
        """The completion's tokens, and their log-probabilities where these are asked for."""
        index, text = subject.item.index, subject.texts[subject.completions[0]]
        rows.add_tokens(index, token_labels(self.tokenizer, subject.item, text.reads, len(text.ids)))
        if self.loaded.config.measure.scores_completions and text.own.start > 0:
            predictions = logits(subject.model, text, subject.counts)
            place = np.array(text.own)
            likely = torch.log_softmax(predictions[place - 1], dim=1)[range(len(place)), np.array(text.ids)[place]]
            rows.add_logprobs(np.full(len(place), index), place, likely.numpy())

    def _keep_bare(self, rows: ShardRows, subject: Subject) -> None:
        """The residuals of layers without SAEs, where they are asked for."""
        kept = self.loaded.config.output.keep_residuals == "on"
        for number, view in enumerate(subject.views if kept else ()):
            token = np.array(subject.texts[view].reads)
            index, views = np.full(len(token), subject.item.index), np.full(len(token), number)
            for layer, residual in subject.residuals(view, self.options.layers).items():
                rows.add_residuals(index, views, layer, token, residual[token].cpu().float().numpy())

    def _keep_further(self, rows: ShardRows, subject: Subject) -> None:
        """The completions' residuals at further positions."""
        for view in subject.completions:
            reads = [(place, token) for place, part in enumerate(subject.texts[view].further) for token in part]
            position, token = np.array(reads).T  # (read,) each
            index = np.full(len(token), subject.item.index)
            views = np.full(len(token), subject.views.index(view))
            for layer, residual in subject.residuals(view, self.options.layers).items():
                values = residual[token].cpu().float().numpy()
                if not np.isfinite(values).all():
                    raise PairError(
                        f"pair {subject.item.id}: the {view} text's activation at layer {layer} is not finite"
                    )
                rows.add_further(index, views, layer, position, token, values)
