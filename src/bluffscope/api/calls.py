"""The library's two calls that measure: one gives the table, the other a run and all that can be made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

import polars as pl

from bluffscope.api.closing import run as run_config
from bluffscope.api.opened import Run
from bluffscope.api.options import Options, prepared
from bluffscope.host.exclusive import exclusive
from bluffscope.host.float64_guard import own_settings
from bluffscope.metrics import ANALYSES, Analysis
from bluffscope.metrics.own import UserAnalysis, load_analyses
from bluffscope.pairs.given import Pairs, write_pairs
from bluffscope.runs.run import Progress


@exclusive()
@own_settings()
def analyze(
    data: Pairs = "bluff200",
    *,
    analyses: Iterable[Analysis] = ANALYSES,
    added: Iterable[UserAnalysis] = (),
    **options: Unpack[Options],
) -> pl.DataFrame:
    """Run the analyses and give the result table, one row a pair in input order.

    Args:
        data: a path, "bluff200", or the pairs themselves: a table of polars, pandas or `datasets`, or mappings, with
            prompt, fact, hallucination and, if you have them, id, domain, complexity and further columns.
        analyses: which of the five analyses run (`bluffscope.metrics.ANALYSES`).
        added: analyses of your own, made by `bluffscope.per_read` or from a function of a `Measurement` and the
            columns it returns.
        **options: any option of `bluffscope analyze` by its name with underscores: ``layers``, ``batch_size``,
            ``noise_sweep``, ... Without ``out`` nothing is kept but the table. ``model`` may be a Hugging Face causal
            language model in memory, with its ``tokenizer``, and ``sae`` SAEs by layer: they are left as they are.

    Returns:
        The table that the run's metrics.parquet holds; quarantined pairs are not in it.

    Raises:
        InputError: options or data that cannot be used, in one line.
        TypeError: an option that does not exist.

    Example:
        >>> import bluffscope
        >>> table = bluffscope.analyze(limit=4)
        >>> table["l2_fact_l0_norm"].len()
        4
    """
    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        chosen: dict[str, Any] = dict(options)
        if chosen.get("out") is None and chosen.get("resume") is None:
            chosen = {"keep_residuals": False, **chosen, "out": Path(scratch) / "run"}  # nobody could read them
        chosen["figures"] = False
        return _measured(data, chosen, scratch, tuple(analyses), tuple(added), None).metrics


@exclusive()
@own_settings()
def run(
    data: Pairs = "bluff200",
    *,
    analyses: Iterable[Analysis] = ANALYSES,
    added: Iterable[UserAnalysis] = (),
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> Run:
    """Run the analyses into a folder and give the run: its tables, statistics, page and plots.

    Args:
        data: as for `bluffscope.analyze`, as are `analyses`, `added` and `options`.
        analyses: which of the five analyses run.
        added: analyses of your own.
        progress: is told how many pairs are done.
        **options: ``out`` names the run's folder; without it, it is a new one in runs/. With ``figures`` statistics and
            report are made at once, else when they are asked for.

    Raises:
        InputError: options or data that cannot be used, in one line.
        TypeError: an option that does not exist.

    Example:
        >>> import bluffscope
        >>> run = bluffscope.run(limit=4, out="runs/example")  # doctest: +SKIP
        >>> run.stats.filter(verdict="separates")  # doctest: +SKIP
    """
    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        return _measured(data, dict(options), scratch, tuple(analyses), tuple(added), progress)


def _measured(
    data: Pairs,
    options: dict[str, Any],
    scratch: str,
    analyses: tuple[Analysis, ...],
    added: tuple[UserAnalysis, ...],
    progress: Progress | None,
) -> Run:
    own: dict[str, Any] = {}
    if not isinstance(data, str | Path):
        own["data"] = str(write_pairs(data, Path(scratch) / "pairs.jsonl"))
    elif options.get("resume") is None or str(data) != "bluff200":  # else the run's own
        own["data"] = str(data)
    config, given = prepared(options, **own)
    added += load_analyses(config.measure.analysis)
    done = run_config(
        config, analyses=analyses, added=added, given=given, progress=progress, draw=config.output.figures
    )
    return Run(done.path)


__all__ = ["analyze", "run"]
