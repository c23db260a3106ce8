"""`bluffscope compare`: the same pairs under two models, layers, dtypes or seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import parsed, refuse_repeated
from bluffscope.config import expectation

_PROGRAM = "bluffscope compare"
_DESCRIPTION = "Compare runs over the same pairs with the first of them: effects, their changes, and fidelity."


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Which runs are compared."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of two or more runs; the first is what the others are compared with."""
    by: tuple[str, ...] = ()
    """Further columns of the pairs whose values are scopes of their own."""
    out: Path | None = None
    """Folder for compare.parquet and compare.json (default: nothing is written)."""


def main(arguments: Sequence[str]) -> int:
    """Parse the options, compare, print and write; gives the exit code."""
    refuse_repeated(arguments)

    def gather(options: Annotated[CompareOptions, tyro.conf.arg(name="")]) -> CompareOptions:
        return options

    expected = partial(expectation, groups=(CompareOptions,))
    return compare(parsed(gather, arguments, _PROGRAM, _DESCRIPTION, expected))


def compare(options: CompareOptions) -> int:
    """Compare runs and say what came of it."""
    # Polars and scipy take a second to import: --help and a mistyped flag should not.
    from bluffscope.compare.runs import compare_all
    from bluffscope.report.comparison import render_comparison
    from bluffscope.report.result_files import write_comparison
    from bluffscope.table import read_run

    result = compare_all([read_run(path) for path in options.runs], options.by)
    files = write_comparison(result, options.out) if options.out is not None else None
    console = output_console()
    console.print(render_comparison(result))
    if files is not None:
        last = f"Comparison: {files[0]}, {files[1].name} ({result.rows.height} rows)"
        console.print(last, markup=False, highlight=False, soft_wrap=True)
    return exit_codes.DONE


__all__ = ["CompareOptions", "compare", "main"]
