"""Every option of a run, once: the command line, the manifest and `config.yaml` come from here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from bluffscope.errors import InputError

Options = TypeVar("Options")
Position = Literal["last", "first-completion", "divergence", "completion-mean"]
"""Where fact and hallucination are read (the prompt always at its last token); docs/definitions.md."""
MOST_YAML = 1_000_000
MOST_DIGITS = 40
"""Of a whole number in a YAML file: far more than any option takes."""
MOST_WHOLE = 2**31 - 1
"""The largest whole number that an option takes, but for those named here."""
MOST: Mapping[str, int] = {
    "fidelity": 1_000_000,
    "gpus": 1_000_000,
    "layers": 10_000,
    "noise_draws": 1_000,
    "seed": 2**32 - 1,
    "sets": 1_000,
    "workers": 10_000,
}


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which pairs are read, and how."""

    data: str = "bluff200"
    """Pairs: a .json, .jsonl, .csv or .parquet file, a folder of such files, a dataset of the hub
    (hf://datasets/OWNER/NAME[@REVISION][/PATH]), or bluff200 (bundled)."""
    columns: tuple[str, ...] = ()
    """Names of the source's fields, as KEY=NAME: prompt=question fact=best_answer hallucination=wrong.
    KEY is one of id, domain, complexity, prompt, fact, hallucination."""
    domain_from: Literal["item", "file"] = "item"
    """Take the domain from each item's own field, or from the name of the file it stands in."""
    join: str = "auto"
    """Text between the prompt and a completion: auto is one space, or nothing where either has white space there."""
    limit: int | None = None
    """Use the first N pairs only."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model and SAEs are loaded, and where they run."""

    preset: str | None = None
    """Named set of model, SAEs and layers: demo (default), gemma-2-2b."""
    model: str | None = None
    """Hugging Face id or folder of a causal language model (default: the preset's)."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    sae: str | None = None
    """SAELens release (RELEASE, or RELEASE:ID with {layer} in ID) or a folder with layer_K/ in it."""
    layers: tuple[int, ...] = ()
    """Layers whose residual stream is measured (default: the preset's, or all that the SAE folder has)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs; auto takes CUDA, then MPS, then the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Precision of the model's weights and activations; auto is float32. SAEs and metrics never go below float32."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Weights of the model's linear layers as 8-bit or 4-bit integers (extra `quant`; int4 needs CUDA)."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What is measured, and at which tokens."""

    position: Position = "last"
    """Read each text's last token, its completion's first, the first in which fact and hallucination differ, or average
    the metrics over the completion's tokens."""
    noise_std: float = 0.1
    """Standard deviation s of the stability noise."""
    noise_mode: Literal["absolute", "relative"] = "absolute"
    """s in activation units, or relative to the root mean square of the residual."""
    noise_draws: int = 8
    """Noise draws a text; stability is their mean."""
    noise_sweep: tuple[float, ...] = ()
    """Further values of s, each with its own stability columns (a dose-response curve)."""
    logprob: bool = False
    """Also measure the log-probability of each completion: loads all layers and the LM head."""
    analysis: tuple[str, ...] = ()
    """Also measure analyses of your own, FILE.py:NAME each: the files are Python and are run (see per_read)."""
    seed: int = 0
    """Seed of the noise."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the work is done and cut up; every strategy gives the same table."""

    engine: Literal["local", "ray"] = "local"
    """Measure in this process, or with Ray on several cores, GPUs or machines (extra `ray`)."""
    workers: Literal["auto"] | int = "auto"
    """Processes of --engine ray, each with its own model: auto is one a GPU, or one for every 4 cores."""
    address: str | None = None
    """Ray cluster to use, HOST:PORT or auto (default: Ray is started on this machine)."""
    strategy: Literal["packed", "batched", "sequential", "separate"] = "packed"
    """Token tries in packed rows; padded batches; one text at a time; or one pass for each analysis."""
    batch_size: Literal["auto"] | int = "auto"
    """Pairs a forward pass; auto fills a token budget that fits the memory (see bluffscope doctor)."""
    batch_tokens: int | None = None
    """Distinct tokens a forward pass with --batch-size auto (default: by device, free memory and model)."""
    row_tokens: int | None = None
    """Slots of a packed row; attention costs grow with its square (default: by the model's width)."""
    shard_pairs: int = 256
    """Pairs that are measured and committed together."""
    max_quarantine: int | None = None
    """Stop the run once more than N pairs could not be measured; --resume goes on from there."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the results go."""

    out: Path | None = None
    """The run's own folder; it must not hold a run yet (default: runs/<utc time>-<name>)."""
    resume: Path | None = None
    """Go on with the run in this folder, with its own options: only what is missing or damaged is done."""
    keep_residuals: bool = False
    """Also write residuals.parquet."""
    fidelity: int = 0
    """Measure N pairs again in float32 and report what the run's precision changed."""
    figures: bool = False
    """Also write the report's charts as PNG and SVG, in figures/."""
    allow_unsound: bool = False
    """Give verdicts (and exit code 0) although the health gate failed; the report still opens with what is wrong."""


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """Whether a run is only foretold, and for which GPUs; no part of a run's configuration."""

    dry_run: bool = False
    """Print what the run would take (tokens, operations, memory, time) and do nothing else."""
    gpus: int = 1
    """With --dry-run and --gpu-kind: how many GPUs."""
    gpu_kind: str | None = None
    """With --dry-run: foretell the time on GPUs of this kind too: h100, a100, l4, rtx4090..."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run of `bluffscope analyze`: what may be left out is filled in when the run starts."""

    data: DataOptions = field(default_factory=DataOptions)
    """Which pairs."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """Which model and SAEs, and where they run."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    """What is measured, and at which tokens."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """How the work is done."""
    output: OutputOptions = field(default_factory=OutputOptions)
    """Where the results go."""


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """In whose tokens the linter looks at the pairs besides."""

    preset: str | None = None
    """Named set of model, SAEs and layers, for its model: demo, gemma-2-2b."""
    model: str | None = None
    """Hugging Face id or folder of a causal language model; only its tokenizer is loaded."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""


@dataclass(frozen=True, kw_only=True)
class LintOutputOptions:
    """What becomes of the findings."""

    format: Literal["text", "json"] = "text"
    """What is printed: text to read, or one JSON object."""
    json: Path | None = None
    """Also write the whole report as JSON into this file."""


@dataclass(frozen=True, kw_only=True)
class LintConfig:
    """All options of `bluffscope lint`."""

    data: DataOptions = field(default_factory=DataOptions)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    output: LintOutputOptions = field(default_factory=LintOutputOptions)


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a few lines can stand for more than any memory holds, and without endless digits.

    Python takes minutes for a number of a million digits, and refuses to print one of 4,301.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > MOST_DIGITS:
            problem = f"a whole number of {len(node.value):,} characters"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def read_yaml(text: str) -> Any:
    """The value of a YAML text of plain values.

    Raises:
        yaml.YAMLError: no YAML, an alias in it, nested too deeply, a value that is none of its tag, or longer than
            `MOST_YAML` characters.
    """
    if len(text) > MOST_YAML:
        raise yaml.YAMLError(f"longer than {MOST_YAML:,} characters")
    try:
        return yaml.load(text, _PlainLoader)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise yaml.YAMLError(f"a value that cannot be read ({type(error).__name__})") from error  # `!!bool x`


def run_config(content: Mapping[Any, Any], where: str) -> RunConfig:
    """The options of a run from what its config.yaml holds; whatever is left out keeps its default.

    Args:
        content: values by part (data, model, measure, engine, output) and option.
        where: put in front of messages.

    Raises:
        InputError: something in it is no option, or of another type.
    """
    config = RunConfig()
    known = [item.name for item in fields(config)]
    for part, values in content.items():
        if part not in known:
            raise InputError(f"{where}: unknown section {part!r}; expected some of {', '.join(known)}")
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: {part}: expected options and their values, one a line")
        named = {str(name): value for name, value in values.items()}
        config = replace(config, **{part: with_values(getattr(config, part), named, f"{where}: {part}.")})
    return config


def with_values(options: Options, values: Mapping[str, Any], where: str = "") -> Options:
    """A copy of one of the dataclasses above with some values replaced, each checked against its field's type.

    Args:
        options: the dataclass.
        values: by field name; a list may stand for a tuple, a path for text.
        where: put in front of a field's name in messages.

    Raises:
        InputError: there is no such field, or the value is of another type.
    """
    hints = get_type_hints(type(options))
    known = [item.name for item in fields(options)]  # pyright: ignore[reportArgumentType]
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}{name}: no such option in this version; expected some of {', '.join(known)}")
        try:
            chosen[name] = _of_type(value, hints[name])
        except (TypeError, OverflowError) as error:
            raise InputError(f"{where}{name}: expected {_described(hints[name])}, got {_shown(value)}") from error
        _refuse_endless(name, chosen[name], f"{where}{name}")
    return replace(options, **chosen)  # pyright: ignore[reportArgumentType, reportReturnType]


