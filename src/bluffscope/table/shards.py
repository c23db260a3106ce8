"""Shards: one file for some pairs with everything that was found of them, and their merge into a run's tables.

A shard is a Parquet file with one row a pair, in input order. It holds the table's columns, the texts,
``_index`` (position in the input), ``_features`` (the sparse features of all views and layers),
``_residuals`` (only where kept) and ``_reason`` (null, or why the pair was quarantined; its metrics are then
null). Because that is one file, a shard is committed by exactly one atomic rename.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from bluffscope.errors import RunFolderError
from bluffscope.table.atomic import atomic_write, sync_folder, unreadable, unwritable
from bluffscope.table.folder import RunFolder
from bluffscope.table.manifest import metric_versions
from bluffscope.table.schema import SCHEMA_VERSION, Column

FEATURES_TYPE: Final = pl.List(
    pl.Struct({"view": pl.String, "layer": pl.Int32, "feature": pl.Int32, "activation": pl.Float32})
)
"""Of ``_features``: one entry for each active feature of each view and layer."""

RESIDUALS_TYPE: Final = pl.List(
    pl.Struct({"view": pl.String, "layer": pl.Int32, "token": pl.Int32, "values": pl.List(pl.Float32)})
)
"""Of ``_residuals``: one entry for each view, layer and token read."""

_TEXTS: Final = ("prompt", "fact", "hallucination")


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge found."""

    rows: int
    """Pairs in metrics.parquet."""
    quarantined: int
    """Pairs in quarantine.parquet; there is no such file where it is 0."""
    reasons: Mapping[str, int]
    """Quarantined pairs by reason, the most frequent first."""


def shard_schema(columns: Sequence[Column], keep_residuals: bool = False) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Names and types of a shard's columns: build its frame with these, so that all shards agree.

    A shard in which some column is null throughout would otherwise have another type than its neighbours.
    """
    schema: dict[str, pl.DataType | type[pl.DataType]] = {"_index": pl.Int64}
    schema |= {column.name: column.dtype for column in columns}
    schema |= dict.fromkeys(_TEXTS, pl.String)
    schema["_features"] = FEATURES_TYPE
    if keep_residuals:
        schema["_residuals"] = RESIDUALS_TYPE
    schema["_reason"] = pl.String
    return schema


def write_shard(path: Path, frame: pl.DataFrame) -> None:
    """Commits a shard with one atomic rename.

    Raises:
        RunFolderError: The file cannot be written.
        ValueError: Columns that every shard has are missing.
    """
    missing = [name for name in ("_index", "pair_id", *_TEXTS, "_features", "_reason") if name not in frame.columns]
    if missing:
        raise ValueError(f"a shard needs the columns {missing}: build its frame with shard_schema()")
    atomic_write(path, lambda temporary: frame.write_parquet(temporary))


def merge(
    folder: RunFolder,
    shard_count: int,
    columns: Sequence[Column],
    metadata: Mapping[str, str],
    keep_residuals: bool = False,
) -> MergeResult:
    """Makes a run's tables out of its shards, checks them, and removes the shards.

    Writes metrics.parquet (the pairs that were measured, with `metadata` as key-value metadata of the file),
    features.parquet, pairs.parquet (all pairs, those in quarantine too), residuals.parquet with
    `keep_residuals`, and quarantine.parquet where there is any. It streams: memory does not grow with the
    number of shards. Each table is committed atomically, the shards go last, so a merge that was cut off can
    simply be run again.

    Args:
        folder: the run's folder.
        shard_count: shards 0 .. shard_count - 1 must be there, and no other.
        columns: the table's columns, as `table_columns` gives them.
        metadata: provenance. ``schema_version`` and ``metric_versions`` (JSON) are added to it.
        keep_residuals: the shards hold ``_residuals``, and residuals.parquet is wanted.

    Raises:
        RunFolderError: A shard is missing, damaged or not of this run, rows are not there exactly once and in
            order, or a table cannot be written. The shards are left as they are.
    """
    paths = _shard_paths(folder, shard_count)
    shards = _scan(paths)
    try:
        state = shards.select("_index", "pair_id", "_reason", features=pl.col("_features").list.len())
        state = state.collect(engine="streaming")
        measured = _check_rows(state)
        _write_tables(folder, shards, columns, metadata, keep_residuals)
        if measured < len(state):
            _write(folder, "quarantine", shards.filter(_QUARANTINED).select("pair_id", *_TEXTS, reason="_reason"))
        else:
            (folder.path / "quarantine.parquet").unlink(missing_ok=True)
        kept = state.filter(~_QUARANTINED)
        _check_rows_of(folder, "metrics", kept["pair_id"])
        _check_rows_of(folder, "pairs", state["pair_id"])
        _check_count(folder, "features", int(kept["features"].sum()))
    except (pl.exceptions.PolarsError, FileNotFoundError) as error:
        raise RunFolderError(_blame(paths, shard_schema(columns, keep_residuals), error)) from error
    _remove_shards(folder)
    reasons = state["_reason"].drop_nulls().value_counts(sort=True)
    return MergeResult(measured, len(state) - measured, dict(reasons.iter_rows()))


_QUARANTINED: Final = pl.col("_reason").is_not_null()


def _shard_paths(folder: RunFolder, shard_count: int) -> list[Path]:
    if shard_count < 1:
        raise ValueError(f"a run has at least one shard, not {shard_count}")
    paths = [folder.shard_path(number) for number in range(shard_count)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise RunFolderError(
            f"{folder.shards} lacks {len(missing)} of {shard_count} shards (first {missing[0]}): run the analysis again"
        )
    known = set(paths)
    # Hidden files are what a killed process left of a write that it did not finish.
    foreign = sorted(path.name for path in folder.shards.glob("[!.]*.parquet") if path not in known)
    if foreign:
        raise RunFolderError(
            f"{folder.shards} holds shards that are not of this run (first {foreign[0]}): use another folder"
        )
    return paths


def _check_rows(state: pl.DataFrame) -> int:
    """Every pair of the input stands there exactly once and in order; gives how many were measured."""
    index = state["_index"].to_numpy()
    wrong = np.flatnonzero(index != np.arange(len(index)))
    if wrong.size:
        row = int(wrong[0])
        raise RunFolderError(f"the shards do not hold every pair once, in order: row {row} is pair number {index[row]}")
    return int(state["_reason"].null_count())


def _write_tables(
    folder: RunFolder,
    shards: pl.LazyFrame,
    columns: Sequence[Column],
    metadata: Mapping[str, str],
    keep_residuals: bool,
) -> None:
    provenance = {
        **metadata,
        "schema_version": str(SCHEMA_VERSION),
        "metric_versions": json.dumps(metric_versions(columns)),
    }
    measured = shards.filter(~_QUARANTINED)
    _write(folder, "metrics", measured.select(column.name for column in columns), provenance)
    carried = [column.name for column in columns if column.section == "carried"]
    _write(folder, "pairs", shards.select("pair_id", "domain", "complexity", *_TEXTS, "group", *carried))
    _write(folder, "features", _unroll(measured, "_features"))
    if keep_residuals:
        _write(folder, "residuals", _unroll(measured, "_residuals"))


def _unroll(shards: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """One row for each entry of a list column, beside the pair's id."""
    entries = shards.select("pair_id", entry=name).explode("entry", empty_as_null=False, keep_nulls=False)
    return entries.unnest("entry")


