"""What a run's precision changed: some of its pairs measured again in float32, by metric and by feature."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.compare.tables import EVERY_VIEW, active_features, aligned, with_views
from bluffscope.config import DataOptions, OutputOptions, RunConfig, run_config
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.metrics import ANALYSES, LAYER_METRICS, Analysis
from bluffscope.records import PAIRS, spread
from bluffscope.table.atomic import atomic_write
from bluffscope.table.folder import RunFolder
from bluffscope.table.reader import Run, read_run
from bluffscope.table.schema import Kind, measured_columns

_NUMBERS: Final = ("median_delta", "max_delta", "median_relative", "max_relative", "changed", "surviving", "new")
SCHEMA: Final = {"metric": pl.String, "layer": pl.Int64, "part": pl.String, "n": pl.Int64} | dict.fromkeys(
    _NUMBERS, pl.Float64
)
"""Columns of fidelity.parquet; docs/run-folder.md says what each holds."""

FEATURES: Final = "features"
"""Stands in the column `metric` in the rows that count active features."""


@dataclass(frozen=True)
class Fidelity:
    """A run against float32."""

    pair_ids: tuple[str, ...]
    """The pairs compared, in input order."""
    dtype: str
    """The run's own precision."""
    quantize: str
    """How the run's own weights were quantised, or "none"."""
    seconds: float
    """What measuring again took, loading included."""
    table: pl.DataFrame
    """What fidelity.parquet holds."""

    def entry(self) -> dict[str, Any]:
        """What manifest.json holds under ``fidelity``."""
        rows = [{key: value for key, value in row.items() if value is not None} for row in self.table.to_dicts()]
        return {
            "dtype": self.dtype,
            "quantize": self.quantize,
            "reference": "float32",
            "pairs": list(self.pair_ids),
            "seconds": round(self.seconds, 4),
            "features": [row for row in rows if row["metric"] == FEATURES],
            "metrics": [row for row in rows if row["metric"] != FEATURES],
        }


def check_fidelity(config: RunConfig) -> None:
    """Refuse a number of pairs that is none, and a run that is float32 itself.

    Raises:
        InputError: one line that says what to do.
    """
    pairs = config.output.fidelity
    if pairs < 0:
        raise InputError(f"--fidelity {pairs}: give a number that is 0 or more")
    if pairs and config.model.dtype in ("auto", "float32") and config.model.quantize == "none":
        raise InputError(
            f"--fidelity {pairs}: the run is in float32 without quantisation, so there is nothing to compare; "
            "leave it out, or choose another --dtype or --quantize"
        )


@exclusive()
def measure_fidelity(
    path: str | Path, *, pairs: int = 20, analyses: tuple[Analysis, ...] | None = None, address: str | None = None
) -> Fidelity:
    """Measure some pairs of a finished run again in float32 and see what the run's precision changed.

    Writes fidelity.parquet and the manifest's ``fidelity`` into the run's folder. The texts come from the run's own
    pairs.parquet. A pair's numbers depend on nothing but its texts and its id (which seeds its noise), so what
    differs is the precision.

    Args:
        path: the run's folder; its model and SAEs are loaded as its config.yaml names them.
        pairs: how many pairs, spread evenly over those that were measured; all where there are fewer.
        analyses: which of the five analyses run again (default: all); what the run itself did not measure is not
            compared.
        address: of the Ray cluster that the run used; a cluster can run code here, so the folder does not choose it.

    Raises:
        InputError: no finished run, one that is float32 itself, one on another cluster, or a model that cannot be
            loaded.
        RunFolderError: the folder cannot be written.
    """
    # seconds to import: only here is a model loaded
    import torch

    from bluffscope.runs.run import run as measure

    # One model in memory at a time: the run's own may hang in cycles, and CUDA keeps what was freed.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    path = Path(path)
    run = read_run(path)
    config = run_config(run.config, str(path / "config.yaml"))
    if (named := config.engine.address) not in (None, "auto", address):
        raise InputError(f"{path}: its options name a Ray cluster; if it is yours, give address={named!r}")
    check_fidelity(replace(config, output=replace(config.output, fidelity=pairs)))
    measured = run.metrics[run.key]
    pair_ids = measured.gather(spread(len(measured), pairs)).to_list()
    if not pair_ids:
        raise InputError(f"{path}: no pair to compare; give at least 1, and a run that measured some")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        again = _in_float32(config, _write_pairs(run, pair_ids, Path(scratch)), Path(scratch) / "run")
        measure(again, analyses=ANALYSES if analyses is None else analyses)
        seconds = time.perf_counter() - started
        table = compare_runs(run, read_run(Path(scratch) / "run"), config)
    fidelity = Fidelity(tuple(pair_ids), config.model.dtype, config.model.quantize, seconds, table)
    atomic_write(path / "fidelity.parquet", lambda temporary: table.write_parquet(temporary))
    RunFolder(path).write_manifest({**run.manifest, "fidelity": fidelity.entry()})
    return fidelity


def _write_pairs(run: Run, pair_ids: Sequence[str], folder: Path) -> Path:
    """Some pairs or labelled texts as a file of such."""
    path = folder / "items.parquet"
    chosen = run.items.filter(pl.col(run.key).is_in(list(pair_ids)))
    about = ("domain", "complexity") if run.arrangement == PAIRS else ("domain", "label", "group")
    chosen.select(*about, *run.arrangement.sources, id=run.key).write_parquet(path)
    return path


