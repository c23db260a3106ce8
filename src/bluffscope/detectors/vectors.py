"""Vectors that exist already, with their labels: safetensors and a table, for detectors of one's own activations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import CARRIED, MEASURED
from bluffscope.detectors.inputs import Views
from bluffscope.detectors.texts import Texts, texts_of
from bluffscope.errors import InputError
from bluffscope.records import STATEMENTS, Arrangement
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.text_study import which_are_false
from bluffscope.table.atomic import TABLE_ERRORS, reason_of, unreadable
from bluffscope.table.reader import read_table

if TYPE_CHECKING:
    from bluffscope.detectors.files import Detector  # which is written from what was trained on these

_NAMES = ("id", "text_id")
_LEFT = ("label", "group", *MEASURED, *CARRIED)
"""Columns of the labels' file that say something of a text by their name; others choose rows with --where."""


class Activations(NamedTuple):
    """A file of vectors."""

    values: np.ndarray
    """(text, all tensors' widths) float32."""
    parts: tuple[tuple[str, int], ...]
    """Name and width of each tensor, in the order of their columns."""
    ids: tuple[str, ...] | None
    """(text,) names from the file's metadata."""


def read_activations(path: Path) -> Activations:
    """Read a safetensors file of (text, width) tensors: one, or one a layer; names are sorted by the numbers in them.

    Raises:
        InputError: no such file, another shape or kind, other rows than in the first tensor, or values not finite.
    """
    where = f"--activations {path}"
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:  # of torch, for bfloat16
            metadata: Mapping[str, str] = file.metadata() or {}
            names = sorted(file.keys(), key=_natural)
            tensors: dict[str, Any] = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{unreadable(path, error)}: give --activations a safetensors file") from error
    if not tensors:
        raise InputError(f"{where}: holds no tensor; give one of (texts, width), or one for each layer")
    rows = next(iter(tensors.values())).shape[0] if next(iter(tensors.values())).ndim else 0
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if tensor.ndim != 2 or 0 in shape:
            raise InputError(f"{where}: {name} has the shape {shape}; expected (texts, width)")
        if not tensor.dtype.is_floating_point:
            raise InputError(f"{where}: {name} holds {str(tensor.dtype).removeprefix('torch.')}; expected floats")
        if shape[0] != rows:
            raise InputError(f"{where}: {name} has {shape[0]:,} rows, {names[0]} {rows:,}; give one for each text")
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    for name, array in arrays.items():
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            raise InputError(
                f"{where}: {name} has NaN or infinity in {int((~finite).sum()):,} rows, first in row "
                f"{int(finite.argmin())}; leave these texts out"
            )
    parts = tuple((name, array.shape[1]) for name, array in arrays.items())
    return Activations(np.hstack(list(arrays.values())), parts, _ids(metadata, rows, where))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _ids(metadata: Mapping[str, str], rows: int, where: str) -> tuple[str, ...] | None:
    if "ids" not in metadata:
        return None
    try:
        found: object = json.loads(metadata["ids"])
    except ValueError as error:
        raise InputError(f"{where}: ids in its metadata is not JSON; give a list of one text a row") from error
    ids = tuple(map(str, cast("list[object]", found))) if isinstance(found, list) else ()
    if len(ids) != rows or len(set(ids)) != rows:
        raise InputError(f"{where}: ids in its metadata does not name each of {rows:,} rows once")
    return ids


