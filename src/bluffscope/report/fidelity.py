"""What a run's precision changed, in a terminal of about 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bluffscope.compare.precision import FEATURES, Fidelity
from bluffscope.host.terminal import table
from bluffscope.report.labels import clean, group_title, number

_NAME_WIDTH: Final = 24


def render_fidelity(fidelity: Fidelity) -> Group:
    """A run against float32, to be printed by a rich console."""
    weights = "" if fidelity.quantize == "none" else f", {fidelity.quantize} weights"
    title = f"{fidelity.dtype}{weights} against float32, {len(fidelity.pair_ids)} pairs measured again"
    return Group(*fidelity_parts(fidelity.table, title, "float32", "from float32"))


def fidelity_parts(found: pl.DataFrame, title: str, reference: str, difference: str) -> Iterator[RenderableType]:
    """A title, the features by layer, the metrics by layer, and what the columns mean.

    Args:
        found: of `bluffscope.compare.precision.SCHEMA`.
        title: what is compared.
        reference: what it is compared with.
        difference: the same, after "difference".
    """
    yield Text(f"\nFidelity: {title}", style="bold")
    rows = found.to_dicts()
    if features := [row for row in rows if row["metric"] == FEATURES]:
        yield feature_table(features, f"active in {reference}")
    others = [row for row in rows if row["metric"] != FEATURES]
    for layer, of_layer in groupby(others, key=lambda row: row["layer"]):
        yield metric_table(layer, list(of_layer))
    yield Text(
        f"|delta|: difference {difference}, over all pairs and texts. in sd: in standard deviations of the "
        f"values in {reference}. diff/sd: the same for hallucination - fact. changed: other class, or undefined in one "
        "of the two.",
        style="dim",
    )


def feature_table(rows: Sequence[dict[str, Any]], active: str) -> Table:
    """Survival of active features by layer.

    Args:
        rows: of `bluffscope.compare.precision.SCHEMA`, those that count features.
        active: head of the column of what was active in the reference.
    """
    heads = ["", active, "still active", "newly active"]
    cells = ((f"layer {row['layer']}", f"{row['n']:,}", *map(_percent, (row["surviving"], row["new"]))) for row in rows)
    return table(heads, cells, title="\nActive features", least=_NAME_WIDTH)


def metric_table(layer: int | None, rows: Sequence[dict[str, Any]]) -> Table:
    """Differences of the metrics of one layer, or of no single one; rows of `bluffscope.compare.precision.SCHEMA`."""
    title = "Other metrics" if layer is None else group_title(rows[0]["metric"], layer)
    heads = ["", *(head for group in ("|delta|", "in sd", "diff/sd") for head in (f"{group}\nmedian", "\nmax"))]
    diffs = {row["metric"]: row for row in rows if row["part"] == "diff"}
    cells: list[list[str]] = []
    for row in rows:
        if row["part"] == "text":
            diff = diffs.get(row["metric"], {})
            values = [row[name] for name in ("median_delta", "max_delta", "median_relative", "max_relative")]
            values += [diff.get("median_relative"), diff.get("max_relative")]
            cells.append([clean(row["metric"], _NAME_WIDTH), *map(number, values), _percent(row["changed"])])
    return table(
        [*heads, "\nchanged"], cells, title=f"\n{title}", widths=dict.fromkeys(range(1, 7), 7), least=_NAME_WIDTH
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