def _in_float32(config: RunConfig, data: Path, out: Path) -> RunConfig:
    return replace(
        config,
        data=DataOptions(data=str(data), join=config.data.join, chat=config.data.chat, system=config.data.system),
        model=replace(config.model, dtype="float32", quantize="none"),
        measure=replace(config.measure, analysis=()),  # the folder's code is not run
        output=OutputOptions(out=out, keep_residuals="off"),
    )


Cells = tuple[str, int | None, str, Kind, list[str]]
"""Columns that are summed up in one row: metric, layer, part, kind, and their names."""


def compare_runs(run: Run, reference: Run, config: RunConfig, pair_ids: Collection[str] | None = None) -> pl.DataFrame:
    """The table of `SCHEMA`: how a run differs from another over the same pairs in float32.

    Args:
        run: the run whose precision is in question; it may hold more pairs.
        reference: its float32 counterpart.
        config: the run's options, for its layers and noise sweep.
        pair_ids: the pairs that are compared; all that both have unless given.

    Raises:
        InputError: the runs have no pair in common.
    """
    measured, expected = with_views(run.metrics), with_views(reference.metrics)
    ids = expected.select("pair_id").join(measured.select("pair_id"), on="pair_id", how="semi")
    if pair_ids is not None:
        ids = ids.filter(pl.col("pair_id").is_in(list(pair_ids)))
    if ids.is_empty():
        raise InputError("fidelity: none of the pairs chosen could be measured in float32; choose more of them")
    ours, theirs = (_with_differences(table, config) for table in aligned(ids, measured, expected))
    rows = [*_feature_rows(run, reference, ids)]
    for metric, layer, part, kind, names in _all_cells(config):
        if columns := [name for name in names if name in ours.columns and name in theirs.columns]:
            found = _differences(kind, ours.select(columns), theirs.select(columns))
            rows.append({"metric": metric, "layer": layer, "part": part} | found)
    return pl.DataFrame(rows, schema=SCHEMA)


def _with_differences(metrics: pl.DataFrame, config: RunConfig) -> pl.DataFrame:
    """The table with hallucination - fact of the per-layer metrics, which it leaves to its reader."""
    names = (f"l{layer}_{{}}_{metric.name}" for layer in config.model.measured_layers for metric in _LAYER_NUMBERS)
    return metrics.with_columns(
        (pl.col(name.format("hall")) - pl.col(name.format("fact"))).alias(name.format("diff"))
        for name in names
        if name.format("hall") in metrics.columns
    )


_LAYER_NUMBERS: Final = tuple(metric for metric in LAYER_METRICS if metric.kind == "float")


def _all_cells(config: RunConfig) -> Iterator[Cells]:
    for layer in config.model.measured_layers:
        for metric in LAYER_METRICS:
            yield metric.name, layer, "text", metric.kind, [f"l{layer}_{view}_{metric.name}" for view in EVERY_VIEW]
            if metric.kind == "float":
                yield metric.name, layer, "diff", metric.kind, [f"l{layer}_diff_{metric.name}"]
    for column in measured_columns((), config.measure.noise_sweep):
        if (name := column.name.removesuffix("_diff")) != column.name:
            yield name, None, "text", column.kind, [f"{name}_fact", f"{name}_hall", f"{name}_text"]
            yield name, None, "diff", column.kind, [column.name]


def _differences(kind: Kind, ours: pl.DataFrame, theirs: pl.DataFrame) -> dict[str, Any]:
    """What a row says of some columns of both tables."""
    if kind == "category":
        differs = [a.ne_missing(b).to_numpy() for a, b in zip(ours, theirs, strict=True)]
        return {"n": ours.height * ours.width, "changed": float(np.mean(differs))}
    a, b = ours.to_numpy(), theirs.to_numpy()  # (pair, column), NaN where undefined
    delta = np.abs(a - b)
    # Each column by its own spread over the pairs: a prompt's need not be that of its completions.
    relative = [delta[:, i] / sd for i in range(b.shape[1]) if (sd := _deviation(b[:, i]))]
    row = {"n": int(np.isfinite(delta).sum()), "changed": float(np.mean(np.isnan(a) != np.isnan(b)))}
    for name, values in (("delta", delta), ("relative", np.array(relative))):
        if np.isfinite(values).any():
            row |= {f"median_{name}": float(np.nanmedian(values)), f"max_{name}": float(np.nanmax(values))}
    return row


def _deviation(values: np.ndarray) -> float:
    """Standard deviation (ddof 1) of the values that are defined; 0 for fewer than two."""
    defined = values[np.isfinite(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else 0.0


def _feature_rows(run: Run, reference: Run, ids: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """For each layer: of the features active in float32 those still active, and of those active now the new ones."""
    of_items = pl.col(run.key).is_in(ids["pair_id"].to_list())
    ours, theirs = (with_views(each.features.filter(of_items).collect()) for each in (run, reference))
    for layer, active, before, both in active_features(ours, theirs, by=["layer"]).iter_rows():
        yield {
            "metric": FEATURES,
            "layer": layer,
            "part": "text",
            "n": before,
            "surviving": both / before if before else None,
            "new": (active - both) / active if active else None,
        }
