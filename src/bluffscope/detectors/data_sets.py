"""Data sets that detectors are carried between: the texts of runs of one model, or of parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.files import Detector
from bluffscope.detectors.inputs import Inputs, Views, completions, known_items, opened, read_inputs
from bluffscope.detectors.texts import Texts, texts_of
from bluffscope.errors import InputError
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

POSITION: Final = "position"
"""What a run's texts are parted by where they are the same texts, read at each of its positions."""
NAMED: Final = {"model": "model or its precision", "saes": "SAEs or layers"}
"""Parts of a run's identity, and what is said where they differ."""


@dataclass(frozen=True)
class DataSet:
    """The texts of a run, or of some of its rows."""

    name: str
    texts: Texts
    inputs: Inputs
    views: Views
    completions: list[str] | None
    """(text,) of the sampled texts; None where the run has none."""
    contents: list[str] | None = None
    """(text,) prompt and completion of each: what is the same in two data sets."""
    run: Run | None = None
    """That the texts are of."""
    rows: np.ndarray | None = None
    """(item,) ascending rows of the run's table."""

    @property
    def labels(self) -> np.ndarray:
        """(text,) 0 or 1."""
        return self.texts.labels[self.inputs.rows]

    @property
    def groups(self) -> np.ndarray:
        """(text,) numbers from 0 without gaps."""
        return numbered(self.texts.groups[self.inputs.rows])

    @property
    def named_groups(self) -> pl.Series:
        """(item,) the group of each pair or text of the run, as its table has it."""
        assert self.run is not None and self.rows is not None
        table = self.run.metrics
        return table["group" if "group" in table.columns else self.run.key].gather(self.rows)

    @property
    def n(self) -> int:
        """Pairs, or labelled texts."""
        return len(self.inputs.rows) // self.texts.per


def data_sets(
    runs: Sequence[Run], by: str | None, seed: int, least: int = 2, position: str | None = None
) -> list[DataSet]:
    """Each run, or each of its values of a column of few values, or each of its read positions.

    Args:
        runs: of one model and its SAEs.
        by: the column, or `POSITION` where no column has this name.
        seed: of the sample of a large run.
        least: data sets that there must be.
        position: where residuals are read in runs that have it; in others, and for None, at the first position.

    Raises:
        InputError: runs of different models or SAEs, an unknown column, or too few data sets.
    """
    for run in runs[1:]:
        _refuse_other(runs[0], run)
    found = [part for run in runs for part in _parts(run, by, seed, position, alone=len(runs) == 1)]
    if len(found) < least:
        several = "takes two data sets or more: give further runs, or --by COLUMN"
        raise InputError(f"transfer {several if least > 1 else 'takes a run to test the detectors on'}")
    names = [part.name for part in found]
    return [
        replace(part, name=f"{part.name} ({place})") if names.count(part.name) > 1 else part
        for place, part in enumerate(found, start=1)
    ]


def _refuse_other(first: Run, run: Run) -> None:
    for what, named in NAMED.items():
        if identity(first.manifest, first.config, what) != identity(run.manifest, run.config, what):
            raise InputError(
                f"{run.path} was measured with another {named} than {first.path}: a detector reads what its own model "
                "computes; give runs of one model"
            )


def identity(manifest: Mapping[str, Any], config: Mapping[str, Any], what: str) -> Any:
    """Digests of the model's weights with its precision, or of each layer's SAE."""
    known: Any = manifest.get(what) or {}
    if what == "model":
        return known.get("weights"), (config.get("model") or {}).get("dtype")
    return {layer: one.get("weights") for layer, one in known.items()}


def common_position(detectors: Sequence[Detector], runs: Sequence[Run]) -> str | None:
    """Where saved detectors read residuals, of runs that may hold several positions; None where none does.

    Raises:
        InputError: detectors of several positions.
    """
    read = sorted({detector.position for detector in detectors if detector.keys.on == "residual"})
    if len(read) > 1 and any(len(run.positions) > 1 for run in runs):
        raise InputError(f"the detectors read at {' and '.join(read)}: give those of one position at a time")
    return read[0] if len(read) == 1 else None


def _parts(run: Run, by: str | None, seed: int, position: str | None, *, alone: bool) -> Iterator[DataSet]:
    items = known_items(run)
    if by == POSITION and (items is None or POSITION not in items.columns):
        yield from _by_position(run, seed, alone=alone)
        return
    table, at = run.metrics, position if position in run.positions else None
    # Domains are scopes in any case.
    whole, _ = texts_of(table, items, () if by in (None, "domain") else (by,))
    scopes = [scope for scope in whole.scopes if scope.column == by] if by else [Scope(POOLED, np.arange(table.height))]
    if by and len(scopes) < 2:
        raise InputError(f"--by {by}: {run.path} has no such column of 2 values or more")
    for scope in scopes:
        name = run.path.resolve().name
        if by:
            name = scope.name if alone else f"{name}, {scope.name}"
        yield _data_set(name, run, scope.rows, seed, at)


def _by_position(run: Run, seed: int, *, alone: bool) -> Iterator[DataSet]:
    """The texts of a run once for each position at which it was read; features and metrics are of the first alone."""
    first, *further = run.positions
    if alone and not further:
        raise InputError(
            f"--by position: {run.path} was read at {first} alone; analyze with --position {first} completion-mean"
        )
    for position in run.positions:
        name = position if alone else f"{run.path.resolve().name}, {position}"
        found = _data_set(name, run, np.arange(run.metrics.height), seed, position)
        if position != first:
            inputs, gone = found.inputs, dict.fromkeys(("sae", "metrics"), f"kept at {first} alone, not at {position}")
            matrices = {name: matrix for name, matrix in inputs.matrices.items() if name not in gone}
            found = replace(found, inputs=replace(inputs, matrices=matrices, missing=inputs.missing | gone))
        yield found


def _data_set(name: str, run: Run, rows: np.ndarray, seed: int, position: str | None) -> DataSet:
    texts, views = opened(run, run.metrics[rows], position)
    inputs = read_inputs(texts, views, seed)
    said = completions(texts, views, inputs.rows)
    known = None if isinstance(said, str) else said
    return DataSet(name, texts, inputs, views, known, _contents(texts, views, inputs, known), run, rows)


def _contents(texts: Texts, views: Views, inputs: Inputs, said: list[str] | None) -> list[str] | None:
    if said is None or views.items is None:
        return None
    items = views.items
    prompt = pl.col("prompt").cast(pl.String).fill_null("") if "prompt" in items.columns else pl.lit("")
    asked = items.select(pl.repeat("", pl.len()) + prompt).to_series().gather(inputs.rows % texts.items)
    return [f"{prompt.strip()}\n{text.strip()}" for prompt, text in zip(asked, said, strict=True)]


def listed_layers(layers: Sequence[int]) -> str:
    """`2, 5, 8`."""
    return ", ".join(map(str, layers))
