"""Every option of a run, once: the command line, the manifest and `config.yaml` come from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which pairs are read, and how."""

    data: str = "bluff200"
    """Pairs: a .json, .jsonl, .csv or .parquet file, a folder of such files, or bluff200 (bundled)."""
    columns: tuple[str, ...] = ()
    """Names of the source's fields, as KEY=NAME: prompt=question fact=best_answer hallucination=wrong.
    KEY is one of id, domain, complexity, prompt, fact, hallucination."""
    domain_from: Literal["item", "file"] = "item"
    """Take the domain from each item's own field, or from the name of the file it stands in."""
    join: str = " "
    """Text between the prompt and a completion."""
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


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What is measured, and at which tokens."""

    position: Literal["last", "completion-mean"] = "last"
    """Read the last token of each text, or average the metrics over the completion's tokens."""
    noise_std: float = 0.1
    """Standard deviation s of the stability noise."""
    noise_mode: Literal["absolute", "relative"] = "absolute"
    """s in activation units, or relative to the root mean square of the residual."""
    noise_draws: int = 8
    """Noise draws a text; stability is their mean."""
    noise_sweep: tuple[float, ...] = ()
    """Further values of s, each with its own stability columns (a dose-response curve)."""
    seed: int = 0
    """Seed of the noise."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the work is cut up."""

    batch_size: Literal["auto"] | int = "auto"
    """Pairs a forward pass; auto fills a token budget."""
    batch_tokens: int | None = None
    """Distinct tokens a forward pass with --batch-size auto (default: by device)."""
    row_tokens: int | None = None
    """Slots of a packed row; attention costs grow with its square (default: by the model's width)."""
    shard_pairs: int = 1024
    """Pairs that are measured and committed together."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the results go."""

    out: Path | None = None
    """The run's own folder; it must not hold a run yet (default: runs/<utc time>-<name>)."""
    keep_residuals: bool = False
    """Also write residuals.parquet."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run of `bluffscope analyze`."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
