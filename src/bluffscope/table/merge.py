"""The merge: a run's tables out of its shards, in one pass over them, with memory that does not grow with their number.

Every table is written under a hidden name and takes its place once all shards have been read, so that a merge that is
cut off at any moment can simply be run again. The shards stay until the caller has what came of it in the manifest.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from bluffscope.errors import RunFolderError
from bluffscope.records import PAIRS, Arrangement
from bluffscope.table.atomic import AtomicFile, sync_folder, unreadable, writing
from bluffscope.table.checksums import TableFile, check_table, write_checksums
from bluffscope.table.folder import RunFolder
from bluffscope.table.manifest import metric_versions
from bluffscope.table.paired import PairedBy, write_paired
from bluffscope.table.schema import SCHEMA_VERSION, Column
from bluffscope.table.shards import BY_TOKEN, FURTHER, SESSION, ShardFile, committed_shards, shard_schema

GROUP_BYTES: Final = 32 << 20
"""Rows of a table are held until they take this much memory, and then written as one row group."""

_AGAIN: Final = "run the analysis again"
_ABOUT: Final = {"pair_id": ("domain", "complexity"), "text_id": ("label", "domain")}
"""What the table of all texts says of an item before them, by the name of its key."""
_MEASURED: Final = pl.col("_reason").is_null()


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge found."""

    rows: int
    """Pairs in metrics.parquet."""
    quarantined: int
    """Pairs in quarantine.parquet; there is no such file where it is 0."""
    reasons: Mapping[str, int]
    """Quarantined pairs by reason, the most frequent first."""
    tables: Mapping[str, TableFile] = field(default_factory=dict[str, TableFile])
    """Each table by its file's name."""
    sessions: Sequence[Mapping[str, Any]] = ()
    """The sessions that committed shards, the first one first: the latest state of each, and its ``pairs``."""


def merge(
    folder: RunFolder,
    shard_count: int,
    columns: Sequence[Column],
    metadata: Mapping[str, str],
    keep_residuals: bool = False,
    check: Callable[[], None] = lambda: None,
    arrangement: Arrangement = PAIRS,
    paired_by: PairedBy | None = None,
    by_token: bool = False,
    further: bool = False,
) -> MergeResult:
    """Makes a run's tables out of its shards and checks them; the shards stay, see `remove_shards`.

    Writes metrics.parquet (the pairs that were measured, with `metadata` as key-value metadata of the file),
    features.parquet, pairs.parquet (all pairs, those in quarantine too; texts.parquet in a run over labelled texts),
    residuals.parquet with `keep_residuals`, further_residuals.parquet with `further`, tokens.parquet and
    token_features.parquet with `by_token`, quarantine.parquet where there is any, and checksums.txt.

    Args:
        folder: the run's folder.
        shard_count: shards 0 .. shard_count - 1 must be there, and no other; in which order they came is all one.
        columns: the table's columns, as `table_columns` returns them.
        metadata: provenance. ``schema_version`` and ``metric_versions`` (JSON) are added to it.
        keep_residuals: the shards hold ``_residuals``, and residuals.parquet is wanted.
        check: called between shards; may raise to end the merge.
        arrangement: of the items.
        paired_by: what labelled texts have in common that make pairs: then paired.parquet holds those, if any.
        by_token: the shards hold tokens.
        further: the shards hold residuals of further positions.

    Raises:
        DamagedShardError: A shard does not hold what was committed.
        RunFolderError: A shard is missing or not of this run, rows are not there exactly once and in order, or a
            table cannot be written. The shards are left as they are.
    """
    files = _complete(folder, shard_count)
    schema = shard_schema(columns, keep_residuals, arrangement, by_token, further)
    kept = [name for name in ("features", "residuals", FURTHER, *BY_TOKEN) if f"_{name}" in schema]
    reasons: Counter[str] = Counter()
    sessions: dict[str, dict[str, Any]] = {}
    rows = 0
    versions = json.dumps(metric_versions(columns))
    provenance = {**metadata, "schema_version": str(SCHEMA_VERSION), "metric_versions": versions}
    tables: dict[str, _Table] = {}
    with ExitStack() as held:
        for file in files:
            check()
            content = file.content()
            frame = _frame(file, content, schema)
            _check_order(frame, rows)
            rows += len(frame)
            reasons.update(frame["_reason"].drop_nulls().to_list())
            _note_session(sessions, content, len(frame))
            for name, part in _parts(frame, columns, kept, arrangement).items():
                if name not in tables:
                    tables[name] = _Table(folder, name, provenance if name == "metrics" else {}, held)
                tables[name].add(part)
        written = {table.path.name: table.finish() for table in tables.values()}
    written |= {} if paired_by is None else _paired(folder, columns, paired_by)
    if not reasons:
        with writing(folder.path):
            (folder.path / "quarantine.parquet").unlink(missing_ok=True)
    for name, table in written.items():
        check_table(folder.path / name, table)
    write_checksums(folder.path, written)
    quarantined = reasons.total()
    ordered = sorted(sessions.values(), key=lambda session: str(session.get("started")))
    return MergeResult(rows - quarantined, quarantined, dict(reasons.most_common()), written, ordered)


def _paired(folder: RunFolder, columns: Sequence[Column], by: PairedBy) -> dict[str, TableFile]:
    """paired.parquet, where labelled texts make pairs; an earlier one goes where they do not."""
    path = folder.path / "paired.parquet"
    with writing(path), AtomicFile(path.parent, path.name) as file:
        if rows := write_paired(folder.path, file, columns, by):
            file.commit()
            return {path.name: TableFile(file.sha256, file.size, rows)}
        path.unlink(missing_ok=True)
    return {}


