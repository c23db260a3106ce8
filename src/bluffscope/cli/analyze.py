"""`bluffscope analyze`: the tool's main job."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.health import headline, print_findings, withheld
from bluffscope.cli.main import guarded
from bluffscope.cli.options import parse_run
from bluffscope.cli.progress import BarProgress, LineProgress
from bluffscope.config import EngineOptions, RunConfig

if TYPE_CHECKING:
    from bluffscope.metrics import Analysis
    from bluffscope.run import RunResult

EXIT_DONE = 0
EXIT_QUARANTINED = 3
EXIT_UNSOUND = 4
_DESCRIPTION = """Measure pairs (prompt, fact, hallucination) in a language model and write a run's folder."""


def main(arguments: Sequence[str]) -> int:
    """Parse the options, run, print the summary; gives the exit code."""
    return analyze(parse_run(arguments, "bluffscope analyze", _DESCRIPTION))


def experiment(
    script: str, description: str, names: Sequence[str] = (), batch_size: Literal["auto"] | int = "auto"
) -> int:
    """`bluffscope analyze` as a script of its own, with the script's choice of analyses; gives the exit code.

    Args:
        script: the script's file; its flags are those of `bluffscope analyze`.
        description: what it does, for --help.
        names: the analyses that run, by name; empty for all five.
        batch_size: what holds without --batch-size.
    """
    program = Path(script).name
    default = RunConfig(engine=EngineOptions(batch_size=batch_size))

    def action() -> int:
        config = parse_run(sys.argv[1:], program, description.strip(), default)
        from bluffscope.metrics import ANALYSES  # torch: seconds that --help should not take

        return analyze(config, tuple(analysis for analysis in ANALYSES if not names or analysis.name in names))

    return guarded(program, action)


def analyze(config: RunConfig, analyses: tuple[Analysis, ...] | None = None) -> int:
    """Run with progress on the terminal and print what came of it; gives the exit code.

    4 if the health gate failed and verdicts are withheld, else 3 if pairs had to be quarantined.

    Args:
        config: the options.
        analyses: which analyses run, or None for all five.
    """
    # Torch and polars take seconds to import: --help and a mistyped flag should not.
    from bluffscope.metrics import ANALYSES
    from bluffscope.run import run

    messages = message_console()
    started = time.perf_counter()
    progress = BarProgress(messages) if messages.is_terminal else LineProgress(sys.stderr)
    try:
        with messages_on(messages):
            result = run(config, analyses=analyses or ANALYSES, progress=progress)
    finally:
        progress.finish()
    _print(result, time.perf_counter() - started)
    if withheld(result.manifest["health"]):
        return EXIT_UNSOUND
    return EXIT_QUARANTINED if result.merged.quarantined else EXIT_DONE


def _print(result: RunResult, seconds: float) -> None:
    """The summary, the answer, where the time went, what was left out, and where the results are."""
    from bluffscope.report import render_fidelity, render_summary

    console = output_console()
    console.print(render_summary(result.metrics()))
    if result.fidelity is not None:
        console.print(render_fidelity(result.fidelity))
    if result.report is not None:
        console.print(Text(f"\n{result.report.sentence}\n", style="bold"))
    timings = result.manifest["timings"]
    stages = " | ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items() if stage != "total")
    pairs = result.merged.rows + result.merged.quarantined
    working = sum(timings[stage] for stage in ("tokenise", "forward", "sae", "geometry"))
    rate = f" ({pairs / working:.0f} pairs/sec once loaded)" if working > 0 else ""
    closing = f" | report {seconds - timings['total']:.1f}" if result.report is not None else ""
    lines = [f"Total time: {seconds:.1f} s{rate}", f"Seconds by stage: {stages}{closing}"]
    lines.append(_memory_line(result.manifest["memory"]))
    if result.merged.quarantined:
        lines.append(f"Quarantined: {result.merged.quarantined} of {pairs} pairs (quarantine.parquet):")
        lines += [f"  {number} x {reason}" for reason, number in list(result.merged.reasons.items())[:5]]
    if lint := result.manifest["lint"].get("headline"):
        lines.append(f"Lint: {lint}; see manifest.json")
    print_findings(console, result.manifest["health"])
    lines.append(headline(result.manifest["health"]))
    lines += [f"Hint: {hint}" for hint in result.manifest["hints"]]
    lines.append(f"Run: {result.path}")
    if result.report is not None:
        lines.append(f"Report: {result.report.path}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _memory_line(memory: Mapping[str, int | None]) -> str:
    """`Peak memory: 1.2 GB (predicted 1.3)`."""
    predicted = memory["predicted_bytes"]
    text = f"Peak memory: {(memory['peak_bytes'] or 0) / 1e9:.1f} GB"
    return text if predicted is None else f"{text} (predicted {predicted / 1e9:.1f})"


__all__ = ["analyze", "experiment", "main"]
