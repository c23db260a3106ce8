"""A whole run: options in, a folder with tables, manifest, log and report out."""

from __future__ import annotations

import gc
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl
import torch

from bluffscope import __version__
from bluffscope.buffers import kept_heap
from bluffscope.config import MeasureOptions, RunConfig
from bluffscope.engine import LocalEngine
from bluffscope.errors import InputError
from bluffscope.fidelity import Fidelity, check_fidelity, compare_with_float32
from bluffscope.health import Health, examine, sampled
from bluffscope.hints import slow_hints
from bluffscope.machine import Watch, device_peak
from bluffscope.metrics import ANALYSES, LOGPROB, Analysis
from bluffscope.pairs import Scan, Source, open_source
from bluffscope.pairs.lint import lint_source
from bluffscope.pairs.source import BUNDLED
from bluffscope.pipeline import ShardWorker, UserAnalysis, cut_shards
from bluffscope.presets import resolve
from bluffscope.records import Shard
from bluffscope.run_log import RunLog, logging_to
from bluffscope.sizing import loaded_shape, predicted_peak, run_footprint
from bluffscope.table.folder import RunFolder
from bluffscope.table.manifest import assemble_manifest
from bluffscope.table.reader import Run
from bluffscope.table.schema import Column, table_columns
from bluffscope.table.shards import MergeResult, merge, write_shard
from bluffscope.timing import Stopwatch
from bluffscope.worker import RunWorker, build_worker

if TYPE_CHECKING:
    from bluffscope.report.write import Report

LINT_PAIRS = 1000
"""Most pairs of a scope that the linter's text classifier sees in a run: `bluffscope lint` takes the time for more."""
LINT_KEPT = 100
"""Findings of a kind, and pairs of a finding, that the manifest names; `bluffscope lint` names all."""

_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Told how a run gets on."""

    def start(self, total: int) -> None:
        """The number of pairs to come."""
        ...

    def advance(self, pairs: int) -> None:
        """So many more pairs are done."""
        ...

    def finish(self) -> None:
        """No more pairs come."""
        ...


class _Silent:
    def start(self, total: int) -> None:
        pass

    def advance(self, pairs: int) -> None:
        pass

    def finish(self) -> None:
        pass


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    path: Path
    merged: MergeResult
    manifest: Mapping[str, Any]
    report: Report | None = None
    """The page and figures, where they were asked for and could be drawn."""
    fidelity: Fidelity | None = None
    """What the run's precision changed, where the options ask for it."""

    def metrics(self) -> pl.DataFrame:
        """The result table, read from the folder."""
        return Run(self.path).metrics


def run(
    config: RunConfig,
    *,
    analyses: tuple[Analysis, ...] = ANALYSES,
    added: tuple[UserAnalysis, ...] = (),
    progress: Progress | None = None,
    draw: bool = True,
) -> RunResult:
    """Measure the pairs that the options name and write the run's folder.

    Args:
        config: all options; whatever is left open is filled in from the preset, the model and the device.
        analyses: which of the five analyses run.
        added: analyses of the user's own.
        progress: told how many pairs are done.
        draw: whether the run is closed with its statistics, report.html and figures (it takes seconds).

    Raises:
        InputError: something in the options or the data; nothing is written (but for a run that is complete when its
            fidelity cannot be measured).
        RunFolderError: the folder cannot be written.
    """
    check_fidelity(config)
    result = _run(config, analyses, added, progress)
    if config.output.fidelity:
        try:
            fidelity = measure_fidelity(result.path, pairs=config.output.fidelity, analyses=analyses)
        except InputError as error:
            raise InputError(f"the run is complete in {result.path}, but not its fidelity: {error}") from error
        result = replace(result, manifest=Run(result.path).manifest, fidelity=fidelity)
    return replace(result, report=_report(result.path)) if draw else result


def _report(path: Path) -> Report | None:
    """The run's statistics, page and figures; None, and a warning, where they could not be made."""
    from bluffscope.report.write import REPORT_ERRORS, write_report  # altair and scipy: seconds that no other run pays

    try:
        return write_report(path)
    except REPORT_ERRORS as error:
        reason = " ".join(str(error).split())
        _log.warning("the run is complete, but not its report: %s; `bluffscope report %s` tries again", reason, path)
        return None


def measure_fidelity(path: str | Path, *, pairs: int = 20, analyses: tuple[Analysis, ...] = ANALYSES) -> Fidelity:
    """Measure some pairs of a finished run again in float32 and see what the run's precision changed.

    Writes fidelity.parquet and the manifest's ``fidelity`` into the run's folder.

    Args:
        path: the run's folder; its model and SAEs are loaded as its config.yaml names them.
        pairs: how many pairs, spread evenly over those that were measured.
        analyses: which of the five analyses run again; what the run itself did not measure is not compared.

    Raises:
        InputError: no finished run, one that is float32 itself, or a model that cannot be loaded.
        RunFolderError: the folder cannot be written.
    """
    # One model in memory at a time: the run's own may hang in cycles, and CUDA keeps what was freed.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return compare_with_float32(Path(path), pairs, lambda config: _run(config, analyses, (), None))


