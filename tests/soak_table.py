"""The tables that `make soak` ends with: what was made to fail, how often, what it cost; what random inputs came to."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """One kind of fault."""

    fault: str
    injected: int
    """Faults that came about."""
    runs: int
    """Processes or calls it took, those that went on with a run included."""
    lost: int
    """Pairs that no table had at the end."""
    duplicated: int
    """Rows that some table had twice."""
    seconds: float


ROWS: list[Row] = []
"""Filled by the soak tests, printed by `conftest.pytest_terminal_summary`."""


@dataclass(frozen=True)
class Fuzzed:
    """Random inputs of one kind."""

    kind: str
    seed: int
    inputs: int = 0
    refused: int = 0
    """With exit code 2 and one line."""
    peak: int = 0
    """The most memory that any of them took, in bytes, the imports included."""
    slowest: float = 0.0
    seconds: float = 0.0
    faults: tuple[str, ...] = ()
    """Tracebacks, hangs, too much memory: each with how to repeat it."""

    def after(self, code: int | None, peak: int, seconds: float, fault: str | None) -> Fuzzed:
        """With one more input; the caller adds its fault."""
        return replace(
            self,
            inputs=self.inputs + 1,
            refused=self.refused + (code == 2 and fault is None),
            peak=max(self.peak, peak),
            slowest=max(self.slowest, seconds),
            seconds=self.seconds + seconds,
        )


FUZZED: list[Fuzzed] = []
"""Filled by `test_fuzz`, printed as `ROWS`."""


def fuzzed_lines(rows: list[Fuzzed]) -> list[str]:
    """The table of random inputs in Markdown."""
    return [
        "| random | inputs | refused in one line | faults | most memory | slowest | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {row.kind} | {row.inputs} | {row.refused} | {len(row.faults)} | {row.peak / 1e9:.1f} GB "
            f"| {row.slowest:.0f} s | {row.seconds:.0f} |"
            for row in rows
        ),
    ]


def lines(rows: list[Row]) -> list[str]:
    """The table in Markdown."""
    head = ["| fault | injected | runs | lost rows | duplicated rows | seconds |", "|---|---:|---:|---:|---:|---:|"]
    return [
        *head,
        *(
            f"| {row.fault} | {row.injected} | {row.runs} | {row.lost} | {row.duplicated} | {row.seconds:.0f} |"
            for row in rows
        ),
    ]