def _write(folder: RunFolder, name: str, table: pl.LazyFrame, metadata: Mapping[str, str] | None = None) -> None:
    def sink(temporary: Path) -> None:
        table.sink_parquet(temporary, metadata=dict(metadata or {}), maintain_order=True, engine="streaming")

    atomic_write(folder.path / f"{name}.parquet", sink)


def _check_rows_of(folder: RunFolder, name: str, pair_ids: pl.Series) -> None:
    """A table holds exactly these pairs, in this order."""
    _check_count(folder, name, len(pair_ids))
    found = _scan(folder.path / f"{name}.parquet").select("pair_id").collect()["pair_id"]
    if not found.equals(pair_ids):
        path = folder.path / f"{name}.parquet"
        raise RunFolderError(f"{path} does not hold the pairs in the order of the input: run the analysis again")


def _check_count(folder: RunFolder, name: str, rows: int) -> None:
    path = folder.path / f"{name}.parquet"
    found = _scan(path).select(pl.len()).collect().item()
    if found != rows:
        raise RunFolderError(f"{path} holds {found} rows, expected {rows}: run the analysis again")


def _scan(path: Path | list[Path]) -> pl.LazyFrame:
    # Folders may have glob characters or "key=value" in their names: neither means anything here.
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _blame(paths: Sequence[Path], schema: Mapping[str, object], error: Exception) -> str:
    """Names the shard that is at fault: a scan over many files does not say which."""
    again = "delete it and run the analysis again"
    for path in paths:
        try:
            frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError) as fault:
            return f"shard {unreadable(path, fault)}: {again}"
        for name, dtype in schema.items():
            if name not in frame.columns:
                return f"shard {path} has no column {name!r}: {again}"
            if frame.schema[name] != dtype:
                return f"shard {path} has {frame.schema[name]} in column {name!r}, expected {dtype}: {again}"
    return f"the shards cannot be merged ({' '.join(str(error).split())}): run the analysis again"


def _remove_shards(folder: RunFolder) -> None:
    """Takes shards/ away by one rename first, so that a crash leaves all of it or nothing."""
    gone = folder.path / ".shards.tmp"
    steps: tuple[Callable[[], object], ...] = (
        lambda: shutil.rmtree(gone, ignore_errors=True),
        lambda: folder.shards.rename(gone),
        lambda: sync_folder(folder.path),
        lambda: shutil.rmtree(gone, ignore_errors=True),
    )
    try:
        for step in steps:
            step()
    except OSError as error:
        raise unwritable(folder.shards, error) from error