def _run(
    config: RunConfig,
    analyses: tuple[Analysis, ...],
    added: tuple[UserAnalysis, ...],
    progress: Progress | None,
) -> RunResult:
    """`run` without its fidelity and report. The model is held by nothing once it returns."""
    started = time.perf_counter()
    stopwatch = Stopwatch()
    config = homes_expanded(config)
    _check_measure(config.measure)
    if config.measure.logprob and LOGPROB not in analyses:
        analyses = (*analyses, LOGPROB)
    _check_out(config.output.out)
    with stopwatch.stage("data"):
        source = open_source(config.data)
        scan = source.scan()
    config = replace(config, model=resolve(config.model))
    with logging_to(RunLog()) as log:
        with stopwatch.stage("load"):
            everything = (*analyses, *(Analysis("added", item.function) for item in added))
            worker, config = build_worker(config, everything, _columns(config, scan, analyses, added), stopwatch)
        with stopwatch.stage("lint"):
            lint = _lint(config, source, worker)
        with stopwatch.stage("write"):
            folder = _folder(config, source)
            log.open(folder)
            folder.write_config(_replayable(config, worker.identity.get("revision")))
        measuring = time.perf_counter()
        with Watch() as watch:
            shard_count = _measure(config, source, scan, worker, folder, stopwatch, progress or _Silent())
        hints = slow_hints(config, time.perf_counter() - measuring, watch.marks, worker.computed())
        with stopwatch.stage("write"):
            merged = merge(folder, shard_count, worker.columns, _provenance(config, scan), config.output.keep_residuals)
            _log_quarantine(folder)
        with stopwatch.stage("health"):
            health = _health(config, source, scan, worker, folder, merged)
        timings = {**stopwatch.seconds, "total": time.perf_counter() - started}
        manifest = {**_manifest(config, source, scan, worker, merged, timings, lint), "hints": hints}
        manifest["health"] = health.entry()
        folder.write_manifest(manifest)
    return RunResult(folder.path, merged, manifest)


def homes_expanded(config: RunConfig) -> RunConfig:
    """The options with ~ replaced in paths: shells do so only where it begins a word."""
    data, model, output = config.data, config.model, config.output
    return replace(
        config,
        data=replace(data, data=str(_expanded(data.data))),
        model=replace(model, model=_expanded(model.model), sae=_expanded(model.sae)),
        output=replace(output, out=None if output.out is None else output.out.expanduser()),
    )


def _expanded(path: str | None) -> str | None:
    try:
        return str(Path(path).expanduser()) if path is not None and path.startswith("~") else path
    except RuntimeError as error:  # no such user
        raise InputError(f"{path}: {error}".rstrip(".") + "; give the whole path") from error


def _check_out(out: Path | None) -> None:
    """Refuse a folder that cannot be made, before seconds or minutes go into loading a model."""
    if out is not None:
        RunFolder.check(out)
    path = (out or Path("runs")).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"--out {out or path}: {there} is a file; choose another folder with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--out {out or path}: {there} cannot be written; choose another folder with --out")


def _folder(config: RunConfig, source: Source) -> RunFolder:
    if config.output.out is not None:
        return RunFolder.create(config.output.out)
    return RunFolder.create_default(f"{_model_name(config)}-{source.name}")


def _model_name(config: RunConfig) -> str:
    return Path(config.model.model or "model").name


def _lint(config: RunConfig, source: Source, worker: RunWorker) -> dict[str, Any]:
    """What the linter finds, for the manifest; it stops nothing, and a sample does for its text classifier."""
    report = lint_source(
        source,
        tokenize=worker.tokenizer.tokenize,
        tokenizer=config.model.model,
        most_judged=LINT_PAIRS,
        seed=config.measure.seed,
    )
    return report.as_dict(LINT_KEPT)


def _health(
    config: RunConfig, source: Source, scan: Scan, worker: RunWorker, folder: RunFolder, merged: MergeResult
) -> Health:
    """The health gate, on the finished tables and on a few texts read again."""
    run = Run(folder.path)
    return examine(
        config.model,
        worker,
        sampled(source.pairs(), scan.count),
        run.metrics,
        run.features,
        merged.reasons,
        identity=worker.identity,
        saes=worker.sae_identities,
        allowed=config.output.allow_unsound,
    )


