"""`bluffscope bench`: how fast, how much memory, and how far from what the machine could do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import Command
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from bluffscope.compare.bench.jobs import Job
    from bluffscope.compare.bench.tables import Table

PARTS: Final = ("ladder", "batch_sizes", "limit", "growth", "sharing")
Part = Literal["ladder", "batch_sizes", "limit", "growth", "sharing"]


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measure speed and memory of every step, from the naive pattern to the engine, each in its own process.

    Ratios hold within one run; leave the machine otherwise idle (disturbed rows are marked).
    """

    shape: Literal["demo", "mid", "gemma-2-2b"] = "demo"
    """The embedded model, or random Gemma 2 weights with 512 or 2304 dimensions (the latter needs 14 GB of memory)."""
    parts: tuple[Part, ...] = PARTS
    """Tables to measure; limit needs the ladder's steps "async I/O" and "bfloat16"."""
    batch_sizes: tuple[int, ...] = (1, 4, 8, 16, 32)
    """Pairs per forward pass; auto is always measured too."""
    strategies: tuple[str, ...] = ()
    """Only these steps of the ladder (default: all). The strategies separate, sequential and batched are steps;
    packed is the step "async I/O"."""
    out: Path | None = None
    """Folder for bench.json and figures (default: bench-<shape>)."""

    def execute(self) -> int:
        """Measure the parts in order; what is measured is on disk before the next part starts."""
        from bluffscope.compare.bench import jobs, tables
        from bluffscope.table.folder import write_json

        steps = [jobs.STRATEGIES.get(name, name) for name in self.strategies] or jobs.STEPS
        if unknown := [step for step in steps if step not in jobs.STEPS]:
            names = [*jobs.STRATEGIES, *jobs.STEPS]
            alike = difflib.get_close_matches(unknown[0], names, n=3)
            hint = (
                f"did you mean {' or '.join(map(repr, alike))}?"
                if alike
                else f"there are {', '.join(map(repr, names))}"
            )
            raise InputError(f"--strategies {unknown[0]!r}: no such step or strategy; {hint}")
        if wrong := [size for size in self.batch_sizes if size < 1]:
            raise InputError(f"--batch-sizes {wrong[0]}: give at least 1")
        folder = self.out or Path(f"bench-{self.shape}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from error
        lists: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}

        if {"ladder", "limit"} & set(self.parts):
            for record in _measured(jobs.ladder(self.shape, steps)):
                lists["limit" if record["step"] == "limit" else "ladder"].append(record)
                write_json(folder / "bench.json", lists)
            _print(tables.ladder_table(lists["ladder"]))
            if lists["limit"]:
                _print(tables.limit_table(lists["limit"], lists["ladder"]))
        for part, asked, table in (
            ("batch_sizes", jobs.batch_sizes(self.shape, self.batch_sizes), tables.batch_table),
            ("sharing", jobs.sharing(self.shape), tables.sharing_table),
            ("growth", jobs.growth(), tables.growth_table),
        ):
            if part in self.parts:
                for record in _measured(asked):
                    lists[part].append(record)
                    write_json(folder / "bench.json", lists)
                _print(table(lists[part]))
        from bluffscope.compare.bench.figures import write_figures  # vl-convert: 80 MB

        figures = write_figures(lists, folder)
        output_console().say(*(f"Written: {path}" for path in (folder / "bench.json", *figures)))
        return exit_codes.DONE


def _measured(jobs: Iterable[Job]) -> Iterable[dict[str, Any]]:
    """The records of the jobs; a line on standard error says what is being measured."""
    from bluffscope.compare.bench.processes import run_job

    for job in jobs:
        sys.stderr.write(f"measuring {job.shape}: {job.step} ({job.strategy}, {job.dtype})\n")
        sys.stderr.flush()
        yield from run_job(job)


def _print(found: Table) -> None:
    from bluffscope.host.terminal import table

    console = output_console()
    heads = list(found.rows[0])
    left = [index for index, name in enumerate(heads) if index == 0 or name == "marks"]
    console.print(table(heads, [list(row.values()) for row in found.rows], title=found.title, left=left, gap=2))
    console.say(*found.notes, "")


COMMAND = Bench
