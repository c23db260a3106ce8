"""Labelled texts without partners: does a metric differ between true and false ones, at equal length and wording?

The model is that of pairs (docs/statistics.md) with the label for a target: value = level + effect x (false) +
s(length) + completion + rest. Its functions of length are those of pairs, closed completions have levels of their own,
and so have domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.metrics import declared
from bluffscope.pairs.groups import CLOSED_PAIRS, CLOSED_SHARE, normalised
from bluffscope.stats.auroc import areas
from bluffscope.stats.cells import CORRECTED, beside_raw
from bluffscope.stats.effects import NO_SPREAD, hedges_factor, minimum_detectable_g
from bluffscope.stats.held_constant import Held, estimated, fit
from bluffscope.stats.length_functions import length_basis
from bluffscope.stats.linear_model import span
from bluffscope.stats.multiplicity import Family, by_family
from bluffscope.stats.scopes import Scope, carried_columns, find_scopes
from bluffscope.stats.study import alike, cluster_numbers, is_number, label_numbers, numbered
from bluffscope.stats.verdicts import Evidence, barring, judge
from bluffscope.table.metric_pairs import not_interpretable

FEWEST_OF_A_LABEL: Final = 10
"""Texts that each label needs."""
_KNOWN: Final = (
    "text_id",
    "label",
    "group",
    "domain",
    "complexity",
    "index",
    "text",
    "completion",
    "text_tokens",
    "read_token",
)
_FLOAT: Final = pl.Float64()
LABELLED_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(("metric", "scope"), pl.String()),
        **dict.fromkeys(("n", "n_true", "n_false", "clusters"), pl.Int64()),
        **dict.fromkeys(("mean_true", "mean_false", "mean_diff", "g", "g_lo", "g_hi", "p"), _FLOAT),
        **dict.fromkeys(("adj_mean_diff", "adj_g", "adj_lo", "adj_hi", "adj_p"), _FLOAT),
        **dict.fromkeys(("q", "raw_q", "adj_q", "skew_p", "skew_q", "equivalence_p", "equivalence_q"), _FLOAT),
        **dict.fromkeys(("length_df", "completion_df"), pl.Int64()),
        **dict.fromkeys(("auroc", "auroc_lo", "auroc_hi", "mde80"), _FLOAT),
        **dict.fromkeys(("verdict", "reason"), pl.String()),
    }
)
"""One row a metric and scope. Differences are false - true; g is Hedges' g, mean_diff over the pooled sd."""


@exclusive()
def analyse_labelled(
    table: pl.DataFrame, *, by: Sequence[str] = (), cluster_by: str = "group", family: Family = "scope"
) -> pl.DataFrame:
    """Test whether any metric of labelled texts separates true from false (docs/statistics.md).

    Args:
        table: one row a text: `label` (true or false; 1 or 0), numbers as `l{k}_X`, by the name of a metric, or in any
            further column of fractions; `text_tokens`, `completion`, `group`, `domain` where they are known.
        by: further columns whose values are scopes, beside the domains, all texts pooled, and carried columns.
        cluster_by: the column whose values are clusters; texts without one are clusters of their own.
        family: what is corrected together: the metrics of one scope, or every metric in every scope.

    Returns:
        `LABELLED_SCHEMA`: scopes in order, in each the metrics in the table's order.

    Raises:
        InputError: no rows, no label, no metric, an unknown column.
    """
    false = _false(table)
    if cluster_by not in table.columns and cluster_by != "group":
        raise InputError(f"--cluster-by {cluster_by}: the table has no such column")
    metrics = [name for name in table.columns if _is_metric(table[name])]
    if not metrics:
        raise InputError("no metric: expected numbers in columns l{layer}_{metric} or {metric}")
    texts = _Texts(table, false, metrics, cluster_by)
    notes: list[str] = []
    scopes = find_scopes(table, [*by, *carried_columns(table, (*metrics, *_KNOWN), by, notes)], notes)
    parts = [texts.measured(scope) for scope in scopes]
    corrected = {
        name: by_family([_tests(part, columns) for part in parts], family) for name, columns in CORRECTED.items()
    }
    frames = [
        _judged(part | {name: values[place] for name, values in corrected.items()}, metrics, scope)
        for place, (part, scope) in enumerate(zip(parts, scopes, strict=True))
    ]
    return pl.concat(frames)


