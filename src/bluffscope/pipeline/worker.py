"""The contract of what measures a run's shards: every strategy has a worker of its own, and nobody asks which it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from bluffscope.config import RunConfig
from bluffscope.host.machine import device_peak
from bluffscope.host.stopwatch import Stopwatch, Tally
from bluffscope.model import LanguageModel
from bluffscope.pipeline.memory import Footprint
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.shard_rows import ShardRows
from bluffscope.records import Shard
from bluffscope.sae import Coder
from bluffscope.table.schema import Column

if TYPE_CHECKING:
    from bluffscope.pipeline.shard import ShardWorker

Advance = Callable[[int], None]
"""Called with the number of items just done."""


@dataclass(frozen=True)
class Parts:
    """What a worker is made of: a model and the SAEs that read it."""

    model: LanguageModel
    coders: Mapping[int, Coder]
    sae: str
    """The SAEs' name, for messages."""
    bare: tuple[int, ...] = ()
    """Layers that are measured without an SAE."""

    @property
    def layers(self) -> tuple[int, ...]:
        """All that are measured."""
        return (*self.coders, *self.bare)

    @property
    def sae_identities(self) -> dict[int, dict[str, Any]]:
        """Of each layer's SAE, for the manifest."""
        return {layer: coder.identity for layer, coder in self.coders.items()}


@dataclass(frozen=True)
class Loaded:
    """What a worker loaded, as the rest of the run needs to know it; travels between processes."""

    config: RunConfig
    """The options, with everything frozen in that was left open."""
    tokenizer: TextTokenizer
    columns: Sequence[Column]
    """Of the table."""
    identity: dict[str, Any]
    """The model's, for the manifest."""
    sae_identities: dict[int, dict[str, Any]]
    """Of each layer's SAE, for the manifest."""
    strategy: str
    """How batches are laid out."""
    footprint: Footprint | None
    """None for strategies without a memory model."""

    @property
    def width(self) -> int:
        """Numbers of the residuals of one read, all layers together."""
        bare = len(self.config.model.layers) - len(self.sae_identities)
        return sum(int(sae["d_in"]) for sae in self.sae_identities.values()) + bare * int(self.identity["d_model"])

    @property
    def fingerprint(self) -> Any:
        """The weights: equal for workers that give the same numbers."""
        saes = {layer: identity.get("weights") for layer, identity in self.sae_identities.items()}
        return self.identity.get("weights"), saes, self.strategy, self.config.engine

    def rows(self, shard: Shard) -> ShardRows:
        """The rows of a shard, to be filled."""
        config = self.config
        return ShardRows(
            shard,
            self.columns,
            keep_residuals=config.output.keep_residuals == "on",
            by_token=config.measure.first_position == "tokens",
            further=config.measure.further_positions,
        )

    def rejected(self, shard: Shard, reason: str) -> pl.DataFrame:
        """The table of a shard of which every item is quarantined for this reason."""
        rows = self.rows(shard)
        for item in shard.items:
            rows.quarantine(item.index, reason)
        return rows.frame()


@dataclass(frozen=True, kw_only=True)
class RunWorker(ABC):
    """Holds model and SAEs, and measures one shard after another, in this process or another."""

    loaded: Loaded
    stopwatch: Stopwatch
    """Records the time of every stage."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """How texts become token ids."""
        return self.loaded.tokenizer

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        return self.loaded.columns

    @property
    @abstractmethod
    def parts(self) -> Parts | None:
        """The model and SAEs; None where it holds none (any more)."""

    @property
    def in_batches(self) -> ShardWorker | None:
        """The worker as one that reads texts in batches; None for one that takes them one by one."""
        return None

    @abstractmethod
    def computed(self) -> dict[str, int]:
        """How much work was done so far, for the manifest."""

    @abstractmethod
    def prepare(self, shard: Shard) -> Any:
        """What needs no model: token ids and batches."""

    @abstractmethod
    def measure(self, prepared: Any, advance: Advance) -> ShardRows:
        """The model's part; `advance` is called with the number of items just done."""

    def tabulate(self, measured: ShardRows) -> pl.DataFrame:
        """The shard's table."""
        with self.stopwatch.stage("write"):
            return measured.frame()

    def run(self, shard: Shard, advance: Advance = lambda _: None) -> pl.DataFrame:
        """Measure every item of a shard; one row an item in input order, quarantined ones with their reason."""
        return self.tabulate(self.measure(self.prepare(shard), advance))

    @property
    def by_token(self) -> bool:
        """Whether each token of a completion is kept."""
        return self.loaded.config.measure.first_position == "tokens"

    def describe(self) -> Loaded:
        """What it loaded."""
        return self.loaded

    def tally(self) -> Tally:
        """What it has done so far."""
        return Tally(dict(self.stopwatch.seconds), self.computed(), device_peak(self.loaded.config.model.device))

    def answer(self, question: Callable[[Any], Any]) -> Any:
        """The answer to a question about this worker: what `question` returns for it."""
        return question(self)
