"""Every option of a run, once: the command line, the manifest and `config.yaml` come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from bluffscope.config.layers import LayerSlice
from bluffscope.config.values import converted, described, from_value, short
from bluffscope.config.workers import WorkerOptions
from bluffscope.errors import InputError

Options = TypeVar("Options")
Switch = Literal["auto", "on", "off"]
"""Of an option that is on or off by what else is chosen; true and false stand for on and off."""
ONCE_TRUE_OR_FALSE = ("logprob", "keep_residuals")
"""Switches that older runs have as true and false: so they stand in the digest of what a run's results depend on."""
Position = Literal["last", "first-completion", "divergence", "completion-mean", "end-of-turn", "tokens"]
"""Where fact and hallucination are read (the prompt always at its last token); docs/definitions.md."""
READ_WHOLE: frozenset[Position] = frozenset({"completion-mean", "tokens"})
"""Positions at which every token of a completion is read, and metrics are means over them."""
Positions = Position | tuple[Position, ...]
"""One, or several: metrics and features are of the first, residuals of each."""
NO_SAE = "none"
"""What stands for SAEs where a model is measured without any."""
MOST_WHOLE = 2**31 - 1
"""The largest whole number that an option takes, but for those named here."""
MOST: Mapping[str, int] = {
    **dict.fromkeys(("fidelity", "gpus"), 1_000_000),
    **dict.fromkeys(("layers", "workers"), 10_000),
    **dict.fromkeys(("noise_draws", "sets"), 1_000),
    "seed": 2**32 - 1,
}


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which pairs are read, and how."""

    data: str = "bluff200"
    """A .json, .jsonl, .csv, .tsv or .parquet file (text also .gz or .zst), a folder of such, a dataset on the
    Hub (hf://datasets/OWNER/NAME[@REVISION][/PATH]), or the bundled bluff200."""
    schema: str = "auto"
    """Read a published data set by its name (see bluffscope schemas); auto recognises it by its fields."""
    columns: tuple[str, ...] = ()
    """Map fields, KEY=NAME (fact=answers[0]): id, domain, complexity, prompt, fact, hallucination; of labelled texts
    also completion, text, label, group and spans."""
    labels: tuple[str, ...] = ()
    """What a labelled text's label calls true and false: true=SUPPORTS false=REFUTES; others are left out."""
    prompt_template: str | None = None
    r"""Compose the prompt of fields: "{knowledge}\nQ: {question}\nA:"."""
    pairing: Literal["aligned", "all"] = "aligned"
    """Of lists of completions, pair the k-th with the k-th, the shorter side repeated, or all with all."""
    domain_from: Literal["item", "file"] = "item"
    """Take the domain from each item's domain field, or from its file's name."""
    join: str = "auto"
    """Text between prompt and completion; auto is one space, or none if there is white space already."""
    chat: bool = False
    """Make each prompt a conversation by the model's own chat template; the completion is what the assistant says."""
    system: str | None = None
    """Text of a system message in front of each conversation (with --chat)."""
    limit: int | None = None
    """Use only the first N pairs."""
    cluster_by: str = "both"
    """What makes pairs one group: the same prompt, the same completion, both, or the same value of a COLUMN of the
    data; answers of a closed set, such as yes and no, never do."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, its SAEs, and where they run."""

    preset: str | None = None
    """Model, SAEs and layers by one name, such as gemma-2-2b; see bluffscope presets (default: demo)."""
    model: str | None = None
    """Causal language model: a Hugging Face id, a folder or a GGUF file (default: the preset's)."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    sae: str | None = None
    """SAEs: a SAELens release (RELEASE, or RELEASE:ID with {layer} in ID), a folder with layer_K/ in it, or none."""
    layers: tuple[int | LayerSlice, ...] = ()
    """Layers to measure: numbers, slices as in Python (4:20:2), all, or spread for six evenly spaced (default: the
    preset's, all in the SAE folder, or all of the model with --sae none)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for the model; auto prefers CUDA, then MPS, then the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Precision of the model; auto is float32. SAEs and metrics always use float32 or higher."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Quantize the model's linear layers to 8 or 4 bits (extra `quant`; int4 requires CUDA)."""

    @property
    def has_saes(self) -> bool:
        """Whether anything is read through SAEs."""
        return self.sae != NO_SAE

    @property
    def measured_layers(self) -> tuple[int, ...]:
        """The layers of a run whose model is known: then they are all numbers."""
        return tuple(layer for layer in self.layers if not isinstance(layer, LayerSlice))


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What to measure, and at which tokens."""

    position: Positions = "last"
    """Read the last token of each text, the first of its completion, the first that differs between fact and
    hallucination, the one that closes the assistant's turn (with --chat), or average metrics over the completion;
    tokens also keeps each token of labelled texts with spans, for detect train. Of several, metrics and features are
    of the first, and residuals are kept of each."""
    noise_std: float = 0.1
    """Standard deviation of the noise for the stability metric."""
    noise_mode: Literal["absolute", "relative"] = "absolute"
    """Noise in activation units, or relative to the RMS of the residual."""
    noise_draws: int = 8
    """Noise draws per text; stability is their mean."""
    noise_sweep: tuple[float, ...] = ()
    """Additional noise levels, each with its own stability columns (a dose-response curve)."""
    logprob: Switch = "auto"
    """Also measure the log-probability of each completion; loads all layers and the LM head. auto is on where the model
    has an LM head and all of it fits into memory; the flag alone means on, --no-logprob off."""
    p_true: bool = False
    """Also ask the model whether each completion is true: P(True) of its answers True and False; loads all layers and
    the LM head."""
    trajectory: Switch = "auto"
    """Also measure what each layer predicts through the logit lens; loads all layers and the LM head. auto is on with
    --sae none; the flag alone means on, --no-trajectory off."""
    analysis: tuple[str, ...] = ()
    """Also measure your own analyses, FILE.py:NAME each; the files are Python and are run."""
    seed: int = 0
    """Seed for the noise."""

    def __post_init__(self) -> None:
        if not isinstance(self.position, str) and len(self.position) == 1:
            object.__setattr__(self, "position", self.position[0])  # one is written and compared as it always was

    @property
    def positions(self) -> tuple[Position, ...]:
        """All positions, in the order given."""
        return (self.position,) if isinstance(self.position, str) else self.position

    @property
    def first_position(self) -> Position:
        """The one of metrics and features."""
        return self.positions[0]

    @property
    def further_positions(self) -> tuple[Position, ...]:
        """Those of which only residuals are kept."""
        return self.positions[1:]

    @property
    def needs_head(self) -> bool:
        """Whether all of the model is needed, LM head included; of a run's options once they are resolved."""
        return self.scores_completions or self.p_true

    @property
    def scores_completions(self) -> bool:
        """Whether the completions' own tokens are predicted; of a run's options once they are resolved."""
        return self.logprob != "off" or self.trajectory == "on"


@dataclass(frozen=True, kw_only=True)
class EngineOptions(WorkerOptions):
    """How the work is done; every choice produces the same table."""

    strategy: Literal["packed", "batched", "sequential", "separate"] = "packed"
    """How texts are batched: token tries in packed rows, padded batches, one at a time, or one pass per analysis."""
    batch_size: Literal["auto"] | int = "auto"
    """Pairs per forward pass; auto fits as many as memory allows (see bluffscope doctor)."""
    batch_tokens: int | None = None
    """Distinct tokens per forward pass with --batch-size auto (default: by device, free memory and model)."""
    row_tokens: int | None = None
    """Length of a packed row; the cost of attention grows with its square (default: by the model's width)."""
    shard_pairs: int = 256
    """Pairs saved at a time; a stopped run resumes after the last saved shard."""
    max_quarantine: int | None = None
    """Stop once more than N pairs could not be measured; continue with --resume."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go."""

    out: Path | None = None
    """New folder for the run (default: runs/<utc time>-<name>)."""
    resume: Path | None = None
    """Continue the run in this folder with its own options; only missing or damaged parts are redone."""
    keep_residuals: Switch = "auto"
    """Also write residuals.parquet, which detectors need. auto does where they take at most 1 GB; the flag alone means
    on, --no-keep-residuals off."""
    fidelity: int = 0
    """Measure N pairs again in float32 and report what lower precision changed."""
    figures: bool = False
    """Also write the report's charts as PNG and SVG, in figures/."""
    allow_unsound: bool = False
    """Show verdicts (and exit with 0) even if the health gate fails; the report still opens with what is wrong."""


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """Predict a run instead of doing it; not part of a run's configuration."""

    dry_run: bool = False
    """Only predict tokens, operations, memory and time; nothing is measured or written."""
    gpus: int = 1
    """Number of GPUs of that kind."""
    gpu_kind: str | None = None
    """Also predict the time on this kind of GPU: h100, a100, l4, rtx4090, ..."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All options of a run of `bluffscope analyze`; what is left out is filled in when the run starts."""

    data: DataOptions = field(default_factory=DataOptions)
    """The pairs to measure."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """The model, its SAEs, and where they run."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    """What to measure, and at which tokens."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """How the work is done; every choice produces the same table."""
    output: OutputOptions = field(default_factory=OutputOptions)
    """Where results go."""


def run_config(content: Mapping[Any, Any], where: str) -> RunConfig:
    """The options of a run from what its config.yaml holds; whatever is left out keeps its default.

    Args:
        content: values by part (data, model, measure, engine, output) and option.
        where: put in front of messages.

    Raises:
        InputError: an unknown option, or a value of the wrong type.
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
            chosen[name] = converted(value, hints[name], from_value)
        except (TypeError, OverflowError) as error:
            raise InputError(f"{where}{name}: expected {described(hints[name])}, got {_shown(value)}") from error
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
        return short(repr(value))
    except ValueError:  # a whole number of more than 4,300 digits in it
        return "a number of thousands of digits"
