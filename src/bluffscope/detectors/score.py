"""A kept detector at work: texts through the model and SAEs it was trained on, to the probability of hallucination."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.config import EngineOptions, OutputOptions, RunConfig, run_config
from bluffscope.detectors.files import Detector
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES, TRAJECTORY, Analysis
from bluffscope.model.load import choose_device
from bluffscope.pipeline.build import assemble_batched, load_parts
from bluffscope.pipeline.reload import refuse_others
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.pipeline.worker import Parts
from bluffscope.records import PAIRS, STATEMENTS, Arrangement, LabelledText, Pair, Shard, View, joined
from bluffscope.table.metric_pairs import metric_pairs
from bluffscope.table.schema import Column, table_columns

TEXTS_AT_ONCE: Final = 256
_CURE: Final = "say where those are with --model, --revision and --sae"
_DUMMY: Final = "x"
"""Stands for the completion of a text that has none: the text is the prompt, which is read at its own last token."""


@dataclass(frozen=True)
class Text:
    """What is scored: a text as a whole, or a prompt and its completion."""

    id: str
    """Seeds the noise of the stability metrics, as a pair's id does."""
    prompt: str
    completion: str | None = None


@dataclass(frozen=True)
class Score:
    """What the detector makes of a text."""

    logit: float | None
    """The linear score, in log odds before calibration; None where the text cannot be scored."""
    probability: float | None
    """Calibrated probability that the text is hallucinated; of a detector of tokens, that its highest token is."""
    reason: str | None = None
    """Why it cannot be scored."""
    alarm: bool | None = None
    """Whether it lies above the detector's threshold; None without one."""


@dataclass(frozen=True)
class Scorer:
    """A detector with its model and SAEs loaded."""

    detector: Detector
    worker: ShardWorker
    join: str

    def scores(self, texts: Iterable[Text]) -> Iterator[Score]:
        """The score of each text in turn; texts are measured `TEXTS_AT_ONCE` together."""
        waiting = iter(texts)
        while block := list(itertools.islice(waiting, TEXTS_AT_ONCE)):
            yield from self._scored(block)

    def _scored(self, texts: Sequence[Text]) -> Iterator[Score]:
        arrangement = self.detector.arrangement
        items = [_item(number, text, arrangement, self.join) for number, text in enumerate(texts)]
        with exclusive():
            frame = self.worker.run(Shard(0, tuple(items), ("",) * len(items), arrangement))
        whole: View = "text" if arrangement == STATEMENTS else "prompt"
        views = [whole if text.completion is None else arrangement.completions[0] for text in texts]
        if self.detector.by_token:
            logits = self._highest(frame)
        else:
            logits = self.detector.linear.scores(self._matrix(frame, views))
        probabilities = self.detector.calibration.probabilities(logits)
        for reason, logit, probability in zip(frame["_reason"], logits.tolist(), probabilities.tolist(), strict=True):
            if reason is not None:
                yield Score(None, None, reason)
            else:
                alarm = self.detector.alarm
                yield Score(logit, probability, alarm=None if alarm is None else logit > alarm.threshold)

    def _matrix(self, frame: pl.DataFrame, views: Sequence[str]) -> Any:
        """(text, column) of what the detector looks at; of texts that could not be measured, nothing."""
        keys = self.detector.keys
        if keys.on == "metrics":
            columns = {pair.name: pair.fact for pair in metric_pairs(frame.columns)}
            names = [columns.get(name, name) for name in keys.metrics]
            return frame.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy()
        asked = pl.DataFrame({"text": np.arange(len(views)), "view": views})
        kept = "_features" if keys.on == "sae" else "_residuals"
        long = frame.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("text"), kept).explode(kept).unnest(kept)
        long = long.join(asked, on=["text", "view"], how="inner")
        if keys.on == "sae":
            return keys.sparse(long, len(views))
        return keys.dense(long, len(views), len(self.detector.linear.weights))[0]

    def _highest(self, frame: pl.DataFrame) -> np.ndarray:
        """(text,) the score of each text's highest token; of texts that could not be measured, minus infinity."""
        keys, view = self.detector.keys, self.detector.arrangement.completions[0]
        text = pl.int_range(pl.len(), dtype=pl.Int64).alias("of_text")
        tokens = _entries(frame.select(text, "_tokens"), "_tokens")
        tokens = tokens.select("of_text", token="token_index").with_row_index("text")
        kept = "_token_features" if keys.on == "sae" else "_residuals"
        long = _entries(frame.select(text, kept), kept).filter(pl.col("view") == view)
        long = long.join(tokens, on=["of_text", "token"], how="inner").with_columns(pl.col("text").cast(pl.Int64))
        if keys.on == "sae":
            matrix = keys.sparse(long, tokens.height)
        else:
            matrix = keys.dense(long, tokens.height, len(self.detector.linear.weights))[0]
        found = np.full(frame.height, -np.inf)
        np.maximum.at(found, tokens["of_text"].to_numpy(), self.detector.linear.scores(matrix))
        return found


