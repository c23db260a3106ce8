"""What a run's precision changed, in a terminal of about 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from bluffscope.compare.precision import FEATURES, Fidelity
from bluffscope.report.labels import clean, group_title, number

_PLAIN: Final[dict[str, Any]] = {"box": None, "padding": (0, 1, 0, 0), "pad_edge": False, "title_justify": "left"}
_NAME_WIDTH: Final = 24


def render_fidelity(fidelity: Fidelity) -> FidelityView:
    """A run against float32, to be printed by a rich console."""
    return FidelityView(fidelity)


class FidelityView:
    """A rich renderable: a title, the features by layer, the metrics by layer, and what the columns mean."""

    def __init__(self, fidelity: Fidelity) -> None:
        self.fidelity = fidelity

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        found = self.fidelity
        weights = "" if found.quantize == "none" else f", {found.quantize} weights"
        pairs = f"{len(found.pair_ids)} pairs measured again"
        yield Text(f"\nFidelity: {found.dtype}{weights} against float32, {pairs}", style="bold")
        rows = found.table.to_dicts()
        yield feature_table([row for row in rows if row["metric"] == FEATURES], "active in float32")
        others = [row for row in rows if row["metric"] != FEATURES]
        for layer, of_layer in groupby(others, key=lambda row: row["layer"]):
            yield metric_table(layer, list(of_layer))
        yield Text(
            "|delta|: difference from float32, over all pairs and texts. in sd: in standard deviations of the float32 "
            "values. diff/sd: the same for hallucination - fact. changed: other class, or undefined in one of the two.",
            style="dim",
        )


def feature_table(rows: Sequence[dict[str, Any]], active: str) -> Table:
    """Survival of active features by layer.

    Args:
        rows: of `bluffscope.compare.precision.SCHEMA`, those that count features.
        active: head of the column of what was active in the reference.
    """
    table = Table(title="\nActive features", **_PLAIN, title_style="bold", header_style="underline")
    table.add_column("", min_width=_NAME_WIDTH)
    for name in (active, "still active", "of those now: new"):
        table.add_column(Text(name, justify="right"), justify="right")
    for row in rows:
        table.add_row(f"layer {row['layer']}", f"{row['n']:,}", _percent(row["surviving"]), _percent(row["new"]))
    return table


def metric_table(layer: int | None, rows: Sequence[dict[str, Any]]) -> Table:
    """Differences of the metrics of one layer, or of no single one; rows of `bluffscope.compare.precision.SCHEMA`."""
    title = "Other metrics" if layer is None else group_title(rows[0]["metric"], layer)
    table = Table(title=f"\n{title}", **_PLAIN, title_style="bold", header_style="underline")
    table.add_column("", min_width=_NAME_WIDTH)
    for group in ("|delta|", "in sd", "diff/sd"):
        for head in (f"{group}\nmedian", "\nmax"):
            table.add_column(Text(head, justify="right"), justify="right", min_width=7)
    table.add_column(Text("\nchanged", justify="right"), justify="right")
    diffs = {row["metric"]: row for row in rows if row["part"] == "diff"}
    for row in rows:
        if row["part"] == "text":
            diff = diffs.get(row["metric"], {})
            values = [row[name] for name in ("median_delta", "max_delta", "median_relative", "max_relative")]
            values += [diff.get("median_relative"), diff.get("max_relative")]
            table.add_row(clean(row["metric"], _NAME_WIDTH), *map(number, values), _percent(row["changed"]))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