def remove_shards(folder: RunFolder) -> None:
    """Takes shards/ away by one rename first, so that a crash leaves all of it or nothing.

    Raises:
        RunFolderError: It cannot be removed.
    """
    gone = folder.path / ".shards.tmp"
    with writing(folder.shards):
        shutil.rmtree(gone, ignore_errors=True)
        if folder.shards.exists():
            folder.shards.rename(gone)
            sync_folder(folder.path)
            shutil.rmtree(gone, ignore_errors=True)


class _Table:
    """A Parquet file in the making: rows are added, row groups written."""

    def __init__(self, folder: RunFolder, name: str, metadata: Mapping[str, str], held: ExitStack) -> None:
        self._metadata = metadata
        self._waiting: list[pl.DataFrame] = []
        self._bytes = self._rows = 0
        self._writer: pq.ParquetWriter | None = None
        self.path = folder.path / f"{name}.parquet"
        with writing(self.path):
            self._file = held.enter_context(AtomicFile(self.path.parent, self.path.name))
        held.callback(self._abandon)

    def add(self, frame: pl.DataFrame) -> None:
        """Rows that follow; the first call fixes the columns."""
        self._waiting.append(frame)
        self._bytes += int(frame.estimated_size())
        self._rows += len(frame)
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> TableFile:
        """Write the rest and put the file in its place."""
        self._flush()
        with writing(self.path):
            assert self._writer is not None  # every shard adds to every table
            self._writer.close()
            self._file.commit()
        return TableFile(self._file.sha256, self._file.size, self._rows)

    def _abandon(self) -> None:
        """Where the merge did not get this far: a writer that is left open would write when it is collected."""
        if self._writer is not None and self._writer.is_open:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer.is_open = False

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pl.concat(self._waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
        self._waiting, self._bytes = [], 0
        with writing(self.path):
            if self._writer is None:
                texts = [entry.name for entry in table.schema if entry.type == "large_string"]
                schema = table.schema.with_metadata(dict(self._metadata))
                # Its stub knows no lists of columns.
                dictionary = cast("bool", texts)
                self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", use_dictionary=dictionary)
            if table.num_rows:
                self._writer.write_table(table, row_group_size=table.num_rows)


def _parts(
    frame: pl.DataFrame, columns: Sequence[Column], kept: Sequence[str], arrangement: Arrangement
) -> dict[str, pl.DataFrame]:
    """Each table's part of a shard; of quarantine.parquet only where there is any."""
    measured, failed = frame.filter(_MEASURED), frame.filter(~_MEASURED)
    key = arrangement.key
    carried = [column.name for column in columns if column.section == "carried"]
    parts = {
        "metrics": measured.select(column.name for column in columns),
        arrangement.table: frame.select(key, *_ABOUT[key], *arrangement.sources, "group", *carried),
    }
    for name in kept:
        entries = measured.select(key, entry=f"_{name}").explode("entry", empty_as_null=False, keep_nulls=False)
        parts[name] = entries.unnest("entry")
    if len(failed):
        parts["quarantine"] = failed.select(key, *arrangement.sources, reason="_reason")
    return parts


def _complete(folder: RunFolder, shard_count: int) -> list[ShardFile]:
    """The shards of a run, all of them, each once."""
    if shard_count < 1:
        raise ValueError(f"a run has at least one shard, not {shard_count}")
    files = {file.number: file for file in committed_shards(folder.shards)}
    missing = [number for number in range(shard_count) if number not in files]
    if missing:
        raise RunFolderError(
            f"{folder.shards} lacks {len(missing)} of {shard_count} shards (first number {missing[0]}): {_AGAIN}"
        )
    if len(files) > shard_count:
        foreign = next(file for number, file in files.items() if number >= shard_count)
        raise RunFolderError(
            f"{folder.shards} holds shards that are not of this run (first {foreign.path.name}): use another folder"
        )
    return [files[number] for number in range(shard_count)]


def _frame(file: ShardFile, content: bytes, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    """A shard's rows, of the columns expected."""
    again = "delete it and run the analysis again"
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except pl.exceptions.PolarsError as error:
        raise RunFolderError(f"shard {unreadable(file.path, error)}: {again}") from error
    for name, dtype in schema.items():
        if name not in frame.columns:
            raise RunFolderError(f"shard {file.path} has no column {name!r}: {again}")
        if frame.schema[name] != dtype:
            found = frame.schema[name]
            raise RunFolderError(f"shard {file.path} has {found} in column {name!r}, expected {dtype}: {again}")
    return frame


def _check_order(frame: pl.DataFrame, start: int) -> None:
    """The pairs of the input follow each other, exactly once and in order."""
    index = frame["_index"].to_numpy()
    wrong = np.flatnonzero(index != np.arange(start, start + len(index)))
    if wrong.size:
        row = int(wrong[0])
        raise RunFolderError(
            f"the shards do not hold every pair once, in order: row {start + row} is pair number {index[row]}"
        )


def _note_session(sessions: dict[str, dict[str, Any]], content: bytes, pairs: int) -> None:
    """Keep the latest state of a session, and count its pairs."""
    said = json.loads(pl.read_parquet_metadata(io.BytesIO(content)).get(SESSION, "{}"))
    known = sessions.setdefault(str(said.get("started")), {"pairs": 0})
    if said.get("elapsed", 0) >= known.get("elapsed", 0):
        known |= said
    known["pairs"] += pairs
