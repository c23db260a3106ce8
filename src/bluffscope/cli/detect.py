"""`bluffscope detect`: train a detector on a run, and score texts with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.options import Command, CommandGroup
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from bluffscope.detectors.score import Score as Scored
    from bluffscope.detectors.score import Scorer


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a detector on a run; save it if it beats length, text and log-probability alone. Needs no model."""

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    out: Path
    """New folder for the detector."""
    on: Literal["sae", "metrics", "residual"] = "sae"
    """Input of the detector: SAE features, the run's metrics, or residuals (analyze --keep-residuals)."""
    where: tuple[str, ...] = ()
    """Train only on pairs with these values, as COLUMN=VALUE: known=true; the others are a test set."""
    allow_weak: bool = False
    """Save it even if it does not beat the baselines."""
    allow_unsound: bool = False
    """Train even if the run failed its health gate."""
    seed: int = 0
    """Seed for folds and bootstrap."""

    def execute(self) -> int:
        """Fit, judge, keep."""
        return train(self)


@dataclass(frozen=True, kw_only=True)
class Score(Command):
    """Score texts: the probability that each is hallucinated, with the detector's own model and SAEs."""

    detector: tyro.conf.Positional[Path]
    """The folder of a detector, from bluffscope detect train."""
    text: tuple[str, ...] = ()
    """Texts to score, each at its last token."""
    prompt: str | None = None
    """A prompt, together with --completion; both are joined as in training."""
    completion: str | None = None
    """The completion to score."""
    data: Path | None = None
    """JSONL file to score: objects with text, or with prompt and completion; - reads standard input."""
    out: Path | None = None
    """File for the lines of --data with probability and logit added (default: standard output)."""
    model: str | None = None
    """The model, if it has moved since training."""
    sae: str | None = None
    """The SAEs, if they have moved since training."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for the model."""

    def execute(self) -> int:
        """Score, print or write."""
        return score(self)


def train(options: Train) -> int:
    """Fit, judge, keep; 1 where it was not good enough to be kept."""
    # Polars, scipy and scikit-learn take seconds to import: --help and a mistyped flag should not.
    from bluffscope.detectors.files import check_new, write_detector
    from bluffscope.detectors.train import train as fit
    from bluffscope.features.selection import matching, pairs_of
    from bluffscope.report.training import render_trained, verdict
    from bluffscope.table.atomic import table_errors
    from bluffscope.table.health import read_health
    from bluffscope.table.reader import read_run

    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give a number from 0")
    check_new(options.out)
    run = read_run(options.run)
    failures = read_health(run.manifest).withheld
    if failures and not options.allow_unsound:
        raise InputError(
            f"{options.run} failed its health gate ({failures[0]}); see bluffscope doctor, or --allow-unsound"
        )
    measure = run.config.get("measure")
    if isinstance(measure, dict) and measure.get("position") == "divergence":
        raise InputError(
            f"{options.run} was measured at --position divergence, which a single text does not have; "
            "run analyze with another --position"
        )
    pairs = pairs_of(run.metrics, run.pairs if (run.path / "pairs.parquet").exists() else None)
    try:
        with table_errors(run.path):
            trained = fit(run, matching(pairs, options.where), options.on, options.seed)
    except InputError as error:
        raise InputError(f"{options.run}: {error}") from error
    console = output_console()
    console.print(render_trained(trained, options.where))
    if not trained.beats and not options.allow_weak:
        console.say(f"Not saved: {verdict(trained)}. --allow-weak saves it anyway.", style="bold red")
        return exit_codes.FAILED
    paths = write_detector(options.out, trained, run, options.where)
    console.say(f"Detector: {paths[0]}, {paths[1].name}")
    return exit_codes.DONE


def score(options: Score) -> int:
    """Score texts; 3 where some of a file's could not be scored."""
    _check_asked(options)
    from bluffscope.detectors.files import read_detector

    detector = read_detector(options.detector)
    position = detector.position
    if options.text and (detector.keys.on == "metrics" or position != "last"):
        why = "looks at metrics of prompt and completion" if position == "last" else f"reads at {position}"
        raise InputError(f"--text: this detector {why}; give --prompt and --completion")
    from bluffscope.detectors.score import open_scorer  # torch: seconds that a mistyped flag should not take

    with messages_on(message_console()):
        scorer = open_scorer(
            detector, model=options.model, sae=options.sae, revision=options.revision, device=options.device
        )
        if options.data is not None:
            from bluffscope.detectors.score_file import score_file

            return score_file(scorer, options.data, options.out, whole_texts=position == "last")
        return _given(scorer, options)


def _check_asked(options: Score) -> None:
    pair = options.prompt is not None or options.completion is not None
    if pair and (options.prompt is None or options.completion is None):
        raise InputError("--prompt and --completion: give both")
    if bool(options.text) + pair + (options.data is not None) != 1:
        raise InputError("give one of --text, --prompt with --completion, and --data")
    if options.out is not None and options.data is None:
        raise InputError("--out: only with --data")
    if options.out is not None and (options.out.is_dir() or not options.out.absolute().parent.is_dir()):
        raise InputError(
            f"--out {options.out}: {'a folder' if options.out.is_dir() else 'no such folder'}; give a file"
        )


def _given(scorer: Scorer, options: Score) -> int:
    """Score what stands on the command line."""
    from bluffscope.detectors.score import Text
    from bluffscope.records import joined

    texts = [Text(str(number), text) for number, text in enumerate(options.text)]
    if options.prompt is not None:
        texts = [Text("0", options.prompt, options.completion)]
    console = output_console()
    failed = False
    for text, found in zip(texts, scorer.scores(texts), strict=True):
        failed |= found.reason is not None
        whole = text.prompt if text.completion is None else joined(text.prompt, text.completion, scorer.join)
        console.say(_line(found, whole))
    return exit_codes.QUARANTINED if failed else exit_codes.DONE


def _line(found: Scored, text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)
    if found.probability is None:
        return f"not scored ({found.reason}): {shown}"
    return f"{found.probability:.3f} {shown}"


COMMAND = CommandGroup(
    "Train a detector on a run, or score texts with one.",
    {"train": Train, "score": Score},
)
__all__ = ["COMMAND", "Score", "Train", "score", "train"]