class _Texts:
    """The table as arrays."""

    def __init__(self, table: pl.DataFrame, false: np.ndarray, metrics: Sequence[str], cluster_by: str) -> None:
        self.false, self.metrics = false, metrics
        self.values = table.select(pl.col(metrics).cast(pl.Float64, strict=False).fill_null(np.nan)).to_numpy()
        nothing = pl.Series([None] * table.height, dtype=pl.String)
        self.clusters = cluster_numbers(table[cluster_by] if cluster_by in table.columns else nothing)
        self.domains = label_numbers(table["domain"] if "domain" in table.columns else nothing)
        self.completions = (
            cluster_numbers(table["completion"].cast(pl.String).map_elements(normalised, pl.String))
            if ("completion" in table.columns)
            else np.arange(table.height)
        )
        self.lengths = _lengths(table)

    def measured(self, scope: Scope) -> dict[str, Any]:
        """(metric,) numbers by name, and lists of reasons and of what is held constant."""
        number = len(self.metrics)
        names = [name for name, kind in LABELLED_SCHEMA.items() if kind.is_numeric() and name not in CORRECTED]
        found: dict[str, Any] = {name: np.full(number, np.nan) for name in names}
        found |= {"barred": [None] * number, "held": ["nothing"] * number}
        values = self.values[scope.rows]
        for metrics, used in alike(np.isfinite(values)):
            rows = scope.rows[used]
            numbers, held, why = self._block(rows, values[np.ix_(used, metrics)])
            for name, column in numbers.items():
                found[name][metrics] = column
            for place, metric in enumerate(map(int, metrics)):
                found["held"][metric] = held.what
                found["barred"][metric] = not_interpretable(self.metrics[metric]) or why[place]
        return found

    def _block(self, rows: np.ndarray, values: np.ndarray) -> tuple[dict[str, np.ndarray], Held, list[str | None]]:
        metrics, false, clusters = values.shape[1], self.false[rows], numbered(self.clusters[rows])
        sizes = {"n": len(rows), "n_true": int((~false).sum()), "n_false": int(false.sum())}
        sizes["clusters"] = int(clusters.max(initial=-1)) + 1
        found = {name: np.full(metrics, float(size)) for name, size in sizes.items()}
        few = min(sizes["n_true"], sizes["n_false"])
        if few < FEWEST_OF_A_LABEL:
            return found, Held(np.empty((len(rows), 0))), [_few(few)] * metrics
        sides = (values[~false], values[false])
        area = areas(*sides, clusters[~false], clusters[false])
        found |= {"mean_true": sides[0].mean(axis=0), "mean_false": sides[1].mean(axis=0)}
        found |= {"auroc": area.area, "auroc_lo": area.lo, "auroc_hi": area.hi}
        found["mde80"] = np.full(metrics, minimum_detectable_g(sizes["n_true"], sizes["n_false"]))
        target, level = false.astype(float), np.ones((len(rows), 1)) / np.sqrt(len(rows))
        raw = estimated(fit(target, Held(level), clusters), values)
        factor = hedges_factor(len(rows) - 2)
        found |= {"mean_diff": raw.effect, "g": factor * raw.standardised, "p": raw.p}
        found["g_lo"], found["g_hi"] = factor * raw.interval()
        held = self._held(rows)
        fitted = fit(target, held, clusters)
        if isinstance(fitted, str):
            return found, held, [fitted] * metrics
        adjusted, columns, barred = beside_raw(fitted, values, raw, held)
        found |= columns | {"adj_g": factor * adjusted.standardised}
        found["adj_lo"], found["adj_hi"] = factor * adjusted.interval()
        spread = values.std(axis=0) > NO_SPREAD * np.abs(values).max(axis=0)
        why = [
            barring(len(rows), sizes["clusters"], varies=bool(varying), not_interpretable="", barred=no_effect)
            for varying, no_effect in zip(spread, barred, strict=True)
        ]
        return found, held, why

    def _held(self, rows: np.ndarray) -> Held:
        """Level, domains, length and closed completions."""
        lengths, domains = self.lengths[rows], self.domains[rows]
        if not np.isfinite(lengths).all():
            return Held(np.empty((len(rows), 0)), barred="lengths unknown, so that length cannot be ruled out")
        level = span(_indicators(domains, 0))
        wording = span(np.column_stack([level, _closed(self.completions[rows])]))
        together = span(np.column_stack([wording, length_basis(lengths, domains)]))
        completion_df = wording.shape[1] - level.shape[1]
        return Held(together, together.shape[1] - wording.shape[1], completion_df)


