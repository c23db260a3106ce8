"""Options of the linter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bluffscope.config.options import DataOptions


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """Also lint with this model's tokenizer."""

    preset: str | None = None
    """Use the model of this preset; see bluffscope presets."""
    model: str | None = None
    """Hugging Face id or folder of a model; only its tokenizer is loaded."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""


@dataclass(frozen=True, kw_only=True)
class LintOutputOptions:
    """Output options."""

    format: Literal["text", "json"] = "text"
    """Print text, or one JSON object."""
    json: Path | None = None
    """Also write the full report to this file, as JSON."""


@dataclass(frozen=True, kw_only=True)
class LintConfig:
    """All options of `bluffscope lint`."""

    data: DataOptions = field(default_factory=DataOptions)
    """The pairs to lint."""
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    """Also lint with this model's tokenizer."""
    output: LintOutputOptions = field(default_factory=LintOutputOptions)
    """Output options."""
