"""The columns of a run's table, by the layers that it turns out to measure."""

from __future__ import annotations

from functools import partial
from typing import Any

from bluffscope.config import RunConfig
from bluffscope.metrics import Analysis
from bluffscope.metrics.own import UserAnalysis
from bluffscope.pairs import Scan
from bluffscope.pipeline.build import ColumnsOf
from bluffscope.table.schema import Column, table_columns


def columns_by_layers(
    config: RunConfig, scan: Scan, analyses: tuple[Analysis, ...], added: tuple[UserAnalysis, ...]
) -> ColumnsOf:
    """The table's columns by layers; without the scan itself, since it may travel to other processes."""
    return partial(
        _columns_at,
        added=added,
        sweep=config.measure.noise_sweep,
        carried=tuple((column.name, column.kind) for column in scan.carried),
        arrangement=scan.arrangement,
        analyses=tuple(analysis.name for analysis in analyses),
    )


def _columns_at(layers: tuple[int, ...], *, added: tuple[UserAnalysis, ...], **options: Any) -> tuple[Column, ...]:
    declared = [column for item in added for column in item.declared(layers, options["arrangement"])]
    return table_columns(layers, added=declared, **options)
