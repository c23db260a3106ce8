"""The health gate: every check that a run's worker and tables allow, in one list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from bluffscope.config import ModelOptions
from bluffscope.health.check import Check, Health, Severity, found
from bluffscope.health.company import Company
from bluffscope.health.fit import check_fit
from bluffscope.health.loaded_model import (
    FITTED,
    TEXTS,
    Activations,
    Subject,
    Traits,
    chosen_texts,
    fitted_texts,
    plain_forwards,
)
from bluffscope.health.reading import check_reading, check_tokens
from bluffscope.health.setup import check_setup
from bluffscope.health.table import check_table
from bluffscope.model import LanguageModel
from bluffscope.pairs import Source
from bluffscope.pipeline.worker import RunWorker
from bluffscope.records import Item, ItemT, Tokenized, spread

CANDIDATES = max(3 * TEXTS, FITTED)
"""Pairs that are tokenised to choose from."""
COMPANY = 1024
"""Most pairs that are tokenised to find those that shared the forward of the longest text."""


@dataclass(frozen=True)
class Sample:
    """Pairs of a run that are read again."""

    spread: Sequence[Item]
    """Evenly over the input."""
    company: Sequence[Item] = ()
    """The shard that the longest text was measured in; of a large one, that text's neighbours."""

    @classmethod
    def of_run(cls, source: Source, metrics: pl.DataFrame, shard_pairs: int) -> Sample:
        """Those of a finished run.

        Args:
            source: all that it was given.
            metrics: its table.
            shard_pairs: pairs of a shard.
        """
        arrangement = source.scan().arrangement
        tokens = pl.max_horizontal(f"{view}_tokens" for view in arrangement.completions)
        tokens += pl.col("prompt_tokens") if "prompt" in arrangement.views else 0
        longest = metrics.sort(tokens, descending=True)[arrangement.key].head(1).to_list()
        places = set(spread(source.scan().count, CANDIDATES))
        chosen, company = list[Item](), list[Item]()
        stream = enumerate(source.items())
        while shard := list(islice(stream, shard_pairs)):
            chosen += [pair for place, pair in shard if place in places]
            if (at := next((at for at, (_, pair) in enumerate(shard) if pair.id in longest), None)) is not None:
                start = max(0, min(at - COMPANY // 2, len(shard) - COMPANY))
                company = [pair for _, pair in shard[start : start + COMPANY]]
        return cls(chosen, company)


def sampled(pairs: Iterable[ItemT], count: int, wanted: int = CANDIDATES) -> list[ItemT]:
    """Pairs spread evenly over a stream of `count`."""
    places = set(spread(count, wanted))
    return [pair for place, pair in enumerate(islice(pairs, count)) if place in places]


@dataclass(frozen=True)
class Inspection:
    """What only a process that holds the model can tell; travels between processes."""

    checks: tuple[Check, ...]
    """Of a few texts read again."""
    traits: Traits | None = None
    """None where no process holds the model (any more)."""

    @classmethod
    def undone(cls, why: str) -> Inspection:
        """There was none."""
        return cls((_unchecked(why, "warning"),))


def inspect(
    worker: RunWorker, sample: Sample, whole: LanguageModel | None = None, *, thorough: bool = False
) -> Inspection:
    """Read a few texts again, in the process that measured.

    Args:
        worker: what measured the pairs. Where it holds no model (any more), that is noted.
        sample: some of the pairs.
        whole: the whole model, where it fits beside the run's: then the run's reading is held against it, and SAEs
            are tried at every layer. Else the blocks that the run loaded do.
        thorough: whether SAELens is imported to compare features with its own, and texts are read in the layout too
            that the run does not use.
    """
    subject = Subject.of(worker, whole)
    if subject is None:
        return Inspection((_unchecked("the model is not held any more; `bluffscope doctor` checks it"),))
    try:
        checks = tuple(_check_texts(subject, sample, thorough))
    except (MemoryError, RuntimeError) as error:  # the run is complete: what was measured must not be lost over this
        said = " ".join(str(error).split())[:200]
        checks = (_unchecked(f"the model failed on them ({said})", "warning"),)
    return Inspection(checks, Traits.of(subject))


def examine(
    options: ModelOptions,
    inspection: Inspection,
    metrics: pl.DataFrame,
    features: pl.LazyFrame,
    reasons: Mapping[str, int],
    *,
    identity: Mapping[str, Any],
    saes: Mapping[int, Mapping[str, Any]],
    allowed: bool = False,
) -> Health:
    """Check a run.

    Args:
        options: model, SAEs, device and dtype, resolved.
        inspection: of a worker of the run.
        metrics: the result table.
        features: pair_id, view, layer, feature, activation.
        reasons: how many pairs were quarantined for which reason.
        identity: the model's, as the manifest holds it.
        saes: of every layer's SAE.
        allowed: whether verdicts are given whatever is found.
    """
    reading, traits = inspection.checks, inspection.traits
    table = list(check_table(metrics, features, reasons, saes, None if traits is None else traits.bos_text))
    poor = [check.layer for check in (*reading, *table) if check.severity == "error" and check.layer is not None]
    setup = check_setup(options, identity, saes, traits, poor)
    return Health((*setup, *reading, *table), allowed)


def _check_texts(subject: Subject, sample: Sample, thorough: bool) -> Iterator[Check]:
    tokenized = _tokenized(subject, sample.spread)
    texts = chosen_texts(tokenized)
    plain = list(plain_forwards(subject, texts))
    if not plain:
        yield _unchecked("none of the pairs could be tokenised")
        return
    compared = {one.pair.index for one in plain}
    yield from check_tokens(subject, tokenized, plain)
    company = None if subject.worker is None else Company.of(subject.worker, _tokenized(subject, sample.company))
    read = [pair for pair in tokenized if pair.item.index in compared]
    yield from check_reading(subject, read, plain, company, both=thorough)
    if not subject.coders:
        return
    own, bos = plain[0].bos, subject.tokenizer.bos_token_id
    fitted = fitted_texts(tokenized, bos, plain)
    given = Activations.of(subject, fitted, bos=own, plain=plain)
    other = None if bos is None else Activations.of(subject, fitted, bos=not own, everywhere=False)
    yield from check_fit(subject, given, other, saelens=thorough)


def _tokenized(subject: Subject, pairs: Sequence[Item]) -> list[Tokenized[Item]]:
    return [pair for pair in subject.texts.tokenize(list(pairs)) if isinstance(pair, Tokenized)]


def _unchecked(why: str, severity: Severity = "note") -> Check:
    return found("reading and fit", severity, f"not done: {why}")