def _entries(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The entries of a list column, a row each."""
    return frame.explode(name, empty_as_null=False, keep_nulls=False).unnest(name)


def _item(number: int, text: Text, arrangement: Arrangement, join: str) -> Pair | LabelledText:
    """A text as an item of the training's run; its label and partner play no part."""
    completion = _DUMMY if text.completion is None else text.completion
    if arrangement == PAIRS:
        return Pair(number, text.id, "all", None, text.prompt, completion, completion)
    prompt = text.prompt
    if arrangement == STATEMENTS:
        whole = prompt if text.completion is None else joined(prompt, completion, join)
        prompt, completion = "", whole
    return LabelledText(number, text.id, True, "all", None, prompt, completion, arrangement=arrangement)


@exclusive()
def open_scorer(
    detector: Detector, *, model: str | None = None, sae: str | None = None, revision: str | None = None, device: str
) -> Scorer:
    """Load the model and SAEs that a detector was trained on, and see that they are these.

    Args:
        detector: read from its folder.
        model: where the model is, if no longer where it was.
        sae: where the SAEs are, likewise.
        revision: of the model on the hub.
        device: "auto" or a torch device; it need not be the one of the training.

    Raises:
        InputError: they cannot be loaded, or differ in revision, hashes or metric versions: saying in what.
    """
    stored = stored_config(detector, model=model, sae=sae, revision=revision, device=device)
    options = stored.model
    on = detector.keys.on
    config = replace(
        stored,
        model=options,
        measure=replace(stored.measure, p_true=False),  # a baseline, of which no detector knows
        engine=EngineOptions(shard_pairs=TEXTS_AT_ONCE),
        output=OutputOptions(keep_residuals="on" if on == "residual" else "off"),
    )
    analyses: tuple[Analysis, ...] = ()
    arrangement = detector.arrangement
    if on == "metrics":
        known = (item for item in (*ANALYSES, TRAJECTORY) if _measured(item, stored))
        analyses = tuple(item for item in known if "prompt" in arrangement.views or not item.needs_prompt)
    _refuse_versions(detector, _columns(config, stored.model.measured_layers, (*ANALYSES, TRAJECTORY), arrangement))
    parts = load_parts(config)
    refuse_parts(detector, parts)
    # loaded whole, so that its hash is that of the training; the head has done its part
    if config.measure.needs_head and TRAJECTORY not in analyses:
        body: Any = parts.model.network.base_model
        parts = replace(parts, model=replace(parts.model, network=body))
        config = replace(config, measure=replace(config.measure, logprob="off", trajectory="off"))
    worker = assemble_batched(
        config, parts, analyses, lambda layers: _columns(config, layers, analyses, arrangement), Stopwatch()
    )
    return Scorer(detector, worker, config.data.join)


def stored_config(
    detector: Detector, *, model: str | None, sae: str | None, revision: str | None, device: str
) -> RunConfig:
    """The options of the training's run, with model and SAEs where they are now.

    Raises:
        InputError: they are named nowhere, or the device is not there.
    """
    if detector.keys.given:
        raise InputError(f"{detector.path}: it was trained on vectors; score with detect score --activations FILE")
    where = str(detector.path / "detector.json")
    content: Mapping[str, Any] = {name: part or {} for name, part in detector.about["config"].items()}
    stored = run_config(content, where)
    options = replace(
        stored.model,
        model=model or stored.model.model,
        sae=sae or stored.model.sae,
        revision=revision or stored.model.revision,
        device=choose_device(device).type,
        preset=None,
    )
    if options.model is None or options.sae is None:
        raise InputError(f"{where} names no model and SAEs: give them with --model and --sae")
    return replace(stored, model=options)


def refuse_parts(detector: Detector, parts: Parts, cure: str = _CURE) -> None:
    """Refuse a model and SAEs that are not those of the training.

    Raises:
        InputError: saying what differs, and what to do.
    """
    refuse_others(detector.about, parts, f"the detector {detector.path}", cure)


def _measured(analysis: Analysis, config: RunConfig) -> bool:
    """Whether the training's run has made an analysis."""
    if analysis is TRAJECTORY:
        return config.measure.trajectory == "on"
    return config.model.has_saes or not analysis.needs_sae


def _columns(
    config: RunConfig, layers: tuple[int, ...], analyses: Sequence[Analysis], arrangement: Arrangement
) -> Sequence[Column]:
    names = [analysis.name for analysis in analyses]
    return table_columns(layers, config.measure.noise_sweep, analyses=names, arrangement=arrangement)


def _refuse_versions(detector: Detector, columns: Sequence[Column]) -> None:
    """Refuse metrics whose definition has changed since the training."""
    today = {column.name: column.version for column in columns}
    for name, version in detector.about["metric_versions"].items():
        if today.get(name) != version:
            raise InputError(
                f"{detector.path}: metric {name} was of version {version} and is of {today.get(name)}: train it again"
            )
