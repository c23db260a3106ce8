"""The library call: options by the names of the command line's flags, the result table back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl

from bluffscope.config import RunConfig, with_values
from bluffscope.exclusive import exclusive
from bluffscope.metrics import ANALYSES, Analysis
from bluffscope.pairs.given import write_pairs
from bluffscope.pipeline import UserAnalysis
from bluffscope.precision import own_settings
from bluffscope.run import run


@exclusive()
@own_settings()
def analyze(
    data: str | Path | Iterable[Mapping[str, Any]] = "bluff200",
    *,
    analyses: Iterable[Analysis] = ANALYSES,
    added: Iterable[UserAnalysis] = (),
    out: str | Path | None = None,
    **options: Any,
) -> pl.DataFrame:
    """Run the analyses and give the result table, one row a pair in input order.

    Args:
        data: a path, "bluff200", or the pairs themselves as mappings with prompt, fact, hallucination
            and, if you have them, id, domain, complexity and further columns.
        analyses: which of the five analyses run (`bluffscope.metrics.ANALYSES`).
        added: analyses of your own, each a function of a `Measurement` with the columns it gives.
        out: folder for the run's files; without it nothing is kept but the table.
        **options: any option of `bluffscope analyze` by its name with underscores: ``model``,
            ``sae``, ``layers``, ``batch_size``, ``noise_sweep``, ...

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
        if not isinstance(data, str | Path):
            data = write_pairs(data, Path(scratch) / "pairs.jsonl")
        config = config_from(data=str(data), out=out if out is not None else Path(scratch) / "run", **options)
        return run(config, analyses=tuple(analyses), added=tuple(added), draw=False).metrics()


def config_from(**options: Any) -> RunConfig:
    """A `RunConfig` from options by name, whichever part they belong to.

    Raises:
        TypeError: an option that does not exist.
        InputError: a value of the wrong type.
    """
    parts: dict[str, Any] = {}
    defaults = RunConfig()
    for part in fields(RunConfig):
        group = getattr(defaults, part.name)
        names = {field.name for field in fields(group)}
        chosen = {name: options.pop(name) for name in list(options) if name in names}
        parts[part.name] = with_values(group, chosen)
    if options:
        raise TypeError(f"unknown option {next(iter(options))!r}: expected a flag of `bluffscope analyze`")
    return RunConfig(**parts)


__all__ = ["analyze", "config_from"]
