"""`bluffscope verify`: do all strategies measure the same numbers with this model and these pairs?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rich.table import Table

from bluffscope.cli import exit_codes
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.options import RunCommand
from bluffscope.config import DataOptions, RunConfig
from bluffscope.host.terminal import table

if TYPE_CHECKING:
    from bluffscope.compare.strategies import Agreement, Measured, Phase
    from bluffscope.compare.tables import Cell

PAIRS = 5
"""Pairs compared without --limit: the slow strategies take seconds a pair."""
MOST_CELLS = 10
"""Cells named of each strategy that differs."""


@dataclass(frozen=True, kw_only=True)
class Verify(RunCommand):
    """Check that every strategy measures the same numbers with your model and pairs. Nothing is kept.

    Compares the tables cell by cell: in float64, where they must be equal, then in the run's own precision.
    """

    data: DataOptions = field(default_factory=lambda: DataOptions(limit=PAIRS))
    """The pairs to compare."""
    fixed: ClassVar[Mapping[str, str]] = {
        "--strategy": "verify runs all strategies",
        "--out": "verify keeps nothing",
        "--resume": "verify keeps nothing",
        "--keep-residuals": "verify keeps nothing",
        "--no-keep-residuals": "verify keeps nothing",
        "--fidelity": "verify compares the run's own precision anyway",
    }

    def starting_from(self, saved: RunConfig) -> Self:
        """A saved run's options, but for its number of pairs."""
        return super().starting_from(replace(saved, data=replace(saved.data, limit=PAIRS)))

    def execute(self) -> int:
        """Run every strategy and print what differs."""
        # Torch and polars take seconds to import: --help and a mistyped flag should not.
        from bluffscope.compare.strategies import verify

        messages, output = message_console(), output_console()
        started = time.perf_counter()
        phases: list[Phase] = []
        with messages_on(messages, once=True):
            for phase in verify(self.config, lambda measured: messages.say(_progress(measured))):
                _print_phase(output, phase)
                phases.append(phase)
        output.say(f"Total time: {time.perf_counter() - started:.1f} s", *_verdict(phases))
        return exit_codes.DONE if all(phase.holds for phase in phases) else exit_codes.FAILED


def _progress(measured: Measured) -> str:
    pairs = len(measured.metrics) + len(measured.quarantined)
    return f"{measured.dtype} {_name(measured)}: {pairs} pairs in {measured.seconds:.1f} s"


def _name(measured: Measured) -> str:
    ran = measured.ran_as
    return measured.strategy if ran == measured.strategy else f"{measured.strategy} (ran as {ran})"


def _print_phase(console: LastingConsole, phase: Phase) -> None:
    """The strategies side by side, what was left out, and either the metrics or the cells that differ."""
    if phase.reference.quarantined:
        console.say(f"Not measured by any strategy that quarantines it, in {phase.dtype}:")
        for pair, reason in phase.reference.quarantined.items():
            console.say(f"  pair {pair}: {reason}")
    if phase.reference.metrics.is_empty():
        return
    console.print(_strategy_table(phase))
    if phase.precision != "float64":
        console.print(_metric_table(phase))
    for agreement in phase.agreements:
        for pair in agreement.quarantine:
            reason = agreement.measured.quarantined.get(pair) or phase.reference.quarantined[pair]
            who = agreement.measured.strategy if pair in agreement.measured.quarantined else phase.reference.strategy
            console.say(f"pair {pair}: only {who} could not measure it ({reason})")
        if phase.decides and agreement.comparison.beyond:
            console.print(_cell_table(agreement))


