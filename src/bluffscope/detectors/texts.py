"""The texts of a table, each alone: both sides of its pairs (all facts first), or labelled texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.metrics import declared
from bluffscope.records import PAIRS, STATEMENTS, Arrangement
from bluffscope.stats.scopes import Scope, find_scopes
from bluffscope.stats.study import Study, build_study, cluster_numbers, is_number
from bluffscope.table.metric_pairs import metric_pairs

_OF_LAYER: Final = re.compile(r"l\d+_(.+)")
_NEVER: Final = {"label", "complexity", "prompt_tokens", "text_tokens"}
"""Columns of a labelled table that are no metrics, whatever they hold."""


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
    logprobs: np.ndarray
    """(text,) nats; NaN where unknown."""
    labels: np.ndarray
    """(text,) 0 for a fact or a true text, 1 for a hallucination or a false one."""
    groups: np.ndarray
    """(text,) numbers from 0: folds and resamples part none."""
    scopes: tuple[Scope, ...]
    """Of items: their rows are those of the table."""

    @property
    def per(self) -> int:
        """Texts of an item."""
        return len(self.arrangement.completions)

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
            study.logprobs.T.ravel(),
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
    names = [column.name for column in table if column.name not in carried and _is_metric(column)]
    lengths = _numbers(table, "text_tokens")
    if "text_tokens" not in table.columns and "completion" in everything.columns:
        lengths = _numbers(everything.select(pl.col("completion").str.len_chars()), "completion")
    nothing = pl.Series([None] * table.height, dtype=pl.String)
    return Texts(
        STATEMENTS,
        tuple(names),
        _finite(table.select(pl.col(names).cast(pl.Float64, strict=False).fill_null(np.nan)).to_numpy()),
        lengths,
        _numbers(table, "logprob"),
        table["label"].cast(pl.String).str.to_lowercase().is_in(["false", "0", "0.0"]).to_numpy().astype(np.int64),
        cluster_numbers(table["group"] if "group" in table.columns else nothing),
        find_scopes(everything, by, []),
    )


def _is_metric(column: pl.Series) -> bool:
    """Whether a column of a labelled table is a number that was measured of its texts, and not of their prompts."""
    if column.name in _NEVER or not is_number(column) or column.dtype == pl.Boolean or column.dtype == pl.Null:
        return False
    match = _OF_LAYER.fullmatch(column.name)
    if match is None:
        return column.dtype.is_float() or declared(column.name) is not None
    return not match[1].startswith("prompt_") or declared(match[1]) is not None


def _numbers(table: pl.DataFrame, name: str) -> np.ndarray:
    """(row,) float64, NaN where a column has no number or is not there."""
    if name not in table.columns or not is_number(table[name]):
        return np.full(table.height, np.nan)
    return _finite(table[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy())


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
