"""The options of a run as named parameters, from the dataclasses that the command line's flags come from too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from bluffscope.config import RunConfig, with_values
from bluffscope.config.options import Position, Switch
from bluffscope.errors import InputError
from bluffscope.pipeline.given import Given, named_and_given
from bluffscope.runs.resume import saved_options

AnyPath: TypeAlias = str | PathLike[str]


class ModelAndSaes(TypedDict):
    """Options that take objects as well as names."""

    model: NotRequired[Any]
    """Hub id or folder; or a Hugging Face causal language model, or what TransformerLens or nnsight wrap around one."""
    sae: NotRequired[AnyPath | Mapping[int, Any] | None]
    """Release or folder; or by layer an SAE of SAELens, or its folder."""
    tokenizer: NotRequired[Any]
    """Of a model in memory."""


class Options(ModelAndSaes):
    """Every option of `bluffscope analyze` under the name of its flag; `bluffscope.config` says what each does."""

    schema: NotRequired[str]
    columns: NotRequired[Sequence[str]]
    labels: NotRequired[Sequence[str]]
    prompt_template: NotRequired[str | None]
    pairing: NotRequired[Literal["aligned", "all"]]
    domain_from: NotRequired[Literal["item", "file"]]
    join: NotRequired[str]
    chat: NotRequired[bool]
    system: NotRequired[str | None]
    limit: NotRequired[int | None]
    cluster_by: NotRequired[str]
    preset: NotRequired[str | None]
    revision: NotRequired[str | None]
    layers: NotRequired[Sequence[int | str]]
    device: NotRequired[Literal["auto", "cpu", "cuda", "mps"]]
    dtype: NotRequired[Literal["auto", "float32", "bfloat16", "float16", "float64"]]
    quantize: NotRequired[Literal["none", "int8", "int4"]]
    position: NotRequired[Position | Sequence[Position]]
    noise_std: NotRequired[float]
    noise_mode: NotRequired[Literal["absolute", "relative"]]
    noise_draws: NotRequired[int]
    noise_sweep: NotRequired[Sequence[float]]
    logprob: NotRequired[Switch | bool]
    p_true: NotRequired[bool]
    trajectory: NotRequired[Switch | bool]
    analysis: NotRequired[Sequence[str]]
    seed: NotRequired[int]
    engine: NotRequired[Literal["local", "ray"]]
    workers: NotRequired[Literal["auto"] | int]
    address: NotRequired[str | None]
    strategy: NotRequired[Literal["packed", "batched", "sequential", "separate"]]
    batch_size: NotRequired[Literal["auto"] | int]
    batch_tokens: NotRequired[int | None]
    row_tokens: NotRequired[int | None]
    shard_pairs: NotRequired[int]
    max_quarantine: NotRequired[int | None]
    out: NotRequired[AnyPath | None]
    resume: NotRequired[AnyPath | None]
    keep_residuals: NotRequired[Switch | bool]
    fidelity: NotRequired[int]
    figures: NotRequired[bool]
    allow_unsound: NotRequired[bool]


def config_from(**options: Any) -> RunConfig:
    """A `RunConfig` from options by name, whichever part they belong to.

    Raises:
        TypeError: an option that does not exist.
        InputError: a value of the wrong type.
    """
    return _changed(RunConfig(), options)


def prepared(options: Mapping[str, Any], **own: Any) -> tuple[RunConfig, Given]:
    """A `RunConfig` and the objects that `model` and `sae` are, where they are no names.

    Args:
        options: as `Options`; with `resume`, those that are left out are the run's own.
        own: options that the call itself knows.

    Raises:
        TypeError: an option that does not exist.
        InputError: a value of the wrong type, or an object that is no model, tokenizer or SAE.
    """
    rest = dict(options)
    objects = (rest.pop(name, None) for name in ("model", "sae", "tokenizer"))
    named, given = named_and_given(*objects)
    return _changed(_started(rest), rest | named | own), given


def _started(options: Mapping[str, Any]) -> RunConfig:
    """What options that are left out have: the defaults, or what the run to be resumed was started with."""
    folder = options.get("resume")
    saved = saved_options(Path(folder).expanduser()) if isinstance(folder, str | PathLike) else None
    if saved is None:
        return RunConfig()
    # As on the command line: the file may be anybody's.
    if saved.engine.address not in (None, "auto") and "address" not in options:
        raise InputError(
            f"resume: its options name a Ray cluster; if it is yours, add address={saved.engine.address!r}"
        )
    if (code := saved.measure.analysis) and "analysis" not in options:
        raise InputError(f"resume: its options name an analysis, which is code; if it is yours, add analysis={code}")
    return saved


def _changed(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    options, parts = dict(options), dict[str, Any]()
    for part in fields(RunConfig):
        group = getattr(config, part.name)
        names = {field.name for field in fields(group)}
        chosen = {name: options.pop(name) for name in list(options) if name in names}
        parts[part.name] = with_values(group, chosen)
    if options:
        raise TypeError(f"unknown option {next(iter(options))!r}: expected a flag of `bluffscope analyze`")
    return RunConfig(**parts)


__all__ = ["Options", "config_from", "prepared"]