def _strategy_table(phase: Phase) -> Table:
    rows = [(_name(phase.reference), f"{phase.reference.seconds:.1f}", *[""] * 4, "(the others against it)")]
    for agreement in phase.agreements:
        comparison = agreement.comparison
        worst = comparison.worst
        rows.append(
            (
                _name(agreement.measured),
                f"{agreement.measured.seconds:.1f}",
                f"{comparison.compared:,}",
                *((_difference(worst), f"{worst.ratio:.2g}") if worst else ("", "")),
                f"{comparison.flips} of {comparison.active:,}",
                f"{worst.column}, pair {worst.pair}" if worst and worst.ratio > 0 else "",
            )
        )
    allowed = "of\nallowed" if phase.decides else "of\nfloat32's"
    heads = ["strategy", "seconds", "cells", "largest\ndifference", allowed, "flips", "at"]
    return table(heads, rows, title=f"\n{_title(phase)}", left=(0, 6), gap=2)


def _title(phase: Phase) -> str:
    if phase.precision == "float64":
        return "float64: every column within 1e-6, angles within 1e-4 degrees"
    if phase.precision == "float32":
        return "float32: within 1e-4 of a column's magnitude, angles within 0.05 degrees, flips within 0.1 %"
    return f"{phase.dtype}: for information, in multiples of what float32 is allowed"


def _metric_table(phase: Phase) -> Table:
    """The largest difference of each metric and strategy, and its share of what is allowed."""
    found = [agreement.comparison.largest for agreement in phase.agreements]
    rows: list[list[str]] = []
    for metric in dict.fromkeys(name for largest in found for name in largest):
        cells = [largest.get(metric) for largest in found]
        if any(cell is not None and (isinstance(cell.expected, float) or cell.ratio > 0) for cell in cells):
            rows.append([metric, *(f"{_difference(cell)} ({cell.ratio:.2g})" if cell else "-" for cell in cells)])
    heads = ["metric", *(agreement.measured.strategy for agreement in phase.agreements)]
    return table(heads, rows, title="\nLargest difference by metric (of allowed)", gap=2)


def _cell_table(agreement: Agreement) -> Table:
    beyond = agreement.comparison.beyond
    columns = len({cell.column for cell in beyond})
    title = f"\n{agreement.measured.strategy}: {len(beyond)} cells of {columns} columns differ by more than is allowed"
    title += ", the worst:" if len(beyond) > MOST_CELLS else ":"
    rows = [
        (cell.column, cell.pair, _value(cell.got), _value(cell.expected), _difference(cell), f"{cell.ratio:.2g}")
        for cell in sorted(beyond, key=lambda cell: -cell.ratio)[:MOST_CELLS]
    ]
    heads = ["column", "pair", agreement.measured.strategy, "sequential", "difference", "of allowed"]
    return table(heads, rows, title=title, left=range(2), gap=2)


def _difference(cell: Cell) -> str:
    if cell.ratio == 0:
        return "0"
    return "text" if cell.difference is None else f"{cell.difference:.1e}"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _verdict(phases: Sequence[Phase]) -> Iterator[str]:
    """The closing lines: one for each phase that decides."""
    for phase in phases:
        if phase.reference.metrics.is_empty():
            yield f"Nothing was compared in {phase.dtype}: no pair could be measured."
        elif phase.reference.ran_as != phase.reference.strategy:
            yield f"Nothing is proved in {phase.dtype}: {_name(phase.reference)}."
        elif not phase.holds:
            names = [agreement.measured.strategy for agreement in phase.agreements if not agreement.holds]
            yield f"Strategies differ in {phase.dtype}: {', '.join(names)} from {phase.reference.strategy}; see above."
        elif phase.decides:
            yield _agreed(phase)


def _agreed(phase: Phase) -> str:
    found = [agreement.comparison for agreement in phase.agreements]
    cells, columns, pairs = min(one.compared for one in found), found[0].columns, found[0].pairs
    line = f"All strategies agree in {phase.dtype}: {cells:,} cells of {columns} columns in {pairs} pairs"
    worst = phase.worst
    if worst is None or worst.ratio == 0:
        return f"{line}, without any difference"
    share = f"{worst.ratio:.2g} of what is allowed"
    return f"{line}, largest difference {_difference(worst)} ({share}) at {worst.column}, pair {worst.pair}"


COMMAND = Verify
