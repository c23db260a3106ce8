"""A run's options before and after it starts: looked at before anything is loaded, and complete for config.yaml."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from bluffscope.config import NO_SAE, RunConfig, refuse_endless
from bluffscope.errors import InputError
from bluffscope.metrics import ANALYSES, LOGPROB, P_TRUE, TRAJECTORY, Analysis
from bluffscope.metrics.own import UserAnalysis
from bluffscope.pairs import Scan
from bluffscope.records import AUTO_JOIN, PAIRS, Arrangement
from bluffscope.sae.find import pinned
from bluffscope.table.folder import RunFolder

_PATHS: Final = {"data": ("data",), "model": ("model", "sae"), "output": ("out", "resume")}
"""Options that may be paths, by part."""


def homes_expanded(config: RunConfig) -> RunConfig:
    """The options with ~ replaced in paths: shells do so only where it begins a word."""
    parts: dict[str, Any] = {}
    for part, names in _PATHS.items():
        options = getattr(config, part)
        parts[part] = replace(options, **{name: _expanded(getattr(options, name)) for name in names})
    return replace(config, **parts)


def _expanded(path: Any) -> Any:
    """A text or path, as the same type."""
    try:
        return type(path)(Path(path).expanduser()) if str(path).startswith("~") else path
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
    measure, limit = config.measure, config.engine.max_quarantine
    if measure.noise_draws < 1:
        raise InputError(f"--noise-draws {measure.noise_draws}: give at least 1")
    amounts = [("noise-std", measure.noise_std), *(("noise-sweep", value) for value in measure.noise_sweep)]
    for name, value in (*amounts, ("seed", measure.seed), ("max-quarantine", 0 if limit is None else limit)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name} {value}: give a number that is 0 or more")
    data = config.data
    positions = measure.positions
    if repeated := next((position for position in positions if positions.count(position) > 1), None):
        raise InputError(f"--position: {repeated} is given twice; name each position once")
    if "tokens" in positions and len(positions) > 1:
        raise InputError(
            "--position tokens: cannot be combined with others, as every token of a completion is kept already; give "
            "it alone, or completion-mean in its place"
        )
    if not data.chat and (data.system is not None or "end-of-turn" in positions):
        flag = "--position end-of-turn" if data.system is None else "--system"
        raise InputError(f"{flag}: only conversations have it; add --chat")
    if data.chat and data.join != AUTO_JOIN:
        raise InputError("--join: with --chat the model's chat template parts prompt and completion; leave it out")
    sweep = measure.noise_sweep
    if repeated := next((value for value in sweep if sweep.count(value) > 1), None):
        raise InputError(f"--noise-sweep: {repeated:g} is given twice; name each value once")


def possible(
    config: RunConfig,
    analyses: tuple[Analysis, ...],
    added: tuple[UserAnalysis, ...],
    arrangement: Arrangement = PAIRS,
) -> tuple[Analysis, ...]:
    """The analyses that a run makes: those that its options ask for too, without SAEs only those that need none.

    Of texts without prompts, nothing is compared with a prompt; and nothing is read where the texts of a pair part.

    Raises:
        InputError: one that was chosen cannot be made, or nothing is left to measure.
    """
    every = set(ANALYSES) <= set(analyses)
    measure = config.measure
    asked = {TRAJECTORY: measure.trajectory == "on", LOGPROB: measure.logprob != "off", P_TRUE: measure.p_true}
    analyses = (*analyses, *(analysis for analysis, on in asked.items() if on and analysis not in analyses))
    if arrangement != PAIRS and "divergence" in measure.positions:
        raise InputError("--position divergence: labelled texts part from no other; use last or first-completion")
    if config.data.chat and "prompt" not in arrangement.views:
        raise InputError("--chat: a text without a prompt is no conversation; give each text a prompt, or leave it out")
    if "prompt" not in arrangement.views:
        analyses = tuple(analysis for analysis in analyses if not analysis.needs_prompt)
    if config.model.has_saes:
        return analyses
    needing = [analysis for analysis in analyses if analysis.needs_sae]
    if needing and not every:
        raise InputError(f"--sae {NO_SAE}: {needing[0].title} needs SAEs; give some, or leave this analysis out")
    left = tuple(analysis for analysis in analyses if not analysis.needs_sae)
    if not (left or added or config.output.keep_residuals == "on"):
        raise InputError(
            f"--sae {NO_SAE}: nothing is left to measure; add --trajectory, --logprob, --p-true or --analysis"
        )
    return left


def as_before(config: RunConfig, before: RunConfig | None) -> RunConfig:
    """The options with what they leave open as the run that is gone on with decided it.

    Args:
        config: the options given.
        before: those of the run, if it has any.
    """
    if before is None:
        return config
    measure, output = config.measure, config.output
    if measure.logprob == "auto":
        measure = replace(measure, logprob=before.measure.logprob)
    if output.keep_residuals == "auto":
        output = replace(output, keep_residuals=before.output.keep_residuals)
    return replace(config, measure=measure, output=output)


def only_chosen(config: RunConfig, analyses: tuple[Analysis, ...]) -> RunConfig:
    """The options without log-probabilities that nobody asked for, where only some of the five analyses run."""
    if config.measure.logprob != "auto" or set(ANALYSES) <= set(analyses):
        return config
    return replace(config, measure=replace(config.measure, logprob="off"))


def keeping_tokens(config: RunConfig) -> RunConfig:
    """The options with the residuals kept that ``--position tokens`` and further positions are for."""
    if config.measure.first_position != "tokens" and not config.measure.further_positions:
        return config
    return replace(config, output=replace(config.output, keep_residuals="on"))


def refuse_unlabelled_tokens(config: RunConfig, scan: Scan) -> None:
    """Refuse ``--position tokens`` where no token has a label.

    Raises:
        InputError: saying so.
    """
    if config.measure.first_position != "tokens":
        return
    if scan.arrangement == PAIRS:
        raise InputError(
            "--position tokens: only labelled texts with spans have labels of tokens, and these are pairs; use "
            "completion-mean"
        )
    if not any(column.name == "spans" for column in scan.carried):
        raise InputError(
            "--position tokens: none of the texts has spans, so no token has a label; give the field's name with "
            "--columns spans=NAME, or use completion-mean"
        )


def replayable(config: RunConfig, revision: str | None, saes: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The options as config.yaml holds them: complete, free of what belongs to this run's folder alone.

    Folders and files are absolute; a model and SAEs of the hub stay at the commits that were used.

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
    return str(Path(name).resolve()) if name is not None and Path(name).exists() else name
