"""The engine and the reference on the same models, in this process: tables without a run's folder."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from bluffscope.api import config_from
from bluffscope.config import RunConfig
from bluffscope.config.presets import resolved
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES, LOGPROB, P_TRUE, TRAJECTORY
from bluffscope.pipeline.build import build_worker
from bluffscope.pipeline.worker import RunWorker
from bluffscope.records import VIEWS, Pair, Shard
from bluffscope.reference import analyses as reference
from bluffscope.reference.analyses import ReferenceOptions, Row
from bluffscope.table.schema import table_columns

LAYERS = (0, 1, 3)


def make_worker(model: Path, saes: Path, **options: Any) -> Any:
    """A worker with options by the names of `bluffscope analyze`; the CPU and float64 unless given."""
    config = options_of(model, saes, **options)
    config = resolved(config)
    measure = config.measure
    asked = {TRAJECTORY: measure.trajectory == "on", LOGPROB: measure.logprob == "on", P_TRUE: measure.p_true}
    analyses = (*(ANALYSES if config.model.has_saes else ()), *(analysis for analysis, on in asked.items() if on))
    names = [analysis.name for analysis in analyses]
    return build_worker(
        config,
        analyses,
        lambda layers: table_columns(layers, config.measure.noise_sweep, analyses=names),
        Stopwatch(),
    )


def options_of(model: Path, saes: Path, **options: Any) -> RunConfig:
    """Options by the names of `bluffscope analyze`; the CPU and float64 unless given."""
    given = {"dtype": "float64", "device": "cpu", "logprob": False, **options}
    return config_from(model=str(model), sae=str(saes), **given)


def measure(worker: RunWorker, pairs: Sequence[Pair]) -> pl.DataFrame:
    """The pairs as one shard; quarantined ones have their reason in `_reason`."""
    return worker.run(shard_of(pairs))


def shard_of(pairs: Sequence[Pair]) -> Shard:
    """The pairs as one shard of one group."""
    return Shard(0, tuple(pairs), ("g",) * len(pairs))


def as_pairs(records: Iterable[dict[str, Any]]) -> list[Pair]:
    """Pairs from mappings, indices in order."""
    return [
        Pair(index, str(r["id"]), str(r["domain"]), None, str(r["prompt"]), str(r["fact"]), str(r["hallucination"]))
        for index, r in enumerate(records)
    ]


@dataclass(frozen=True)
class Oracle:
    """A full model and SAEs as the reference takes them."""

    model: torch.nn.Module
    tokenizer: Any
    saes: dict[int, Any]

    def rows(self, pairs: Iterable[Pair], **options: Any) -> list[Row]:
        """The reference's table of the pairs."""
        return reference.analyse(pairs, self.model, self.tokenizer, self.saes, self._options(options))

    def gaps(self, pairs: Iterable[Pair], **options: Any) -> dict[tuple[str, int, str], float]:
        """(l1 - l2) / l1, the smallest over the reads, by (pair id, layer, view)."""
        found: dict[tuple[str, int, str], float] = {}
        chosen = self._options(options)
        for pair in pairs:
            subject = reference.prepare(pair, self.model, self.tokenizer, self.saes, chosen)
            for view in VIEWS:
                for layer, reading in subject.read(view, chosen.layers).items():
                    shapes = subject.geometry(layer, view, reading)
                    found[pair.id, layer, view] = min(1 - (shape.elongation or 0) ** 2 for shape in shapes)
        return found

    def _options(self, options: dict[str, Any]) -> ReferenceOptions:
        return ReferenceOptions(**{"layers": tuple(self.saes), **options})


@functools.lru_cache(maxsize=4)
def load_oracle(model: Path, saes: Path, layers: tuple[int, ...] = LAYERS, dtype: str = "float64") -> Oracle:
    """The whole model with its LM head, as transformers loads it for everybody, and the SAEs as SAELens does."""
    from sae_lens import SAE
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coders = {layer: SAE.load_from_disk(saes / f"layer_{layer}", device="cpu", dtype=dtype) for layer in layers}
    return Oracle(network.eval(), AutoTokenizer.from_pretrained(model), coders)
