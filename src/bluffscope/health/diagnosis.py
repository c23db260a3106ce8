"""The health of model, SAEs and data before a run: some pairs measured, and everything checked on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import polars as pl

from bluffscope.config import OutputOptions, RunConfig
from bluffscope.config.presets import resolved
from bluffscope.health.check import Health, found
from bluffscope.health.gate import CANDIDATES, Sample, examine, inspect, sampled
from bluffscope.host.exclusive import exclusive
from bluffscope.host.machine import free_memory
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES, Analysis
from bluffscope.model import LanguageModel
from bluffscope.pairs import Scan, Source, open_source
from bluffscope.pipeline.batch_size import SHARE, batch_tokens, plan_run, run_footprint
from bluffscope.pipeline.build import ColumnsOf, build_worker, load_whole
from bluffscope.pipeline.worker import RunWorker
from bluffscope.records import Item, LabelledText, Pair, Shard
from bluffscope.table.schema import table_columns

PAIRS: Final = 48
"""Pairs that are measured, spread evenly over the input."""
_SENSITIVITY: Final = tuple(analysis for analysis in ANALYSES if analysis.name == "layer_sensitivity")


@exclusive()
def diagnose(config: RunConfig) -> Health:
    """Load a run's model and SAEs, measure some pairs and check what a run would, and more where memory allows.

    Where the whole model fits beside the run's truncated one, its plain forward is what the reading is held against,
    and SAEs are tried at all its layers; else at those that the run loads.

    Args:
        config: the options; the output's are not used.

    Raises:
        InputError: model, SAEs or data that cannot be loaded or do not fit each other at all.
    """
    if config.measure.logprob == "auto":  # looks at more than is asked here
        config = replace(config, measure=replace(config.measure, logprob="off"))
    config = resolved(replace(config, output=OutputOptions()))
    source = open_source(config.data)
    scan = source.scan()
    # A shard of their own: its rows are counted from its first pair's index.
    chosen = _with_longest(sampled(source.items(), scan.count, PAIRS), source)
    pairs = tuple(replace(pair, index=place) for place, pair in enumerate(chosen))
    sensitivity = _SENSITIVITY if config.model.has_saes else ()
    worker = build_worker(config, sensitivity, _columns_of(scan, sensitivity), Stopwatch())
    frame = worker.run(Shard(0, pairs, tuple(pair.id for pair in pairs), scan.arrangement))
    config = worker.loaded.config
    whole = load_whole(config) if _whole_fits(config) else None
    health = _examined(worker, pairs, frame, whole)
    seen = "too large to load next to the run's model: only its loaded blocks were compared"
    seen += ", and SAEs tried there" if config.model.has_saes else ""
    if whole is not None:
        seen = f"{type(whole.network).__name__}, {whole.full_layers} layers, on {source.name}"
    check = found("whole model", "note" if whole is None else "ok", seen)
    return replace(health, checks=(*health.checks, check))


def _with_longest(pairs: Sequence[Pair | LabelledText], source: Source) -> list[Pair | LabelledText]:
    """The pairs and, if it is not among them, the one of the most characters: long texts may change others."""
    longest = max(source.items(), key=lambda item: max(map(len, item.texts("")[1])))
    return sorted({pair.index: pair for pair in (*pairs, longest)}.values(), key=lambda pair: pair.index)


def _columns_of(scan: Scan, analyses: Sequence[Analysis]) -> ColumnsOf:
    carried: list[tuple[str, Any]] = [(column.name, column.kind) for column in scan.carried]
    return lambda layers: table_columns(
        layers, (), carried, [analysis.name for analysis in analyses], [], scan.arrangement
    )


def _whole_fits(config: RunConfig) -> bool:
    """Whether the whole model fits into the memory that is still free."""
    planned = plan_run(config.model, whole=True)
    found = run_footprint(planned.shape, planned.device, config.measure)
    return batch_tokens(found, planned.device, 64, int(free_memory(planned.device) * SHARE)) > 0


def _examined(worker: RunWorker, pairs: Sequence[Item], frame: pl.DataFrame, whole: LanguageModel | None) -> Health:
    measured = frame.filter(pl.col("_reason").is_null())
    entries = measured.lazy().select(pairs[0].arrangement.key, entry="_features")
    features = entries.explode("entry", empty_as_null=False, keep_nulls=False).unnest("entry")
    reasons = frame["_reason"].drop_nulls().value_counts(sort=True)
    sample = Sample(sampled(pairs, len(pairs), CANDIDATES), pairs)
    return examine(
        worker.loaded.config.model,
        inspect(worker, sample, whole, thorough=True),
        measured,
        features,
        dict(reasons.iter_rows()),
        identity=worker.loaded.identity,
        saes=worker.loaded.sae_identities,
    )
