"""Which pairs or texts a result speaks of: domains, all pooled, and values of further columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.metrics import LOGPROB
from bluffscope.metrics.logprob import KNOWS
from bluffscope.pairs.links import POOLED

MOST_VALUES: Final = 50
"""A column with more values than this makes no scopes."""
MOST_CARRIED: Final = 6
"""Values up to which a column that the data carried along makes scopes without being asked for."""
MOST_COLUMNS: Final = 10
"""Columns that make scopes without being asked for."""
MOST_ROWS: Final = 600_000
"""Rows that all of them together may take: each column looks at the whole table once more."""
FEWEST_CARRIED: Final = 10
"""Pairs that at least two of its values must have."""
_CHOOSING: Final = {metric.name for metric in LOGPROB.metrics} | {"rank"}
"""Metrics, of the logit lens too, that differ within a value of `knows` because that is how it is made."""
_NOT_CARRIED: Final = {"pair_id", "id", "index", "group", "domain", "complexity", "prompt", "fact", "hallucination"}
MEASURED_NAME: Final = re.compile(r"_tokens$|_token$|_fact$|_hall$|_diff$|^l\d+_")
"""Columns that a run measured."""


Of = Literal["pairs", "texts"]
"""What the rows of a table are: pairs, or labelled texts."""


@dataclass(frozen=True)
class Scope:
    """The pairs that a row of the result speaks of."""

    name: str
    """A domain, "pooled", or COLUMN=VALUE."""
    rows: np.ndarray
    """(pair of the scope,) ascending rows of the table."""
    column: str = ""
    """The column whose value makes it: "domain", one of `--by`, or "" for pooled."""


def find_scopes(table: pl.DataFrame, by: Sequence[str], notes: list[str], of: Of = "pairs") -> tuple[Scope, ...]:
    """Domains in order of appearance, pooled, then the values of further columns; notes get what is left out.

    Args:
        table: a row for each pair or text, with `domain` where it is known.
        by: further columns.
        notes: what a reader must know.
        of: what the rows are.

    Raises:
        InputError: an unknown column, or one with too many values.
    """
    everything = Scope(POOLED, np.arange(table.height))
    domains: list[Scope] = []
    number = table["domain"].n_unique() if "domain" in table.columns else 0
    if number > MOST_VALUES:
        notes.append(f"There are {number} domains, too many for a scope each: only pooled is tested.")
    elif number:
        domains = _scopes_of(table["domain"], prefix="")
    if len(domains) == 1:
        notes.append(f"All {of} are of one domain ({domains[0].name}), which is what pooled says.")
        domains = []
    for name in by:
        if name not in table.columns:
            known = [column for column in table.columns if column in ("domain", "complexity", "group")]
            raise InputError(f"--by {name}: no such column in the table or the {of}; {_suggested(table, known)}")
    further = [scope for name in dict.fromkeys(by) for scope in _scopes_of(table[name], prefix=f"{name}=")]
    return (*domains, everything, *further)


def _suggested(table: pl.DataFrame, known: Sequence[str]) -> str:
    carried = [name for name in table.columns if table[name].n_unique() <= MOST_VALUES and "_fact" not in name]
    names = list(dict.fromkeys([*known, *carried]))[:6]
    return f"give one such as {', '.join(names)}" if names else "it has none with few values"


def _scopes_of(column: pl.Series, prefix: str) -> list[Scope]:
    """One scope for each value of a column, in order of appearance."""
    values = column.unique(maintain_order=True)
    if len(values) > MOST_VALUES:
        raise InputError(
            f"--by {column.name}: {len(values)} different values are too many scopes; "
            f"give a column with at most {MOST_VALUES}"
        )
    found: list[Scope] = []
    for value in values:
        name = f"{prefix}{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        if not prefix and name == POOLED:
            name = f"domain={POOLED}"
        same = column.is_null() if value is None else column.eq(value).fill_null(value=False)
        found.append(Scope(name, np.flatnonzero(same.to_numpy()), column.name))
    return found


def chosen_by(scope: Scope, metric: str) -> str:
    """Why a scope says nothing of a metric, because its pairs were chosen by that metric; else empty."""
    own = scope.column == KNOWS and re.sub(r"^l\d+_(lens_)?", "", metric) in _CHOOSING
    return f"the pairs of {scope.name} are chosen by their log-probability" if own else ""


def carried_columns(table: pl.DataFrame, measured: Collection[str], by: Sequence[str], notes: list[str]) -> list[str]:
    """Columns that the data carried along and whose few values make scopes; notes get a sentence.

    Args:
        table: a row for each pair or text.
        measured: columns that hold metrics.
        by: columns that make scopes anyway.
        notes: what a reader must know.
    """
    names = [
        column.name
        for column in table
        if column.name not in {*measured, *_NOT_CARRIED, *by}
        and not MEASURED_NAME.search(column.name)
        and (column.dtype.is_integer() or any(column.dtype == kind for kind in (pl.String, pl.Boolean, pl.Categorical)))
        and 2 <= column.n_unique() <= MOST_CARRIED
        and (column.value_counts()["count"] >= FEWEST_CARRIED).sum() > 1
        and not _gives_label_away(table, column.name)
    ]
    most = max(1, min(MOST_COLUMNS, MOST_ROWS // table.height))
    if names:
        notes.append(f"Columns with 2 to {MOST_CARRIED} values are scopes too: {', '.join(names[:most])}.")
    if len(names) > most:
        more = ", ".join(names[most : most + 6]) + (", ..." if len(names) > most + 6 else "")
        notes.append(f"{len(names) - most} more such columns make none ({more}): name them with --by.")
    return names[:most]


def _gives_label_away(table: pl.DataFrame, name: str) -> bool:
    """Whether each value of a column has texts of one label only, as a judge's verdict has: nothing to compare in."""
    if "label" not in table.columns:
        return False
    labels = table.group_by(name).agg(number=pl.col("label").n_unique())["number"]
    return bool((labels == 1).all())
