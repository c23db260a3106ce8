"""The engine on a model of the user's, against the sequential pattern and a careful script, each in its own process.

Like is compared with like: the sequential pattern with a whole measurement, analyses included; the careful script,
which makes none, with the engine's tokenising, forward and encode alone. What they find is compared too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import polars as pl
import torch

from bluffscope.compare.bench import careful
from bluffscope.compare.bench.processes import fresh
from bluffscope.compare.bench.texts import write_pairs
from bluffscope.compare.strategies import flips
from bluffscope.compare.tables import FLIPS, active_features, compare
from bluffscope.config import (
    NO_SAE,
    DataOptions,
    EngineOptions,
    MeasureOptions,
    ModelOptions,
    OutputOptions,
    RunConfig,
)
from bluffscope.config.demo import model_place
from bluffscope.config.presets import resolved
from bluffscope.errors import InputError
from bluffscope.host.buffers import kept_heap
from bluffscope.host.machine import Watch
from bluffscope.host.own_process import ASLEEP, BRIEFLY
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES
from bluffscope.model.gguf import converted, is_gguf
from bluffscope.model.hooks import HookPoint
from bluffscope.model.load import check_model
from bluffscope.pairs import open_source
from bluffscope.pipeline.build import build_worker, load_parts
from bluffscope.records import VIEWS, Shard
from bluffscope.runs.options import possible
from bluffscope.sae import Coder
from bluffscope.sae.load import as_saelens
from bluffscope.table.folder import RunFolder
from bluffscope.table.merge import merge
from bluffscope.table.schema import table_columns
from bluffscope.table.shards import write_shard

CLOSE: Final = 1e-4
"""Largest relative difference of a residual between packed rows and padded batches in float32; a wrong mask, position
or layer makes one near 1."""
BARE: Final = MeasureOptions(logprob="off", trajectory="off")
"""Nothing but residuals and features: what is compared, whatever a run measures by default."""
WARM_PAIRS: Final = 16
SETTLED: Final = 30.0
"""Seconds that all repetitions of a way should take."""
MOST_REPEATS: Final = 15
Result = TypeVar("Result")
Way = Literal["sequential", "packed", "careful"]


@dataclass(frozen=True, kw_only=True)
class Against:
    """What is measured."""

    model: str
    sae: str
    layers: tuple[int, ...] = ()
    pairs: int = 200
    sequential_pairs: int = 10
    """Pairs that the sequential pattern is measured on, spread over the lengths."""
    repeats: int = 3
    """Of all but the sequential pattern, at least: what is short is measured more often. The median counts."""


class Measured(NamedTuple):
    """One way's times, and what it found."""

    way: Way
    name: str
    does: Literal["all analyses", "forward + encode"]
    pairs: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    """Processor time of all threads, which other programs hardly change."""
    layers: tuple[int, ...]
    threads: int
    marks: tuple[str, ...]
    tokens: int | None
    """That went through the model each time, padding included."""
    metrics: pl.DataFrame | None
    """The result table."""
    features: pl.DataFrame
    """pair_id, view, layer, feature, activation."""
    residuals: Mapping[int, np.ndarray]
    """By layer (text, d_model): prompt, fact and hallucination of each pair in turn; empty where not compared."""

    @property
    def seconds_per_pair(self) -> float:
        """The median."""
        return statistics.median(self.seconds) / self.pairs

    @property
    def cpu_per_pair(self) -> float:
        """The median."""
        return statistics.median(self.cpu_seconds) / self.pairs

    def record(self) -> dict[str, Any]:
        """For bench.json."""
        left_out = ("metrics", "features", "residuals")
        plain = {name: value for name, value in self._asdict().items() if name not in left_out}
        return {**plain, "seconds_per_pair": self.seconds_per_pair, "cpu_per_pair": self.cpu_per_pair}


def measure(asked: Against) -> Iterator[Measured]:
    """Every way, one after the other; each is yielded as soon as it is measured.

    Raises:
        InputError: a model, SAEs or layers that cannot be measured.
        JobFailed: a process ended early.
    """
    with tempfile.TemporaryDirectory(prefix="bluffscope-bench-") as scratch:
        data = write_pairs(Path(scratch) / "pairs.jsonl", asked.pairs)
        some = _spread(data, Path(scratch) / "some.jsonl", asked.sequential_pairs)
        layers = asked.layers or (() if asked.sae != NO_SAE else _quarters(asked.model))
        options = ModelOptions(model=asked.model, sae=asked.sae, layers=layers, device="cpu")
        measured, kept = MeasureOptions(logprob="off"), OutputOptions(keep_residuals="on")
        config = RunConfig(data=DataOptions(data=str(data)), model=options, measure=measured, output=kept)
        config = resolved(config)
        for head in (True, False):
            yield from fresh("the careful script", of_careful, config, asked.repeats, head)
            if head:
                yield from fresh("the engine", of_engine, config, asked.repeats, False)
        yield from fresh("the engine", of_engine, config, asked.repeats, True)
        slow = replace(config, data=DataOptions(data=str(some)), engine=EngineOptions(strategy="sequential"))
        # Threads of torch that wait busily would slow down numpy's, and make the pattern look slower than it is.
        idle: dict[str, str | None] = {**dict.fromkeys(BRIEFLY), **ASLEEP}
        yield from fresh("the sequential pattern", of_engine, slow, 1, True, settings=idle)


