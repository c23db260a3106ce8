"""`bluffscope detect sweep` and `transfer`: where a detector has to look, and what it is worth on other data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.named_file import check_file
from bluffscope.cli.options import Command
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from bluffscope.detectors.files import Detector
    from bluffscope.table.reader import Run

_DETECTOR: Final = "detector.json"


@dataclass(frozen=True, kw_only=True)
class Transfer(Command):
    """Train detectors on each data set and test them on each other, beside what text alone carries over.

    Where folders of saved detectors are among those given, these are tested as they are, and nothing is trained. Needs
    no model. All runs and detectors must be of one model and its SAEs.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Runs, of pairs or of labelled texts (one is enough with --by), and saved detectors."""
    by: str | None = None
    """Part each run by the values of this column: known, or domain. position: the same texts at each read position."""
    on: tuple[Literal["sae", "metrics", "residual", "mean_difference"], ...] = ("sae", "residual")
    """Inputs of the detectors that are trained; what a run has not kept is said."""
    repeats: int = 5
    """How often folds are drawn."""
    seed: int = 0
    """Seed for folds."""
    out: Path | None = None
    """Folder for transfer_matrix.parquet (default: that of the first run, whose report then shows it)."""
    html: Path | None = None
    """Also write a page with the matrix (.html)."""

    def execute(self) -> int:
        """Train, test, print and write."""
        # Polars, scipy and scikit-learn take seconds to import: --help and a mistyped flag should not.
        from bluffscope.detectors.data_sets import common_position, data_sets
        from bluffscope.detectors.files import read_detector
        from bluffscope.detectors.saved import saved
        from bluffscope.detectors.transfer import carried_over
        from bluffscope.report.crossings import render_transfer
        from bluffscope.stats import Resampling
        from bluffscope.table.atomic import atomic_write, make_folder
        from bluffscope.table.reader import read_run

        _check_numbers(self.repeats, self.seed)
        check_file("--html", self.html)
        if self.html is not None and self.html.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--html {self.html}: expected a name that ends in .html")
        named = [path for path in self.folders if (path / _DETECTOR).exists()]
        runs = [read_run(path) for path in self.folders if path not in named]
        detectors = [read_detector(path) for path in named]
        position = common_position(detectors, runs)
        sets = data_sets(runs, self.by, self.seed, least=1 if detectors else 2, position=position)
        kept = saved(detectors, [_trained(detector, runs) for detector in detectors], sets)
        found = carried_over(sets, self.on, Resampling(seed=self.seed, repeats=self.repeats), kept)
        console = output_console()
        console.print(render_transfer(found))
        out = self.out or runs[0].path
        make_folder(out)
        atomic_write(out / "transfer_matrix.parquet", found.write_parquet)
        console.say(f"Transfer: {out / 'transfer_matrix.parquet'} ({found.height} rows)")
        if self.html is not None:
            from bluffscope.report.transfer_page import render_transfer_page
            from bluffscope.table.atomic import write_bytes

            model = (runs[0].manifest.get("model") or {}).get("name") or "a model"
            write_bytes(self.html, render_transfer_page(found, str(model)))
            console.say(f"Page: {self.html}")
        if self.out is None:
            _say_where(runs[0])
        return exit_codes.DONE


def _trained(detector: Detector, runs: list[Run]) -> Mapping[Path, pl.Series]:
    """Groups that a detector was trained on, by the folder of each run that has them."""
    from bluffscope.detectors.saved import holds_training
    from bluffscope.features.selection import items_of, matching

    where = detector.about["trained"].get("where") or ()
    items = {run.path: items_of(run) for run in runs if holds_training(detector, run)}
    return {path: frame["group"].filter(matching(frame, where)) for path, frame in items.items()}


@dataclass(frozen=True, kw_only=True)
class Sweep(Command):
    """Show how well detectors do at each layer, and how well the best does without the luck of the choice."""

    run: tyro.conf.Positional[Path]
    """The folder of a run with residuals or SAE features; sweep.parquet is written into it for its report."""
    repeats: int = 2
    """How often folds are drawn."""
    seed: int = 0
    """Seed for folds."""
    out: Path | None = None
    """Write the table to this file (.csv, .parquet or .json) and leave the run's folder as it is."""

    def execute(self) -> int:
        """Fit, print and write."""
        # Polars, scipy and scikit-learn take seconds to import: --help and a mistyped flag should not.
        from bluffscope.detectors.sweep import sweep
        from bluffscope.report.crossings import render_sweep
        from bluffscope.stats import Resampling
        from bluffscope.table.exports import check_export, export_table
        from bluffscope.table.reader import read_run

        _check_numbers(self.repeats, self.seed)
        if self.out is not None:
            check_export(self.out)
        run = read_run(self.run)
        found = sweep(run, Resampling(seed=self.seed, repeats=self.repeats))
        console = output_console()
        console.print(render_sweep(found))
        out, table = self.out or run.path / "sweep.parquet", found.table
        export_table(out, table, {"rows": table.to_dicts()})
        console.say(f"Sweep: {out} ({table.height} rows)")
        if self.out is None:
            _say_where(run)
        return exit_codes.DONE


def _say_where(run: Run) -> None:
    output_console().say(f"`bluffscope report {run.path}` puts it into the run's report.")


def _check_numbers(repeats: int, seed: int) -> None:
    for name, value, least in (("repeats", repeats, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"--{name} {value}: give a number from {least}")
