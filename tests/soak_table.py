"""The table that `make soak` ends with: what was made to fail, how often, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass


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