@dataclass(frozen=True)
class Given:
    """Vectors and labels, in the place of a run."""

    path: Path
    """The file of vectors."""
    activations: Activations
    items: pl.DataFrame
    """A row a vector, in their order: text_id, label, and what else the labels' file says."""
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of model and SAEs nothing is known."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    arrangement: ClassVar[Arrangement] = STATEMENTS

    @classmethod
    def read(cls, activations: Path, labels: Path) -> Given:
        """Read both files.

        Args:
            activations: as `read_activations` takes it.
            labels: CSV, JSONL or Parquet with the column label, and group, id, completion and prompt where known. Rows
                are in the order of the vectors, or are found by id where the vectors' metadata have ids.

        Raises:
            InputError: what cannot be read, other numbers of rows, ids that are not the vectors', unknown labels.
        """
        vectors = read_activations(activations)
        where = f"--labels {labels}"
        table = _in_order(_read_labels(labels), vectors, where)
        try:
            which_are_false(table)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        return cls(activations, vectors, table)

    @property
    def metrics(self) -> pl.DataFrame:
        """What stands for a run's table: ids, labels, groups, and baselines that are numbers."""
        return self.items.select("text_id", *(name for name in _LEFT if name in self.items.columns))

    def opened(self, table: pl.DataFrame) -> tuple[Texts, Views]:
        """Some rows of `metrics` as texts, and what is known of them."""
        texts, items = texts_of(table, self.items)
        places = table.select("text_id").join(
            self.items.select("text_id").with_row_index("row"), on="text_id", how="left", maintain_order="left"
        )
        values = self.activations.values[places["row"].to_numpy()]
        whole = replace(texts, scopes=(Scope(POOLED, np.arange(table.height)),))
        return whole, Views(items, vectors=values, parts=self.activations.parts)


def scored_vectors(detector: Detector, path: Path) -> Iterator[dict[str, Any]]:
    """Each row's number (and id), probability and logit, and whether it raises an alarm, from a file of vectors.

    Args:
        detector: of vectors, or of residuals: then the tensors are those of its layers in order, or one of all.
        path: as `read_activations` takes it.

    Raises:
        InputError: a detector of something else, or vectors of another width.
    """
    vectors, wanted = read_activations(path), detector.keys.given
    if detector.keys.on != "residual":
        raise InputError(f"{detector.path}: it looks at {detector.keys.on}; without --activations it scores texts")
    width = len(detector.linear.weights)
    if wanted and len(wanted) > 1 and wanted != vectors.parts:
        raise InputError(f"--activations {path}: {_said(vectors.parts)}; the detector takes {_said(wanted)}")
    if vectors.values.shape[1] != width:
        raise InputError(f"--activations {path}: {_said(vectors.parts)}; the detector takes {width:,} values a text")
    logits = detector.linear.scores(vectors.values)
    probabilities = detector.calibration.probabilities(logits)
    for row, (logit, probability) in enumerate(zip(logits.tolist(), probabilities.tolist(), strict=True)):
        name = {} if vectors.ids is None else {"id": vectors.ids[row]}
        alarm = {} if detector.alarm is None else {"alarm": logit > detector.alarm.threshold}
        yield {"row": row, **name, "probability": probability, "logit": logit, **alarm}


def _said(parts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} of width {width:,}" for name, width in parts)


def _read_labels(path: Path) -> pl.DataFrame:
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return read_table(path)
    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except (*TABLE_ERRORS, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read as JSONL ({reason_of(error)}); give one object a line") from error


def _in_order(table: pl.DataFrame, vectors: Activations, where: str) -> pl.DataFrame:
    """The labels' rows in the order of the vectors, with text_id."""
    rows = len(vectors.values)
    name = next((name for name in _NAMES if name in table.columns), None)
    if table.height != rows:
        raise InputError(f"{where}: {table.height:,} rows for {rows:,} vectors; give one for each")
    if vectors.ids is None or name is None:
        return table.drop("text_id", strict=False).with_columns(text_id=pl.int_range(rows).cast(pl.String))
    table = table.with_columns(text_id=pl.col(name).cast(pl.String))
    wanted = pl.DataFrame({"text_id": vectors.ids})
    if (lacking := wanted.join(table, on="text_id", how="anti")).height:
        raise InputError(f"{where}: no row with the {name} {lacking['text_id'][0]!r} of the vectors' metadata")
    return wanted.join(table, on="text_id", how="left", maintain_order="left")
