"""An earlier run over the same texts, whose numbers hold although labels or carried columns changed since."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from bluffscope.config import RunConfig, run_config
from bluffscope.errors import InputError
from bluffscope.records import Item, Shard
from bluffscope.runs.identity import Identity, placeless, result_options
from bluffscope.runs.resume import look_for_run, read_previous
from bluffscope.table.atomic import make_folder, sync_folder, table_errors, writing
from bluffscope.table.checksums import inspect
from bluffscope.table.folder import RUN_MARKS, plain
from bluffscope.table.links import APPENDED, OURS
from bluffscope.table.lock import LOCK, locked
from bluffscope.table.reader import Run
from bluffscope.table.schema import Column
from bluffscope.table.shards import FURTHER, shard_schema

ASIDE: Final = ".earlier"
"""Folder within a run's own that holds the earlier run until the new one is complete."""
_LAST: Final = "manifest.json"
"""Moved last: where it is in `ASIDE`, everything is."""


@dataclass(frozen=True)
class Earlier:
    """What an earlier run measured, and gives to a new one."""

    run: Run

    @classmethod
    def of(cls, folder: Path, identity: Identity) -> Earlier | None:
        """The run in a folder; None where it is damaged, or its numbers follow from another model or other options."""
        finished = inspect(folder)
        if not finished.tables_whole or finished.manifest is None:
            return None
        run, now = Run(folder), identity.entry()
        try:
            options = result_options(run_config(run.config, str(folder / "config.yaml")))
        except InputError:  # of another version
            return None
        before, after = (
            plain([placeless(one["model"]), {layer: placeless(sae) for layer, sae in one["saes"].items()}])
            for one in (finished.manifest, now)
        )
        versions = [list(one["metric_versions"].items()) for one in (finished.manifest, now)]
        # labels of tokens follow from spans, which may be others now
        same = (
            options["position"] != "tokens"  # which stands alone
            and options == now["options"]
            and before == after
            and versions[0] == versions[1]
        )
        return cls(run) if same else None

    def frame(self, shard: Shard, columns: Sequence[Column], config: RunConfig) -> pl.DataFrame | None:
        """A shard's rows with its items' names, labels and carried columns as they are now; None where one is new."""
        arrangement, items = shard.arrangement, shard.items
        key, sources = arrangement.key, arrangement.sources
        if key != self.run.key:
            return None
        ids = [item.id for item in items]
        chosen = pl.col(key).is_in(ids)
        known = self.run.metrics.select(key).filter(chosen).join(self.run.items.select(key, *sources), on=key)
        texts = {name: tuple(said) for name, *said in known.iter_rows()}
        if any(texts.get(item.id) != tuple(item.cells[name] for name in sources) for item in items):
            return None
        further, kept = bool(config.measure.further_positions), config.output.keep_residuals == "on"
        schema = shard_schema(columns, kept, arrangement, further=further)
        said = pl.DataFrame({name: _said(name, items, shard.groups) for name in schema if _is_said(name, items[0])})
        measured = self.run.metrics.filter(chosen).select(key, pl.exclude(said.columns))
        found = said.join(measured, on=key, how="left", maintain_order="left")
        found = found.with_columns(pl.lit(None, pl.String).alias("_reason"))
        tables = {"_features": self.run.features}
        if kept:
            tables["_residuals"] = self.run.kept_residuals
        if further:
            tables[f"_{FURTHER}"] = self.run.further_residuals
        for name, table in tables.items():
            with table_errors(self.run.path / f"{name[1:]}.parquet"):
                entries = (
                    table.filter(chosen)
                    .select(key, pl.struct(pl.exclude(key)).alias(name))
                    .group_by(key, maintain_order=True)
                    .agg(name)
                    .collect()
                )
            kind = schema[name]
            entries = entries.with_columns(pl.col(name).cast(kind))
            found = found.join(entries, on=key, how="left", maintain_order="left")
            found = found.with_columns(pl.col(name).fill_null(pl.lit([], kind)))
        return found.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _is_said(name: str, item: Item) -> bool:
    return name in ("_index", "group") or name in item.cells or name in item.extra


def _said(name: str, items: Sequence[Item], groups: Sequence[str]) -> list[Any]:
    """A column of what the items say of themselves."""
    if name == "_index":
        return [item.index for item in items]
    if name == "group":
        return list(groups)
    return [item.cells[name] if name in item.cells else item.extra[name] for item in items]


@dataclass(frozen=True)
class Prepared:
    """How measuring goes on in a folder."""

    resume: bool
    """Whether there is a run to go on with."""
    earlier: Path | None
    """Where an earlier one lies."""


def prepare(folder: Path, data: Path, digest: str) -> Prepared:
    """Set the run of a folder aside where its data is not the same any more, and say how to go on.

    A run that was not finished is dropped then. Other files of the folder stay.

    Args:
        folder: it exists, and may hold a run.
        data: what the run is over; a run over a file of another name is refused.
        digest: of the data as it is now.

    Raises:
        InputError: another process writes there, or what lies there is no run's, or one's over other data.
        RunFolderError: the folder cannot be written.
    """
    aside = folder / ASIDE
    if aside.is_symlink() or (aside.exists() and not aside.is_dir()):
        raise InputError(f"{aside}: not a folder of this run; remove it")
    with locked(folder):
        if aside.exists() and not (aside / _LAST).exists():
            _move(folder, aside)
        if not any((folder / mark).exists() for mark in RUN_MARKS):
            return Prepared(resume=False, earlier=aside if aside.exists() else None)
        look_for_run(folder)
        previous = read_previous(folder)
        if previous.config is not None and Path(previous.config.data.data).name != data.name:
            raise InputError(
                f"{folder} already holds a run over {previous.config.data.data}: give --out another folder"
            )
        known = None if previous.identity is None else previous.identity["data"]["digest"]
        if known in (None, digest):
            return Prepared(resume=True, earlier=aside if aside.exists() else None)
        if previous.complete:
            drop_earlier(folder)
            _move(folder, aside)
        else:
            for path in _own(folder):
                _removed(path)
        return Prepared(resume=False, earlier=aside if aside.exists() else None)


def drop_earlier(folder: Path) -> None:
    """Remove the earlier run: the new one is complete."""
    _removed(folder / ASIDE)


def _removed(path: Path) -> None:
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _own(folder: Path) -> Iterator[Path]:
    """Files and folders of the run, the manifest last; its log stays."""
    names = [path.name for path in folder.iterdir() if OURS.fullmatch(path.name)]
    for name in sorted(set(names) - {LOCK, APPENDED}, key=lambda name: (name == _LAST, name)):
        yield folder / name


def _move(folder: Path, aside: Path) -> None:
    make_folder(aside)
    for path in list(_own(folder)):
        with writing(path):
            path.replace(aside / path.name)
    with writing(folder):
        sync_folder(folder)


__all__ = ["Earlier", "Prepared", "drop_earlier", "prepare"]
