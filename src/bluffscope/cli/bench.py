"""`bluffscope bench`: how fast, how much memory, and how far from what the machine could do."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import parse_options
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from bluffscope.compare.bench.jobs import Job
    from bluffscope.compare.bench.tables import Table

_DESCRIPTION = """Time every step from the old pattern to the engine, each in a process of its own. Ratios hold within
one run: the machine should have nothing else to do (rows that were disturbed are marked)."""
PARTS: Final = ("ladder", "batch_sizes", "limit", "growth", "sharing")
Part = Literal["ladder", "batch_sizes", "limit", "growth", "sharing"]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured."""

    shape: Literal["demo", "mid", "gemma-2-2b"] = "demo"
    """The embedded model, or random Gemma 2 weights of 512 or of 2304 dimensions (the latter takes 14 GB of memory)."""
    parts: tuple[Part, ...] = PARTS
    """Which tables; limit needs the ladder's steps "async I/O" and "bfloat16"."""
    batch_sizes: tuple[int, ...] = (1, 4, 8, 16, 32)
    """Pairs a forward; auto is measured too."""
    strategies: tuple[str, ...] = ()
    """Only these steps of the ladder (default: all); the strategies separate, sequential and batched are steps, and
    packed is the step "async I/O"."""
    out: Path | None = None
    """Folder for bench.json and the figures (default: bench-<shape>)."""


@dataclass(frozen=True, kw_only=True)
class _Bench:
    bench: BenchOptions = field(default_factory=BenchOptions)


def main(arguments: Sequence[str]) -> int:
    """Measure, print tables as they are ready, write bench.json and figures; gives the exit code."""
    return bench(parse_options(_Bench, arguments, "bluffscope bench", _DESCRIPTION).bench)


def bench(options: BenchOptions) -> int:
    """Run the parts asked for, in order; what is measured is on disk before the next part starts."""
    from bluffscope.compare.bench import jobs, tables
    from bluffscope.table.atomic import write_bytes

    steps = [jobs.STRATEGIES.get(name, name) for name in options.strategies] or jobs.STEPS
    if unknown := [step for step in steps if step not in jobs.STEPS]:
        names = [*jobs.STRATEGIES, *jobs.STEPS]
        alike = difflib.get_close_matches(unknown[0], names, n=3)
        hint = f"did you mean {' or '.join(map(repr, alike))}?" if alike else f"there are {', '.join(map(repr, names))}"
        raise InputError(f"--strategies {unknown[0]!r}: no such step or strategy; {hint}")
    if wrong := [size for size in options.batch_sizes if size < 1]:
        raise InputError(f"--batch-sizes {wrong[0]}: give at least 1")
    folder = options.out or Path(f"bench-{options.shape}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from error
    lists: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}

    def keep() -> None:
        write_bytes(folder / "bench.json", (json.dumps(lists, indent=1) + "\n").encode())

    if {"ladder", "limit"} & set(options.parts):
        for record in _measured(jobs.ladder(options.shape, steps)):
            lists["limit" if record["step"] == "limit" else "ladder"].append(record)
            keep()
        _print(tables.ladder_table(lists["ladder"]))
        if lists["limit"]:
            _print(tables.limit_table(lists["limit"], lists["ladder"]))
    for part, asked, table in (
        ("batch_sizes", jobs.batch_sizes(options.shape, options.batch_sizes), tables.batch_table),
        ("sharing", jobs.sharing(options.shape), tables.sharing_table),
        ("growth", jobs.growth(), tables.growth_table),
    ):
        if part in options.parts:
            for record in _measured(asked):
                lists[part].append(record)
                keep()
            _print(table(lists[part]))
    from bluffscope.compare.bench.figures import write_figures  # altair: seconds

    figures = write_figures(lists, folder)
    console = output_console()
    for path in (folder / "bench.json", *figures):
        console.print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)
    return exit_codes.DONE


def _measured(jobs: Iterable[Job]) -> Iterable[dict[str, Any]]:
    """The records of the jobs; a line on standard error says what is being measured."""
    from bluffscope.compare.bench.processes import run_job

    for job in jobs:
        sys.stderr.write(f"measuring {job.shape}: {job.step} ({job.strategy}, {job.dtype})\n")
        sys.stderr.flush()
        yield from run_job(job)


def _print(table: Table) -> None:
    from rich.table import Table as RichTable

    console = output_console()
    shown = RichTable(title=table.title, title_justify="left")
    for index, name in enumerate(table.rows[0]):
        shown.add_column(name, justify="left" if index == 0 or name == "marks" else "right")
    for row in table.rows:
        shown.add_row(*row.values())
    console.print(shown)
    for note in table.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print()
