"""The texts of a table, each alone: both sides of its pairs (all facts first), or labelled texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import CARRIED, MEASURED
from bluffscope.errors import InputError
from bluffscope.records import PAIRS, STATEMENTS, Arrangement
from bluffscope.stats.scopes import Scope, find_scopes
from bluffscope.stats.study import Study, build_study, cluster_numbers, is_number
from bluffscope.stats.text_study import numbers_and_classes, which_are_false
from bluffscope.table.metric_pairs import metric_pairs


@dataclass(frozen=True)
class Texts:
    """What the table says of its texts."""

    arrangement: Arrangement
    """What an item is: a pair has two texts, a labelled text is one."""
    metrics: tuple[str, ...]
    """Names without the view, in the table's order."""
    values: np.ndarray
    """(text, metric) float64; NaN where undefined."""
    lengths: np.ndarray
    """(text,) of the completion; NaN where unknown."""
    numbers: Mapping[str, np.ndarray]
    """(text,) the baselines that are a number a text, by name (`MEASURED`, `CARRIED`); NaN where unknown. None that is
    known of no text."""
    labels: np.ndarray
    """(text,) 0 for a fact or a true text, 1 for a hallucination or a false one."""
    groups: np.ndarray
    """(text,) numbers from 0: folds and resamples part none."""
    scopes: tuple[Scope, ...]
    """Of items: their rows are those of the table."""

    @property
    def per(self) -> int:
        """Texts of an item."""
        return self.arrangement.per

    @property
    def items(self) -> int:
        """Rows of the table."""
        return len(self.labels) // self.per

    @property
    def of(self) -> str:
        """What an item is called, in the plural: pairs, or texts."""
        return self.arrangement.table

    @classmethod
    def of_pairs(cls, study: Study) -> Texts:
        """Facts first, then their hallucinations."""
        return cls(
            PAIRS,
            study.metrics,
            np.concatenate([study.fact, study.hall]),
            study.lengths.T.ravel(),
            _known({name: _of_metric(study, name) for name in MEASURED}),
            np.repeat([0, 1], len(study.groups)),
            np.tile(study.groups, 2),
            study.scopes,
        )


def is_labelled(table: pl.DataFrame) -> bool:
    """Whether a table's rows are labelled texts, and not pairs with a column that happens to be named so."""
    if "label" not in table.columns or "pair_id" in table.columns:
        return False
    # A run's table says so by its key, whatever its carried columns are called.
    return "text_id" in table.columns or not metric_pairs(table.columns)


def texts_of(
    table: pl.DataFrame, items: pl.DataFrame | None, by: Sequence[str] = (), *, by_order: bool = False
) -> tuple[Texts, pl.DataFrame | None]:
    """The texts of a table of either kind, and the items they are of in the table's order, where these are known.

    Args:
        table: a row a pair, as `build_study` takes it, or a row a labelled text: `label`, metrics as ``l{k}_X`` or X.
        items: pairs, matched as in `build_study`; or labelled texts, matched by `text_id`.
        by: further columns whose values are scopes.
        by_order: the k-th row is the k-th pair's; only for a table without ids.

    Raises:
        InputError: the table holds neither, the items do not match, an unknown column.
    """
    if not is_labelled(table):
        study = build_study(table, items, by, by_order=by_order, carried=False)
        return Texts.of_pairs(study), study.pairs
    if items is not None:
        if "text_id" not in table.columns or "text_id" not in items.columns:
            raise InputError("labelled texts are matched by the column text_id: give it in the table and in the texts")
        items = table.select("text_id").join(items, on="text_id", how="left", maintain_order="left")
    return _labelled(table, items, by), items


def _labelled(table: pl.DataFrame, items: pl.DataFrame | None, by: Sequence[str]) -> Texts:
    carried = [] if items is None else items.columns
    everything = table if items is None else table.with_columns(items.select(pl.exclude(table.columns)))
    names = [name for name in numbers_and_classes(table, None)[0] if name not in carried]
    lengths = _numbers(table, "text_tokens")
    if "text_tokens" not in table.columns and "completion" in everything.columns:
        lengths = _numbers(everything.select(pl.col("completion").str.len_chars()), "completion")
    nothing = pl.Series([None] * table.height, dtype=pl.String)
    return Texts(
        STATEMENTS,
        tuple(names),
        _finite(_matrix(table, names)),
        lengths,
        _known({name: _numbers(everything, name) for name in (*MEASURED, *CARRIED)}),
        which_are_false(table).astype(np.int64),
        cluster_numbers(table["group"] if "group" in table.columns else nothing),
        find_scopes(everything, by, []),
    )


def _matrix(table: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    numbers = table.select(pl.col(names).cast(pl.Float64, strict=False).fill_null(np.nan)).to_numpy()
    return numbers.reshape(table.height, len(names))  # of no names polars keeps no rows


def _numbers(table: pl.DataFrame, name: str) -> np.ndarray:
    """(row,) float64, NaN where a column has no number or is not there."""
    if name not in table.columns or not is_number(table[name]):
        return np.full(table.height, np.nan)
    return _finite(table[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy())


def _of_metric(study: Study, name: str) -> np.ndarray:
    """(text,) a metric of both sides, facts first; NaN where there is none."""
    if name not in study.metrics:
        return np.full(2 * len(study.groups), np.nan)
    place = study.metrics.index(name)
    return np.concatenate([study.fact[:, place], study.hall[:, place]])


def _known(numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values for name, values in numbers.items() if np.isfinite(values).any()}


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