def _closed(completions: np.ndarray) -> np.ndarray:
    return _indicators(completions, max(CLOSED_PAIRS, int(np.ceil(CLOSED_SHARE * len(completions)))))


def _indicators(numbers: np.ndarray, fewest: int) -> np.ndarray:
    """(row, number) ones where a row has a number that at least so many rows have."""
    known, times = np.unique(numbers, return_counts=True)
    return (numbers[:, None] == known[times >= max(1, fewest)]).astype(float)


def _false(table: pl.DataFrame) -> np.ndarray:
    """(row,) whether each text is false."""
    if table.is_empty():
        raise InputError("the table has no rows; give one with one row per text")
    if "label" not in table.columns:
        raise InputError("the table has no column label: true or false for each text")
    written = table["label"].cast(pl.String).str.to_lowercase()
    known = {"true": False, "1": False, "1.0": False, "false": True, "0": True, "0.0": True}
    if (other := written.filter(~written.is_in(list(known)).fill_null(value=False))).len():
        raise InputError(f"label {other[0]!r}: expected true or false, 1 or 0")
    return written.replace_strict(known, return_dtype=pl.Boolean).to_numpy()


def _is_metric(column: pl.Series) -> bool:
    if column.name in _KNOWN or not is_number(column) or column.dtype == pl.Boolean or column.dtype == pl.Null:
        return False
    layer, _, rest = column.name.partition("_")
    in_layer = layer.startswith("l") and layer[1:].isdigit() and bool(rest)
    return in_layer or column.dtype.is_float() or declared(column.name) is not None


def _lengths(table: pl.DataFrame) -> np.ndarray:
    """(row,) tokens, else characters of the completion or text, else NaN."""
    if "text_tokens" in table.columns:
        return table["text_tokens"].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    for name in ("completion", "text"):
        if name in table.columns:
            return table[name].cast(pl.String).str.len_chars().cast(pl.Float64).fill_null(np.nan).to_numpy()
    return np.full(table.height, np.nan)


def _few(number: int) -> str:
    return f"only {number} texts of a label, fewer than {FEWEST_OF_A_LABEL}"


def _tests(part: dict[str, Any], columns: Sequence[str]) -> np.ndarray:
    judged = np.array([why is None for why in part["barred"]], dtype=bool)
    return np.where(judged, np.max([part[name] for name in columns], axis=0), np.nan)


def _judged(part: dict[str, Any], metrics: Sequence[str], scope: Scope) -> pl.DataFrame:
    frame = pl.DataFrame({name: part[name] for name in LABELLED_SCHEMA if name in part}, nan_to_null=True)
    verdicts = [
        judge(
            Evidence(
                n=int(row["n"]),
                of="texts",
                barred=barred,
                held=held,
                dz=row["g"],
                adj_dz=row["adj_g"],
                **{name: row[name] for name in ("mean_diff", "adj_mean_diff", *CORRECTED, "mde80")},
            )
        )
        for row, barred, held in zip(frame.iter_rows(named=True), part["barred"], part["held"], strict=True)
    ]
    texts = {
        "metric": list(metrics),
        "scope": [scope.name] * len(metrics),
        "verdict": [verdict.verdict for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
    }
    columns = (pl.Series(name, values, dtype=pl.String) for name, values in texts.items())
    return frame.with_columns(*columns).select(list(LABELLED_SCHEMA)).cast(LABELLED_SCHEMA)
