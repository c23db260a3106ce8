"""`bluffscope doctor`: is a set-up sound, and what does a run of it take on this machine?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.health import print_health
from bluffscope.cli.named_file import check_file, write_json
from bluffscope.cli.options import RunCommand
from bluffscope.config import MeasureOptions, RunConfig
from bluffscope.config.presets import resolved
from bluffscope.host.terminal import table
from bluffscope.pipeline.memory import GEMMA_2_2B, TOKENS_A_PAIR, Device, Shape, pairs
from bluffscope.table.health import outcome

if TYPE_CHECKING:
    from bluffscope.host.machine import Machine


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Which checks to run."""

    json: Path | None = None
    """Also write all checks to this file, as JSON."""
    machine_only: bool = False
    """Only show the machine, batch size and memory; loads no weights."""


@dataclass(frozen=True, kw_only=True)
class Doctor(RunCommand):
    """Show this machine and what a run needs here, then check that model and SAEs fit together.

    Loads them, measures 48 of the pairs and runs all health checks. Exit code 1 if there is an error: such a run would
    get no verdicts.
    """

    doctor: DoctorOptions = field(default_factory=DoctorOptions)
    """Which checks to run."""

    def execute(self) -> int:
        """Print the machine, what a run takes and the health checks."""
        check_file("--json", self.doctor.json)
        # Torch takes seconds to import: --help and a mistyped flag should not.
        from bluffscope.host.machine import read_machine

        console = output_console()
        with messages_on(message_console()):
            plan = list(_plan(self.config))  # what cannot be planned is an error before anything is printed
            console.say(*_machine_lines(read_machine()), "", *plan)
        console.print()
        if self.doctor.machine_only:
            heads, *rows = guide_rows()
            console.print(table(heads, rows, title="Gemma 2 2B with three 16k SAEs, by device and memory", gap=2))
            console.print(
                f"Pairs per forward pass, of {TOKENS_A_PAIR} distinct tokens each, and the memory. Usable memory: "
                + "; ".join(f"{name.upper()}: {text}" for name, text in _USABLE.items())
            )
            return exit_codes.DONE
        from bluffscope.health import diagnose

        started = time.perf_counter()
        with messages_on(message_console(), once=True):
            found = diagnose(self.config)
        entry = found.entry()
        print_health(console, entry)
        console.say(outcome(entry, verdicts=False), f"Checked in {time.perf_counter() - started:.1f} s")
        write_json(self.doctor.json, entry)
        return exit_codes.DONE if found.sound else exit_codes.FAILED


_GB: Final = 10**9
_GUIDE: Final[dict[Device, tuple[str, dict[int, int]]]] = {
    "cpu": ("CPU", {8: 4, 16: 8}),
    "mps": ("MPS (M1/M2)", {8: 8, 16: 16}),
    "cuda": ("CUDA", {8: 16, 16: 32}),
}
"""Of each device its name, and by its memory in GB the pairs per forward pass that are often recommended."""
_USABLE: Final[dict[Device, str]] = {
    "cpu": "all but 2 GB for the system",
    "mps": "two thirds, which macOS grants the GPU at most",
    "cuda": "all but 0.5 GB for the driver",
}


_BFLOAT16: Final = {
    True: "fast (AVX512-BF16, AMX or Arm's BF16)",
    False: "emulated, slower than float32",
    None: "not known",
}


def _machine_lines(machine: Machine) -> Iterator[str]:
    from bluffscope.pipeline.batch_size import gigabytes

    limit = "" if machine.core_limit is None else f", limited to the time of {machine.core_limit:g}"
    yield f"Processor: {machine.processor}"
    yield f"Cores: {machine.physical_cores} ({machine.logical_cores} logical) for this process{limit}"
    load = "" if machine.load is None else f"; load {machine.load:.1f}"
    swap = f"; {gigabytes(machine.swap_used)} in swap" if machine.swap_used else ""
    yield f"Memory: {gigabytes(machine.memory_total)}, {gigabytes(machine.memory_available)} available{swap}{load}"
    yield f"bfloat16 on the processor: {_BFLOAT16[machine.native_bfloat16]}"
    if not machine.accelerators:
        yield "Accelerator: none"
    for accelerator in machine.accelerators:
        total, free = gigabytes(accelerator.memory_total), gigabytes(accelerator.memory_free)
        yield f"Accelerator: {accelerator.name}, {total}, {free} free"


def _plan(config: RunConfig) -> Iterator[str]:
    """What a run with these options takes on this machine."""
    from bluffscope.host.machine import free_memory
    from bluffscope.pipeline.batch_size import (
        ROW_TOKENS,
        SHARE,
        batch_tokens,
        gigabytes,
        predicted_peak,
        run_footprint,
    )
    from bluffscope.pipeline.by_default import UNMEASURED, plan_settled

    config, planned, unmeasured = plan_settled(resolved(config))
    found = run_footprint(planned.shape, planned.device, config.measure)
    rows = config.engine.row_tokens or ROW_TOKENS
    free = free_memory(planned.device)
    tokens = batch_tokens(found, planned.device, rows, int(free * SHARE))
    yield f"Model: {planned}"
    yield f"Weights: {gigabytes(found.weights)}; SAEs: {gigabytes(found.saes)}"
    if unmeasured:
        yield f"By default {UNMEASURED.format(unmeasured)}"
    if not tokens:
        needed = gigabytes(found.least_needed(rows) / SHARE)
        yield f"Batch size: does not fit: needs about {needed}, and {gigabytes(free)} are free"
        return
    yield (
        f"Batch size: {pairs(tokens)} pairs per forward pass, of {TOKENS_A_PAIR} distinct tokens each ({tokens} tokens)"
    )
    yield f"Peak memory: {gigabytes(found.peak(tokens, rows))} predicted, {gigabytes(free)} free"
    if config.engine.batch_size != "auto":
        engine = replace(config.engine, batch_tokens=tokens, row_tokens=rows)
        asked = predicted_peak(engine, found, config.engine.batch_size)
        if asked is not None:
            yield f"With --batch-size {config.engine.batch_size}: {gigabytes(asked)} predicted"


def guide_rows() -> Iterator[tuple[str, ...]]:
    """Batch sizes often recommended for Gemma-2-2B, and those of the memory model; the header first."""
    dtypes = ("float32", "bfloat16")
    yield ("device", "memory", "guide", *dtypes)
    for device, (label, guide) in _GUIDE.items():
        for memory, recommended in guide.items():
            cells = (_cell(GEMMA_2_2B[dtype], device, memory * _GB) for dtype in dtypes)
            yield (label, f"{memory} GB", str(recommended), *cells)


def _cell(shape: Shape, device: Device, memory: int) -> str:
    from bluffscope.pipeline.batch_size import ROW_TOKENS, batch_tokens, gigabytes, run_footprint

    found = run_footprint(shape, device, MeasureOptions())
    usable = {"cpu": memory - 2 * _GB, "mps": memory * 2 // 3, "cuda": memory - _GB // 2}[device]
    tokens = batch_tokens(found, device, ROW_TOKENS, usable)
    if not tokens:
        return f"does not fit ({gigabytes(found.least_needed(ROW_TOKENS))})"
    return f"{pairs(tokens)} ({gigabytes(found.needed(tokens, ROW_TOKENS))})"


COMMAND = Doctor