def refuse_endless(options: Any) -> None:
    """Refuse whole numbers that no run can want, in options and in whatever dataclasses they hold.

    Beyond these, memory, time or a library's 64 bits end, each with a message of its own or none.

    Args:
        options: a dataclass of options, or a tuple of such.

    Raises:
        InputError: one line that names the option and its limit.
    """
    if isinstance(options, tuple):
        for part in options:
            refuse_endless(part)
    elif is_dataclass(options):
        for item in fields(options):
            value = getattr(options, item.name)
            refuse_endless(value)
            _refuse_endless(item.name, value, f"--{item.name.replace('_', '-')}")


def _refuse_endless(name: str, value: Any, where: str) -> None:
    most = MOST.get(name, MOST_WHOLE)
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and not -most <= number <= most:
            raise InputError(f"{where}: expected a whole number of at most {most}, got {_shown(number)}")


def _shown(value: Any) -> str:
    """The beginning of what Python shows of a value."""
    try:
        shown = repr(value)
    except ValueError:  # a whole number of more than 4,300 digits in it
        return "a number of thousands of digits"
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _of_type(value: Any, hint: Any) -> Any:
    """The value as the type says, or TypeError."""
    kind = get_origin(hint)
    if kind in (Union, UnionType):
        for choice in get_args(hint):
            try:
                return _of_type(value, choice)
            except TypeError:
                continue
        raise TypeError
    if kind is tuple:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError
        return tuple(_of_type(item, get_args(hint)[0]) for item in value)
    if kind is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise TypeError
        return value
    return _plain(value, hint)


