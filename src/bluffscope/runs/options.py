"""A run's options before and after it starts: looked at before anything is loaded, and complete for config.yaml."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bluffscope.config import MeasureOptions, RunConfig, refuse_endless
from bluffscope.errors import InputError
from bluffscope.sae.find import pinned
from bluffscope.table.folder import RunFolder


def homes_expanded(config: RunConfig) -> RunConfig:
    """The options with ~ replaced in paths: shells do so only where it begins a word."""
    data, model, output = config.data, config.model, config.output
    return replace(
        config,
        data=replace(data, data=str(_expanded(data.data))),
        model=replace(model, model=_expanded(model.model), sae=_expanded(model.sae)),
        output=replace(
            output,
            out=None if output.out is None else Path(str(_expanded(str(output.out)))),
            resume=None if output.resume is None else Path(str(_expanded(str(output.resume)))),
        ),
    )


def _expanded(path: str | None) -> str | None:
    try:
        return str(Path(path).expanduser()) if path is not None and path.startswith("~") else path
    except RuntimeError as error:  # no such user
        raise InputError(f"{path}: {error}".rstrip(".") + "; give the whole path") from error


def check_out(out: Path | None) -> None:
    """Refuse a folder that cannot be made, before seconds or minutes go into loading a model."""
    if out is not None:
        RunFolder.check(out)
    path = (out or Path("runs")).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"--out {out or path}: {there} is a file; choose another folder with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--out {out or path}: {there} cannot be written; choose another folder with --out")


def check_values(config: RunConfig) -> None:
    """Refuse values that no type excludes."""
    refuse_endless(config)
    _check_measure(config.measure)
    limit = config.engine.max_quarantine
    if limit is not None and limit < 0:
        raise InputError(f"--max-quarantine {limit}: give a number that is 0 or more")


def _check_measure(options: MeasureOptions) -> None:
    if options.noise_draws < 1:
        raise InputError(f"--noise-draws {options.noise_draws}: give at least 1")
    for name, value in [("--noise-std", options.noise_std), *(("--noise-sweep", s) for s in options.noise_sweep)]:
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} {value}: give a number that is 0 or more")
    sweep = options.noise_sweep
    if repeated := next((value for value in sweep if sweep.count(value) > 1), None):
        raise InputError(f"--noise-sweep: {repeated:g} is given twice; name each value once")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give a number that is 0 or more")


def replayable(config: RunConfig, revision: str | None, saes: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The options as config.yaml holds them: complete, free of what belongs to this run's folder alone.

    Folders are absolute; a model and SAEs of the hub stay at the commits that were used.

    Args:
        config: the options of the run.
        revision: commit of the model.
        saes: identity of each layer's SAE.
    """
    sae = _absolute(config.model.sae)
    commits = {commit for identity in saes.values() if (commit := identity.get("revision"))}
    model = replace(
        config.model,
        model=_absolute(config.model.model),
        sae=pinned(sae, commits.pop()) if sae and len(commits) == 1 else sae,
        revision=revision or config.model.revision,
    )
    named = (text.rpartition(":") for text in config.measure.analysis)
    analysis = tuple(f"{Path(file).expanduser().resolve()}:{name}" for file, _, name in named)
    measure = replace(config.measure, analysis=analysis)
    return asdict(replace(config, model=model, measure=measure, output=replace(config.output, out=None, resume=None)))


def _absolute(name: str | None) -> str | None:
    return str(Path(name).resolve()) if name is not None and Path(name).is_dir() else name
