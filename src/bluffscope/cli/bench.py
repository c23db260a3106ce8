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
from bluffscope.config import NO_SAE
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from bluffscope.compare.bench.against import Measured
    from bluffscope.compare.bench.jobs import Job
    from bluffscope.compare.bench.tables import Table

PARTS: Final = ("ladder", "batch_sizes", "limit", "growth", "sharing")
Part = Literal["ladder", "batch_sizes", "limit", "growth", "sharing"]
WAYS: Final = (
    "sequential pattern: one text at a time, for three layers with SAEs 13 full forwards a pair; scaled to all pairs",
    "careful script: texts sorted by length, batches of 16, right-padded and masked, output_hidden_states, SAELens's "
    "encode at the last token",
)
"""What the ways are."""


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measure speed and memory of every step, from the naive pattern to the engine, each in its own process.

    With --model it measures packed rows on that model instead, against the sequential pattern and a careful script.
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
    model: str | None = None
    """A model of your own (folder, Hugging Face id or GGUF file): it takes the place of shape and parts."""
    sae: str | None = None
    """Its SAEs, as in analyze (default: none)."""
    layers: tuple[int, ...] = ()
    """Its layers (default: all that have SAEs; without SAEs, at a quarter, half and three quarters)."""
    pairs: int = 200
    """Pairs that are measured on it."""
    sequential_pairs: int = 10
    """Pairs of them, spread over their lengths, that the sequential pattern is measured on; its time is scaled."""
    repeats: int = 3
    """Times that all but the sequential pattern is measured; the median counts."""
    out: Path | None = None
    """Folder for bench.json and figures (default: bench-<shape or model>)."""

    def execute(self) -> int:
        """Measure the parts in order; what is measured is on disk before the next part starts."""
        if self.model is not None:
            return self._against()
        given = {"--sae": self.sae, "--layers": self.layers}
        if alone := next((flag for flag, value in given.items() if value), None):
            raise InputError(f"{alone} without --model: name the model to measure")
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
        folder = self._folder(self.shape)
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

    def _folder(self, name: str) -> Path:
        folder = self.out or Path(f"bench-{name}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from error
        return folder

    def _against(self) -> int:
        """Measure the model every way, and say whether the results agree; exit code 1 if they do not."""
        from bluffscope.compare.bench import tables
        from bluffscope.compare.bench.against import Against, measure, same_metrics, same_residuals
        from bluffscope.table.folder import write_json

        assert self.model is not None
        if self.parts != PARTS or self.strategies or self.shape != "demo":
            raise InputError("--shape, --parts and --strategies: not with --model, which has a table of its own")
        for name in ("pairs", "sequential_pairs", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least 1")
        folder = self._folder(Path(self.model).name)
        asked = Against(
            model=self.model,
            sae=self.sae or NO_SAE,
            layers=self.layers,
            pairs=self.pairs,
            sequential_pairs=self.sequential_pairs,
            repeats=self.repeats,
        )
        found: list[Measured] = []
        for measured in measure(asked):
            found.append(measured)
            sys.stderr.write(f"measured: {measured.name} ({measured.does}), {min(measured.seconds):.2f} s\n")
            write_json(folder / "bench.json", {"against": [each.record() for each in found]})
        table = tables.against_table([each.record() for each in found])
        packed = {each.does: each for each in found if each.way == "packed"}
        same = {"all analyses": same_metrics, "forward + encode": same_residuals}
        agreements = {each.name: same[each.does](packed[each.does], each) for each in found if each.way != "packed"}
        _print(table._replace(notes=[*WAYS, *(f"{name}: {found}" for name, found in agreements.items())]))
        output_console().say(f"Written: {folder / 'bench.json'}")
        return exit_codes.DONE if all(found.holds for found in agreements.values()) else exit_codes.FAILED


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
