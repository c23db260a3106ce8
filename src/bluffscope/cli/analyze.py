"""`bluffscope analyze`: the tool's main job."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler

from bluffscope.cli.options import parse_run
from bluffscope.cli.progress import BarProgress, LineProgress
from bluffscope.config import RunConfig

if TYPE_CHECKING:
    from bluffscope.metrics import Analysis
    from bluffscope.run import RunResult

EXIT_QUARANTINED = 3
_DESCRIPTION = """Measure pairs (prompt, fact, hallucination) in a language model and write a run's folder."""


def main(arguments: Sequence[str]) -> int:
    """Parse the options, run, print the summary; gives the exit code."""
    return analyze(parse_run(arguments, "analyze", _DESCRIPTION))


def analyze(config: RunConfig, analyses: tuple[Analysis, ...] | None = None) -> int:
    """Run with progress on the terminal and print what came of it; 3 if pairs had to be quarantined.

    Args:
        config: the options.
        analyses: which analyses run, or None for all five.
    """
    # Torch and polars take seconds to import: --help and a mistyped flag should not.
    from bluffscope.metrics import ANALYSES
    from bluffscope.report import render_summary
    from bluffscope.run import run

    messages = Console(stderr=True)
    _log_to(messages)
    progress = BarProgress(messages) if messages.is_terminal else LineProgress(sys.stderr)
    result = run(config, analyses=analyses or ANALYSES, progress=progress)
    console = Console()
    console.print(render_summary(result.metrics()))
    _close(console, result)
    return EXIT_QUARANTINED if result.merged.quarantined else 0


def _log_to(console: Console) -> None:
    package = logging.getLogger("bluffscope")
    if not package.handlers:
        package.addHandler(RichHandler(console=console, show_time=False, show_path=False, markup=False))
        package.propagate = False


def _close(console: Console, result: RunResult) -> None:
    """Where the time went, what was left out, and where the results are."""
    timings = result.manifest["timings"]
    stages = " | ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items() if stage != "total")
    pairs = result.merged.rows + result.merged.quarantined
    working = sum(timings[stage] for stage in ("tokenise", "forward", "sae", "geometry"))
    rate = f"{pairs / working:.0f} pairs/sec once loaded" if working > 0 else ""
    console.print(f"Total time: {timings['total']:.1f} s ({rate})", highlight=False)
    console.print(f"Seconds by stage: {stages}", highlight=False)
    if result.merged.quarantined:
        console.print(f"Quarantined: {result.merged.quarantined} of {pairs} pairs (quarantine.parquet):")
        for reason, number in list(result.merged.reasons.items())[:5]:
            console.print(f"  {number} x {reason}", markup=False, highlight=False)
    for figure in result.figures:
        console.print(f"Dashboard: {figure}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Run: {result.path}", markup=False, highlight=False, soft_wrap=True)


__all__ = ["analyze", "main"]