def _plain(value: Any, kind: Any) -> Any:
    if value is None or isinstance(value, bool) or kind in (NoneType, bool):
        if type(value) is kind:
            return value
    elif kind is int and isinstance(value, Integral):
        return int(value)
    elif kind is float and isinstance(value, Real):
        return float(value)
    # No path or name holds a NUL: the system calls would fail on it.
    elif kind in (str, Path) and isinstance(value, (str, PathLike)) and "\0" not in str(value):
        return kind(value)
    raise TypeError


def expectation(name: str, groups: Iterable[type] | None = None) -> str | None:
    """What an option takes, in words; None if there is no such option.

    Args:
        name: the option's field.
        groups: the dataclasses that are searched, those of a run unless given.
    """
    for group in get_type_hints(RunConfig).values() if groups is None else groups:
        if name in (hints := get_type_hints(group)):
            return _described(hints[name]).removesuffix(" or null")
    return None


def _described(hint: Any) -> str:
    kind = get_origin(hint)
    if kind in (Union, UnionType):
        return " or ".join(_described(choice) for choice in get_args(hint))
    if kind is tuple:
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        return f"a list of {plural[get_args(hint)[0]]}"
    if kind is Literal:
        return " or ".join(get_args(hint))
    names = {NoneType: "null", bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(hint, "a path")