def _manifest(
    config: RunConfig,
    source: Source,
    scan: Scan,
    worker: RunWorker,
    merged: MergeResult,
    timings: dict[str, float],
    lint: dict[str, Any],
) -> dict[str, Any]:
    manifest = assemble_manifest(
        columns=worker.columns,
        model=worker.identity,
        saes={str(layer): identity for layer, identity in worker.sae_identities.items()},
        device=config.model.device,
        dtype=config.model.dtype,
        seeds={"noise": config.measure.seed},
        counts={
            "pairs": scan.count,
            "measured": merged.rows,
            "quarantined": merged.quarantined,
            **worker.computed(),
        },
        timings=timings,
        lint=lint,
    )
    manifest["data"] = {"name": source.name, "digest": scan.digest, "domains": scan.domains}
    manifest["memory"] = _memory(config, worker, scan.count)
    manifest["strategy"] = worker.strategy
    manifest["quantize"] = config.model.quantize
    return manifest


def _memory(config: RunConfig, worker: RunWorker, count: int) -> dict[str, int | None]:
    """The most memory held where the model is, as predicted (for strategies that have a model of it) and as it came."""
    device, predicted = config.model.device, None
    if isinstance(worker, ShardWorker):
        model, head = worker.reader.model, config.measure.logprob
        shape = loaded_shape(model, worker.coders.values(), config.model.quantize, head=head)
        predicted = predicted_peak(config.engine, run_footprint(shape, device, config.measure), count)
    return {"predicted_bytes": predicted, "peak_bytes": device_peak(device)}


def _measure(
    config: RunConfig,
    source: Source,
    scan: Scan,
    worker: RunWorker,
    folder: RunFolder,
    stopwatch: Stopwatch,
    progress: Progress,
) -> int:
    """Run and commit every shard; gives their number."""
    committed = itertools.count()

    def commit(shard: Shard, frame: pl.DataFrame) -> None:
        with stopwatch.stage("write"):
            write_shard(folder.shard_path(shard.number), frame)
        next(committed)

    progress.start(scan.count)
    try:
        pairs = zip(source.pairs(), scan.groups.tolist(), strict=True)
        shards = _timed(cut_shards(pairs, config.engine.shard_pairs), stopwatch)
        with kept_heap():
            LocalEngine().run(shards, lambda: worker, commit, progress.advance)
    finally:
        progress.finish()
    return next(committed)


def _timed(shards: Iterator[Shard], stopwatch: Stopwatch) -> Iterator[Shard]:
    """The shards, the time it takes to read them counted as the stage data."""
    while True:
        with stopwatch.stage("data"):
            shard = next(shards, None)
        if shard is None:
            return
        yield shard


def _columns(
    config: RunConfig, scan: Scan, analyses: tuple[Analysis, ...], added: tuple[UserAnalysis, ...]
) -> Callable[[tuple[int, ...]], Sequence[Column]]:
    def columns_of(layers: tuple[int, ...]) -> Sequence[Column]:
        return table_columns(
            layers,
            config.measure.noise_sweep,
            [(column.name, column.kind) for column in scan.carried],
            [analysis.name for analysis in analyses],
            [column for analysis in added for column in analysis.columns],
        )

    return columns_of


def _check_measure(options: MeasureOptions) -> None:
    if options.noise_draws < 1:
        raise InputError(f"--noise-draws {options.noise_draws}: give at least 1")
    for name, value in [("--noise-std", options.noise_std), *(("--noise-sweep", s) for s in options.noise_sweep)]:
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} {value}: give a number that is 0 or more")
    sweep = options.noise_sweep
    if repeated := next((value for value in sweep if sweep.count(value) > 1), None):
        raise InputError(f"--noise-sweep: {repeated:g} is given twice; name each value once")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give a number that is 0 or more")


def _replayable(config: RunConfig, revision: str | None) -> dict[str, Any]:
    """The options as config.yaml holds them: complete, free of what belongs to this run's folder alone.

    Folders are absolute, and a model of the hub stays at the commit that was used.
    """
    model = replace(
        config.model,
        model=_absolute(config.model.model),
        sae=_absolute(config.model.sae),
        revision=revision or config.model.revision,
    )
    data = config.data
    if data.data != BUNDLED:
        data = replace(data, data=str(Path(data.data).resolve()))
    return asdict(replace(config, model=model, data=data, output=replace(config.output, out=None)))


def _absolute(name: str | None) -> str | None:
    return str(Path(name).resolve()) if name is not None and Path(name).is_dir() else name


def _provenance(config: RunConfig, scan: Scan) -> dict[str, str]:
    return {
        "bluffscope": __version__,
        "model": str(config.model.model),
        "sae": str(config.model.sae),
        "layers": " ".join(map(str, config.model.layers)),
        "position": config.measure.position,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize,
        "seed": str(config.measure.seed),
        "data_digest": scan.digest,
    }


def _log_quarantine(folder: RunFolder) -> None:
    for row in Run(folder.path).quarantine.iter_rows(named=True):
        folder.log("error", row["reason"], [row["pair_id"]])