def _quarters(model: str) -> tuple[int, ...]:
    """Three layers that a model without SAEs is measured at."""
    depth = int(check_model(model_place(model), None).num_hidden_layers)
    return tuple(sorted({max(0, min(depth * part // 4, depth - 2)) for part in (1, 2, 3)}))


def _spread(data: Path, some: Path, count: int) -> Path:
    """A file of so many of the pairs, at even steps through their order by length."""
    lines = sorted(data.read_text(encoding="utf-8").splitlines(), key=len)
    count = min(count, len(lines))
    chosen = [lines[(2 * place + 1) * len(lines) // (2 * count)] for place in range(count)]
    some.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return some


def of_engine(config: RunConfig, repeats: int, analyses: bool) -> Iterator[Measured]:
    """The engine, or a strategy of the reference, on all pairs: from texts to rows in memory.

    Args:
        config: model, SAEs, pairs and strategy.
        repeats: how often they are measured.
        analyses: with all analyses that a run of these options makes; else tokenising, forward and encode alone.
    """
    if not analyses:
        config = replace(config, measure=BARE)
    made = possible(config, ANALYSES, ()) if analyses else ()
    columns_of = partial(table_columns, analyses=tuple(analysis.name for analysis in made))
    worker = build_worker(config, made, columns_of, Stopwatch())
    source = open_source(config.data)
    items, groups = tuple(source.pairs()), tuple(source.scan().groups)
    shard = Shard(0, items, groups)
    slow = worker.in_batches is None
    warm = 1 if slow else WARM_PAIRS
    with kept_heap():
        worker.run(Shard(0, items[:warm], groups[:warm]))
        before = worker.computed().get("slots")
        with Watch() as watch:
            done = _timed(lambda: worker.measure(worker.prepare(shard), lambda _: None), repeats)
    tables = _tables(worker.tabulate(done[-1].result), worker.columns)
    yield Measured(
        way="sequential" if slow else "packed",
        name="sequential pattern" if slow else "packed",
        does="all analyses" if analyses else "forward + encode",
        pairs=len(items),
        seconds=tuple(each.seconds for each in done),
        cpu_seconds=tuple(each.cpu for each in done),
        layers=worker.loaded.config.model.measured_layers,
        threads=torch.get_num_threads(),
        marks=watch.marks,
        tokens=None if before is None else (worker.computed()["slots"] - before) // len(done),
        metrics=tables["metrics"] if analyses else None,
        features=tables["features"],
        residuals={} if analyses else _by_layer(tables["residuals"], [item.id for item in items]),
    )


class _Timed(NamedTuple, Generic[Result]):
    seconds: float
    cpu: float
    result: Result


def _timed(work: Callable[[], Result], repeats: int) -> list[_Timed[Result]]:
    """At least so many repetitions; more while they are short, so that other programs weigh on all ways alike."""
    done: list[_Timed[Result]] = []
    while len(done) < repeats or (repeats > 1 and len(done) < MOST_REPEATS and sum(e.seconds for e in done) < SETTLED):
        started, used = time.perf_counter(), time.process_time()
        result = work()
        done.append(_Timed(time.perf_counter() - started, time.process_time() - used, result))
    return done


def _tables(frame: pl.DataFrame, columns: Sequence[Any]) -> dict[str, pl.DataFrame]:
    """The tables that a run would write of a shard's rows."""
    with tempfile.TemporaryDirectory(prefix="bluffscope-bench-") as scratch:
        folder = RunFolder.create(Path(scratch) / "run")
        write_shard(folder.shards, 0, frame)
        merged = merge(folder, 1, columns, {}, keep_residuals=True)
        if merged.quarantined:
            raise InputError(f"{merged.quarantined} pairs cannot be measured: {dict(merged.reasons)}")
        return {name: pl.read_parquet(folder.path / f"{name}.parquet") for name in ("metrics", "features", "residuals")}


def _by_layer(table: pl.DataFrame, ids: Sequence[str]) -> dict[int, np.ndarray]:
    """Residuals (text, d_model) by layer, the views of each pair in turn."""
    rank = {(pair, view): place for place, (pair, view) in enumerate((pair, view) for pair in ids for view in VIEWS)}
    found: dict[int, np.ndarray] = {}
    for (layer,), rows in table.group_by("layer"):
        order = np.argsort([rank[key] for key in rows.select("pair_id", "view").iter_rows()])
        found[int(layer)] = np.stack(rows["values"].to_list())[order]
    return found


def of_careful(config: RunConfig, repeats: int, head: bool) -> Iterator[Measured]:
    """The careful script on all pairs' texts, see `bluffscope.compare.bench.careful`."""
    config = replace(config, model=replace(config.model, dtype="float32"), measure=BARE)
    parts = load_parts(config)  # where each layer is read, and its SAE
    states = hidden_states(parts.coders, parts.bare, parts.model.full_layers)
    bos = all(coder.prepend_bos for coder in parts.coders.values()) and parts.model.tokenizer.bos_token_id is not None
    saes = {layer: as_saelens(coder.sae) for layer, coder in parts.coders.items()}
    del parts
    name = model_place(str(config.model.model))
    model, tokenizer = careful.load(str(converted(name)) if is_gguf(name) else name, head=head)
    pairs = list(open_source(config.data).pairs())
    texts = [pair.text(view, config.data.join) for pair in pairs for view in VIEWS]
    careful.read(model, tokenizer, saes, states, texts[: 3 * WARM_PAIRS], bos=bos)
    with Watch() as watch:
        done = _timed(lambda: careful.read(model, tokenizer, saes, states, texts, bos=bos), repeats)
    found = done[-1].result
    yield Measured(
        way="careful",
        name="careful script" + ("" if head else ", no LM head"),
        does="forward + encode",
        pairs=len(pairs),
        seconds=tuple(each.seconds for each in done),
        cpu_seconds=tuple(each.cpu for each in done),
        layers=tuple(states),
        threads=torch.get_num_threads(),
        marks=watch.marks,
        tokens=found.slots,
        metrics=None,
        features=_sparse(found.features, [pair.id for pair in pairs]),
        residuals={layer: residual.numpy() for layer, residual in found.residuals.items()},
    )


def hidden_states(coders: Mapping[int, Coder], bare: Sequence[int], depth: int) -> dict[int, int]:
    """By layer, where its residual stands among the `hidden_states` of transformers.

    Raises:
        InputError: the layer reads what is not among them.
    """
    places: dict[int, int] = {}
    for layer in (*coders, *bare):
        point = HookPoint.parse(coders[layer].hook_name) if layer in coders else HookPoint(layer, "hook_resid_post")
        place = point.block + (point.point == "hook_resid_post")
        centred = layer in coders and coders[layer].centred
        if not point.point.startswith("hook_resid") or place == depth or centred:
            raise InputError(
                f"--layers {layer}: what is read at blocks.{point.block}.{point.point} is not among the hidden states "
                "that transformers returns, so the careful script cannot read it; choose other layers"
            )
        places[layer] = place
    return places


def _sparse(features: Mapping[int, torch.Tensor], ids: Sequence[str]) -> pl.DataFrame:
    """Active features as a run's table has them."""
    schema = pl.Schema(
        {"pair_id": pl.String, "view": pl.String, "layer": pl.Int32, "feature": pl.Int32, "activation": pl.Float32}
    )
    parts = [schema.to_frame()]
    keys = pl.DataFrame({"pair_id": np.repeat(np.array(ids), len(VIEWS)), "view": list(VIEWS) * len(ids)})
    for layer, dense in features.items():
        text, feature = (place.numpy() for place in dense.nonzero(as_tuple=True))
        cells = {"feature": feature, "activation": dense[text, feature].numpy()}
        parts.append(keys[text].with_columns(pl.lit(layer).alias("layer")).hstack(pl.DataFrame(cells)).cast(schema))
    return pl.concat(parts)


class Agreement(NamedTuple):
    """Whether two ways found the same."""

    holds: bool
    said: str

    def __str__(self) -> str:
        """In a sentence."""
        return f"results {'agree' if self.holds else 'DIFFER'}: {self.said}"


def same_residuals(packed: Measured, other: Measured) -> Agreement:
    """Residuals within `CLOSE`, and no more features that flip at their threshold than docs/verify.md allows."""
    apart = max(
        float((np.linalg.norm(ours - other.residuals[layer], axis=1) / np.linalg.norm(ours, axis=1)).max())
        for layer, ours in packed.residuals.items()
    )
    said = f"residuals apart by at most {apart:.1e} of their length ({CLOSE:g} allowed)"
    if packed.features.is_empty() and other.features.is_empty():
        return Agreement(apart <= CLOSE, said)
    counts = active_features(packed.features, other.features, by=["layer"]).select("first", "other", "both").sum()
    first, second, both = counts.row(0)
    flipped = first + second - 2 * both
    said += f"; {flipped:,} of {first:,} active features in one only ({FLIPS:.1%} allowed)"
    return Agreement(apart <= CLOSE and flipped <= FLIPS * first, said)


def same_metrics(packed: Measured, other: Measured) -> Agreement:
    """Every cell of the pairs that both measured within float32's tolerances (docs/verify.md)."""
    assert packed.metrics is not None and other.metrics is not None
    ids = other.metrics["pair_id"].implode()
    ours, features = (frame.filter(pl.col("pair_id").is_in(ids)) for frame in (packed.metrics, packed.features))
    theirs = other.metrics.drop("group")  # which follows from all pairs of the data, and one had fewer
    found = compare(ours, theirs, "float32", flips=flips(features, other.features))
    return Agreement(found.holds, str(found))
