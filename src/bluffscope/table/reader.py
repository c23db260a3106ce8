"""Reads a finished run's folder back, each table when it is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import polars as pl
import yaml

from bluffscope.config.yaml_file import read_yaml
from bluffscope.errors import InputError
from bluffscope.host.exclusive import refuse_after_fork
from bluffscope.host.parquet_limits import LargeParquetError, check_whole
from bluffscope.records import PAIRS, PROMPTED, STATEMENTS, Arrangement
from bluffscope.table.atomic import TABLE_ERRORS, reason_of, table_errors, unreadable
from bluffscope.table.damage import CONFIG, MANIFEST, as_mapping, check_columns, checked, read_json
from bluffscope.table.links import refuse_links
from bluffscope.table.schema import SCHEMA_VERSION

OF_ANSWERS: Final = frozenset({"verdict", "label_by", "judge_reason"})
"""Columns that judged answers carry along, and no other texts do."""


@dataclass(frozen=True)
class Run:
    """A finished run. Tables and files are read at first use; `InputError` names one that is missing or damaged."""

    path: Path

    def __post_init__(self) -> None:
        refuse_links(self.path)

    @cached_property
    def arrangement(self) -> Arrangement:
        """What an item of the run is: `PAIRS`, or labelled texts with a prompt or without."""
        names = self._scan("metrics.parquet").collect_schema().names()
        if "text_id" not in names:
            return PAIRS
        return PROMPTED if "prompt_tokens" in names else STATEMENTS

    @property
    def key(self) -> str:
        """The column that names an item in every table: pair_id, or text_id in a run over labelled texts."""
        return self.arrangement.key

    @cached_property
    def metrics(self) -> pl.DataFrame:
        """One row for each pair (or labelled text) that was measured, in input order (metrics.parquet)."""
        return self._read_unique("metrics.parquet")

    @cached_property
    def rows(self) -> int:
        """Pairs that were measured."""
        return int(self._scan("metrics.parquet").select(pl.len()).collect().item())

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Provenance in the metadata of metrics.parquet, as the merge was given it."""
        path = self.path / "metrics.parquet"
        with table_errors(path):
            found = pl.read_parquet_metadata(path)
        # Polars keeps its own copy of the schema among the keys.
        return {key: value for key, value in found.items() if key != "ARROW:schema"}

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Columns of metrics.parquet that an analysis made: all but names, lengths, tokens and carried ones."""
        path = self.path / "metrics.parquet"
        try:
            versions = json.loads(self.metadata.get("metric_versions", "{}"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{unreadable(path, error)}: run the analysis again") from error
        return tuple(as_mapping(versions, path))

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Texts, group and carried columns of all pairs, quarantined ones too: join by ``pair_id``."""
        return self._read_unique("pairs.parquet")

    @cached_property
    def texts(self) -> pl.DataFrame:
        """Labelled texts, group and carried columns, quarantined ones too: join by ``text_id``."""
        return self._read_unique("texts.parquet")

    @property
    def items(self) -> pl.DataFrame:
        """`pairs`, or `texts` in a run over labelled texts."""
        return self.pairs if self.arrangement == PAIRS else self.texts

    @cached_property
    def of_answers(self) -> bool:
        """Whether it is over labelled texts that are a model's judged answers, as `bluffscope ask` writes them."""
        return self.arrangement != PAIRS and set(self._scan("texts.parquet").collect_schema().names()) >= OF_ANSWERS

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Pairs that could not be processed, with reasons: no rows where all could."""
        if (self.path / "quarantine.parquet").exists():
            return self._read("quarantine.parquet")
        return pl.DataFrame(schema=dict.fromkeys((self.key, *self.arrangement.sources, "reason"), pl.String))

    @property
    def features(self) -> pl.LazyFrame:
        """The item's `key`, view, layer, feature, activation: many rows, so it is scanned, not read."""
        return self._scan("features.parquet")

    @property
    def has_features(self) -> bool:
        """Whether it was measured through SAEs, and its features are there."""
        return bool(self.manifest.get("saes")) and (self.path / "features.parquet").exists()

    @property
    def kept_residuals(self) -> pl.LazyFrame:
        """The item's `key`, view, layer, token, values: only in runs with ``--keep-residuals``."""
        return self._scan("residuals.parquet")

    @property
    def further_residuals(self) -> pl.LazyFrame:
        """`key`, view, layer, position, token, values of the completions at all positions but the first."""
        return self._scan("further_residuals.parquet")

    @property
    def positions(self) -> tuple[str, ...]:
        """Where its texts were read, as in ``--position``: metrics and features at the first, residuals at each."""
        measure = cast("dict[str, Any]", self.config.get("measure") or {})
        found = measure.get("position")
        named = {"measure.position": [found] if isinstance(found, str) else found}
        kept = checked(named, {"measure.position": [str]}, self.path / "config.yaml").get("measure.position")
        return tuple(kept or ["last"])

    def read_at(self, position: str | None) -> str:
        """One of the `positions`, the first for None.

        Raises:
            InputError: the run was not read there.
        """
        if position is not None and position not in self.positions:
            raise InputError(
                f"{self.path} was not read at {position}, only at {', '.join(self.positions)}; analyze with "
                f"--position {' '.join((*self.positions, position))}"
            )
        return position or self.positions[0]

    def residuals_at(self, position: str | None = None) -> pl.LazyFrame:
        """`kept_residuals` as read at one of the `positions`, the first for None; the prompt's are the same in each.

        Raises:
            InputError: the run was not read there, or kept no residuals.
        """
        if self.read_at(position) == self.positions[0]:
            return self.kept_residuals
        further = self.further_residuals.filter(pl.col("position") == position).drop("position")
        return pl.concat([further, self.kept_residuals.filter(pl.col("view") == "prompt")])

    @property
    def by_token(self) -> bool:
        """Whether each token of the completions was kept (``--position tokens``)."""
        return (self.path / "tokens.parquet").exists()

    @cached_property
    def tokens(self) -> pl.DataFrame:
        """text_id, token_index, label, start, end, logprob of each token read (tokens.parquet)."""
        return self._read("tokens.parquet")

    @property
    def token_features(self) -> pl.LazyFrame:
        """text_id, view, layer, token, feature, activation of each token read."""
        return self._scan("token_features.parquet")

    def table(self, name: str) -> pl.DataFrame | None:
        """A table that not every run has (stats.parquet, say), or None where it is not there."""
        return self._read(name) if (self.path / name).exists() else None

    def document(self, name: str) -> dict[str, Any]:
        """A JSON file that not every run has (stats.json, say); empty where it is not there."""
        path = self.path / name
        return read_json(path) if path.exists() else {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json: what made the numbers."""
        found = read_json(path := self.path / "manifest.json")
        checked(found, MANIFEST, path)
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml: the resolved options."""
        path = self.path / "config.yaml"
        try:
            found = read_yaml(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{unreadable(path, error)}: run the analysis again") from error
        except yaml.YAMLError as error:
            raise InputError(f"{path} is damaged ({reason_of(error)}): run the analysis again") from error
        checked(content := as_mapping(found, path), CONFIG, path)
        return content

    def _read(self, name: str) -> pl.DataFrame:
        path = self.path / name
        check_parquet(path)
        with table_errors(path):
            return pl.read_parquet(path, glob=False, hive_partitioning=False)

    def _read_unique(self, name: str) -> pl.DataFrame:
        """A table in which no item may stand twice."""
        found = self._read(name)
        key = "text_id" if "text_id" in found.columns else "pair_id"
        if found[key].is_duplicated().any():
            raise InputError(f"{self.path / name} is damaged (it has a {key} twice): run the analysis again")
        return found

    def _scan(self, name: str) -> pl.LazyFrame:
        path = self.path / name
        check_parquet(path)
        with table_errors(path):
            scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            # The footer is read now, so that a file that is cut off is named here and not deep in a query.
            scan.collect_schema()
            return scan


def read_run(path: str | Path) -> Run:
    """Opens a run's folder; only the metadata of its table is read at once.

    Raises:
        InputError: No such folder, no run in it, a run that did not finish, a damaged table, or a table of a
            later version of Bluffscope; or a process in which polars cannot work.
    """
    refuse_after_fork()
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is {'a file' if path.exists() else 'missing'}: expected the folder of a run")
    if not (path / "metrics.parquet").exists():
        if (path / "shards").exists():
            raise InputError(
                f"{path} holds a run that did not finish (no metrics.parquet): bluffscope analyze --resume {path}"
            )
        raise InputError(f"{path} holds no run (no metrics.parquet): expected a folder that bluffscope analyze wrote")
    run = Run(path)
    found = run.metadata.get("schema_version", "")
    if not found.isdecimal():
        raise InputError(f"{path / 'metrics.parquet'} was not written by bluffscope analyze (no schema version)")
    if int(found) > SCHEMA_VERSION:
        raise InputError(f"{path} has tables of version {found}, this bluffscope knows up to {SCHEMA_VERSION}: update")
    return run


def check_parquet(path: Path) -> None:
    """Refuse a run's table that would unpack to more than its size gives reason for, or lacks a column.

    Raises:
        InputError: it would, or does; or it is missing or damaged.
    """
    # Imported here: it costs 0.2 s.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
        check_whole(path, footer, repeated=False)
        check_columns({field.name: str(field.type) for field in footer.schema.to_arrow_schema()}, path)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{unreadable(path, error)}: run the analysis again") from error


def read_table(path: Path) -> pl.DataFrame:
    """Reads a table of any origin: Parquet, or CSV with a header.

    In CSV, empty fields and NA, N/A, null and None are null.

    Raises:
        InputError: No such file, of another type, damaged, or with a column name twice.
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give a run's folder, or a .parquet or .csv file")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path}: not a file; give a run's folder, or a .parquet or .csv file")
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema_length=None, null_values=list(_NULLS), glob=False)
        if path.suffix.lower() != ".parquet":
            raise InputError(f"{path}: not a table by its name; give a run's folder, or a .parquet or .csv file")
        return _foreign_parquet(path)
    except (*TABLE_ERRORS, UnicodeError) as error:
        kind = "CSV" if path.suffix.lower() == ".csv" else "Parquet"
        raise InputError(f"{path}: cannot be read as {kind} ({reason_of(error)}); check the file") from error


_NULLS: Final = ("NA", "N/A", "null", "NULL", "None")


def _foreign_parquet(path: Path) -> pl.DataFrame:
    # pyarrow and not polars: it turns corrupt bytes into exceptions, where polars can abort the whole process.
    # Imported here: it costs 0.4 s.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(str(path)) as file:
            check_whole(path, file.metadata)
            return cast(pl.DataFrame, pl.from_arrow(file.read()))
    except LargeParquetError as error:
        raise InputError(f"{path}: {error}") from error
    except (pa.ArrowException, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read as Parquet ({reason}); write the file again") from error
