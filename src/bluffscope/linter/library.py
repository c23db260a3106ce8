"""The linter as a library call: pairs in, findings out; a model's tokens where one is named."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluffscope.config import DataOptions, TokenizerOptions, with_values
from bluffscope.config.presets import PRESETS, check_preset
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.linter import LintReport, lint_source
from bluffscope.pairs import open_source
from bluffscope.pairs.given import Pairs, write_pairs

if TYPE_CHECKING:
    from bluffscope.pipeline.plan import TextTokenizer


def lint(data: Pairs = "bluff200", **options: Any) -> LintReport:
    """Find what is wrong or doubtful with pairs: repeats, contradictions, and cues that need no knowledge.

    Neither torch nor transformers is imported unless a model is named.

    Args:
        data: a path, "bluff200", or the pairs themselves, as for `bluffscope.analyze`.
        **options: any option of `bluffscope lint` about data or tokens by its name with underscores: ``schema``,
            ``columns``, ``labels``, ``prompt_template``, ``pairing``, ``domain_from``, ``join``, ``limit``,
            ``cluster_by``, ``preset``, ``model``, ``revision``.

    Raises:
        InputError: options or files that cannot be used, in one line; rows that cannot be used are findings.
        TypeError: an option that does not exist.

    Example:
        >>> import bluffscope
        >>> bluffscope.lint().findings
        ()
    """
    names = {field.name for field in fields(TokenizerOptions)}
    chosen = {name: options.pop(name) for name in list(options) if name in names}
    if unknown := options.keys() - {field.name for field in fields(DataOptions)}:
        raise TypeError(f"unknown option {min(unknown)!r}: expected a flag of `bluffscope lint`")
    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        if not isinstance(data, str | Path):
            data = write_pairs(data, Path(scratch) / "pairs.jsonl")
        read = with_values(DataOptions(), {"data": str(data), **options})
        return lint_with(read, with_values(TokenizerOptions(), chosen))


@exclusive()
def lint_with(data: DataOptions, tokenizer: TokenizerOptions) -> LintReport:
    """`lint`, given its options.

    Raises:
        InputError: as `lint`.
    """
    source = open_source(data)
    name = _model_named(tokenizer)
    if name is None:
        return lint_source(source, join=data.join)
    texts = _tokenizer(name, tokenizer.revision, data)
    return lint_source(
        source, tokenize=texts.tokenize, tokenizer=name, join=texts.visible_join, plain=texts.plain_though_chat
    )


def _model_named(options: TokenizerOptions) -> str | None:
    check_preset(options.preset)
    name = options.model or (PRESETS[options.preset].model if options.preset is not None else None)
    if name is None and options.revision is not None:
        raise InputError("--revision without --model: name the model whose tokenizer is meant")
    return name


def _tokenizer(name: str, revision: str | None, data: DataOptions) -> TextTokenizer:
    # Torch and transformers take seconds to import, and the linter works without them.
    from bluffscope.host.chat import Chat
    from bluffscope.model.load import load_tokenizer
    from bluffscope.pipeline.plan import TextTokenizer

    loaded = load_tokenizer(name, revision)
    # Which token the model is fed first does not matter here: it is the same for every text.
    chat = Chat.of(name, loaded.tokenizer, data.system) if data.chat else None
    bos = None if chat is None else chat.bos
    return TextTokenizer(loaded.tokenizer, bos, "last", data.join, loaded.context, chat=chat)


__all__ = ["lint", "lint_with"]
