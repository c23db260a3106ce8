"""`bluffscope analyze --dry-run`: what a run would take, as a table; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.config import ForecastOptions, RunConfig
from bluffscope.host.terminal import table

if TYPE_CHECKING:
    from bluffscope.runs.forecast import Forecast, Prediction


def dry_run(config: RunConfig, options: ForecastOptions) -> int:
    """Count, measure, predict and print; returns the exit code."""
    # Torch takes seconds to import: --help and a mistyped flag should not.
    from bluffscope.runs.forecast import forecast

    console = output_console()
    with messages_on(message_console()):
        found = forecast(config, options)
    console.say(*_work_lines(found), "")
    console.print(_table(found))
    console.say(*_closing(found, config))
    return exit_codes.DONE


def _work_lines(found: Forecast) -> Iterator[str]:
    work = found.work
    yield f"Model: {found.planned} (configurations only)"
    sample = "all of them" if work.sampled == work.pairs else f"extrapolated from {work.sampled:,}, in whole shards"
    yield f"Pairs: {work.pairs:,}; tokens below: {sample}"
    refused = f"; {work.refused:,} of {work.sampled:,} would be quarantined" if work.refused else ""
    each = work.tokens / work.pairs
    yield f"Distinct tokens: {work.tokens:,.0f} in {work.slots:,.0f} slots, {each:.1f} per pair{refused}"
    yield (
        f"Operations: {_scaled(work.total)}FLOP (blocks {_scaled(work.products)}, attention {_scaled(work.attention)}, "
        f"encoding {_scaled(work.encode)}, geometry {_scaled(work.geometry)})"
    )
    yield f"Feature rows: about {work.features:,.0f}"
    yield from _by_default(found)


def _by_default(found: Forecast) -> Iterator[str]:
    """What of the things that are done where they fit will be done."""
    from bluffscope.pipeline.by_default import UNKEPT, UNMEASURED
    from bluffscope.table.space import amount

    residuals = found.residuals
    kept = "kept" if residuals.kept else "not kept"
    yield f"Residuals: {amount(residuals.size)} in residuals.parquet, {kept}"
    left_out = [UNMEASURED.format(found.unmeasured)] if found.unmeasured else []
    left_out += [UNKEPT.format(residuals.why_not)] if residuals.why_not else []
    yield from (f"{line[0].upper()}{line[1:]}" for line in left_out)


def _table(found: Forecast) -> Table:
    columns = [found.here, *([found.there] if found.there else [])]
    rates = [found.work.pairs / prediction.measuring for prediction in columns]
    rows = [
        *((stage, *(duration(prediction.seconds[stage]) for prediction in columns)) for stage in found.here.seconds),
        ("measuring", *(duration(prediction.measuring) for prediction in columns)),
        ("total", *(duration(prediction.total) for prediction in columns)),
        ("pairs per second", *(f"{rate:,.3g}" if rate < 100 else f"{rate:,.0f}" for rate in rates)),
        ("memory per worker", *map(_memory, columns)),
        ("slowest part", *(max(prediction.seconds, key=prediction.seconds.__getitem__) for prediction in columns)),
    ]
    many = [f"{prediction.workers} x " if found.there is prediction else "" for prediction in columns]
    heads = ["", *(f"{each}{prediction.name}" for each, prediction in zip(many, columns, strict=True))]
    return table(heads, rows, title="Predicted", gap=2)


def _closing(found: Forecast, config: RunConfig) -> Iterator[str]:
    from bluffscope.host.machine import emulated
    from bluffscope.linter.clusters import cluster_findings
    from bluffscope.runs.gpus import CORES_A_GPU, REACHED

    yield "Measured here: matrix products, geometry, tokenising and reading. Not included: linter and report."
    if found.there:
        yield (
            f"Assumed of {found.there.name}: {REACHED['gpu']:.0%} of its published peak for {found.planned.dtype}, "
            f"geometry by arithmetic, and {CORES_A_GPU} cores like one of this processor's for each."
        )
        if found.planned.dtype == "float32":
            yield "float32 does not use the tensor cores; --dtype bfloat16 does."
    if slow := emulated(found.planned.dtype, found.planned.device):
        yield f"{slow}."
    if config.engine.batch_size != "auto":
        yield f"With --batch-size {config.engine.batch_size}, as asked."
    scan = found.scan
    findings = cluster_findings(scan.links, scan.arrangement.table.removesuffix("s"), own=scan.own_groups)
    yield from (f"{item.code.replace('-', ' ').capitalize()}: {item.message}" for item in findings)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 min`, `3.5 h`, `12 days`."""
    if 0 < seconds < 0.05:
        return "< 0.1 s"
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:,.1f} days"


def _memory(prediction: Prediction) -> str:
    fits = "" if prediction.memory <= prediction.memory_there else ": does not fit"
    return f"{prediction.memory / 1e9:.1f} of {prediction.memory_there / 1e9:.0f} GB{fits}"


def _scaled(value: float) -> str:
    """With the SI prefix: `1.2 T`."""
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if value < 1000:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} Y"
