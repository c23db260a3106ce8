"""A detector of tokens in words: how good it is by token, span and text, and at which layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from bluffscope.host.terminal import Row, count, interval, table


def render_tokens(level: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What a detector's `token_level` says, to be printed by a rich console."""
    yield Text(
        f"{level['tokens']:,} tokens, {level['in_spans']:,} of them in {count(level['spans'], 'span')} of "
        f"{count(level['texts_with_spans'], 'text')}. Layer {level['layer']}; layer and penalty are chosen anew in the "
        "training texts of each fold. The score of a span or text is that of its highest token; the gain is by "
        f"{level['judged_by']}."
    )
    yield table(
        ["by", "to find", "AUROC", "95 %", "baseline", "recall at 1 %", "95 %", "precision there"],
        unit_rows(level),
        gap=2,
    )
    layers = ", ".join(
        f"{one['layer']}: {one['auroc']:.2f} ({interval(one)}; chosen {one['chosen']} x)" for one in level["layers"]
    )
    yield Text(f"AUROC by token at each layer, as if it were the only one: {layers}.")


def unit_rows(level: Mapping[str, Any]) -> Iterator[Row]:
    """A row for tokens, spans and texts: how many of how many are to be found, and how well they are."""
    for row in level["measures"]:
        there = f"{row['positive']:,} of {row['positive'] + row['negative']:,}"
        area = [_number(row["auroc"]), interval(row), _number(row["baseline_auroc"])]
        recall = [_number(row["recall_1"]), interval(row, "recall_1_")]
        yield Row([row["unit"], there, *area, *recall, _number(row["precision_1"])])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
