"""`bluffscope compare`: the same pairs under two models, layers, dtypes or seeds; or pairs and a model's answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import Command


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare runs over the same pairs with the first of them: effects, how they change, and fidelity.

    Or a run over pairs with one over the model's own answers: does what separates the one separate the other?
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of two or more runs; the others are compared with the first."""
    by: tuple[str, ...] = ()
    """Also report effects separately for each value of these columns of the pairs."""
    out: Path | None = None
    """Write compare.parquet and compare.json into this folder."""

    def execute(self) -> int:
        """Compare, print and write."""
        # Polars and scipy take a second to import: --help and a mistyped flag should not.
        from bluffscope.compare.runs import compare_all
        from bluffscope.report.comparison import render_comparison
        from bluffscope.report.result_files import write_comparison
        from bluffscope.table.reader import read_run

        result = compare_all([read_run(path) for path in self.runs], self.by)
        files = write_comparison(result, self.out) if self.out is not None else None
        console = output_console()
        console.print(render_comparison(result))
        if files is not None:
            console.say(f"Comparison: {files[0]}, {files[1].name} ({result.rows.height} rows)")
        return exit_codes.DONE


COMMAND = Compare
