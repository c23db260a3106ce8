"""`bluffscope detect`: train a detector on a run, and score texts with it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.named_file import check_file
from bluffscope.cli.options import Command, CommandGroup
from bluffscope.cli.transfer import Sweep, Transfer
from bluffscope.cli.watch import Watch
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from bluffscope.detectors.files import Detector
    from bluffscope.detectors.score import Scorer
    from bluffscope.detectors.train import Source


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a detector on a run; save it if it beats length, text and log-probability alone. Needs no model.

    On a run with --position tokens it is a detector of tokens. Or on vectors that exist already: --activations with
    --labels.
    """

    run: tyro.conf.Positional[Path | None] = None
    """The folder of a run."""
    activations: Path | None = None
    """In place of a run: safetensors with a row a text, one tensor or one for each layer."""
    labels: Path | None = None
    """With --activations: CSV, JSONL or Parquet with label (true or false), and group, id, completion where known."""
    out: Path | None = None
    """New folder for the detector. It has to be given."""
    on: Literal["sae", "metrics", "residual"] = "sae"
    """Input of the detector: SAE features, the run's metrics, or residuals (analyze --keep-residuals)."""
    position: str | None = None
    """Read position of the residuals, of a run that has several (default: its first)."""
    where: tuple[str, ...] = ()
    """Train only on pairs or texts with these values, as COLUMN=VALUE: known=true; the others are a test set."""
    allow_weak: bool = False
    """Save it even if it does not beat the baselines."""
    allow_unsound: bool = False
    """Train even if the run failed its health gate."""
    alpha: float | None = None
    """Also keep a threshold that at most this share of true texts exceeds (0.05), calibrated on half of the groups."""
    seed: int = 0
    """Seed for folds."""

    def execute(self) -> int:
        """Fit, judge, save; 1 where it was not good enough to be saved."""
        out = self._checked()
        # Polars, scipy and scikit-learn take seconds to import: --help and a mistyped flag should not.
        from bluffscope.detectors.files import check_new, write_detector
        from bluffscope.detectors.tokens import train_tokens
        from bluffscope.detectors.train import train
        from bluffscope.features.selection import items_of, matching
        from bluffscope.report.detector_card import card
        from bluffscope.report.detectors import render_trained, verdict
        from bluffscope.table.atomic import table_errors
        from bluffscope.table.reader import Run

        check_new(out)
        source = self._source()
        on = self.on if isinstance(source, Run) else "residual"
        try:
            with table_errors(source.path):
                chosen = matching(items_of(source) if isinstance(source, Run) else source.items, self.where)
                if isinstance(source, Run) and source.by_token:
                    trained = train_tokens(source, chosen, on, self.seed, self.alpha)
                else:
                    trained = train(source, chosen, on, self.seed, self.alpha, self.position)
        except InputError as error:
            raise InputError(f"{source.path}: {error}") from error
        console = output_console()
        console.print(render_trained(trained, self.where))
        if not trained.beats and not self.allow_weak:
            console.say(f"Not saved: {verdict(trained)}. --allow-weak saves it anyway.", style="bold red")
            return exit_codes.FAILED
        page = card(out.name, trained, source, self.where)
        paths = write_detector(out, trained, source, self.where, page)
        console.say(f"Detector: {paths[0]}, {paths[1].name}, README.md")
        return exit_codes.DONE

    def _checked(self) -> Path:
        """The folder for the detector, once all that is needed is there."""
        missing: list[str] = []
        if self.run is None and self.activations is None:
            missing.append("the folder of a run, or --activations FILE with --labels FILE")
        if self.out is None:
            missing.append("--out DIR, a new folder for the detector")
        if missing or self.out is None:
            raise InputError(f"give {'; and '.join(missing)}; see bluffscope detect train --help")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a number from 0")
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise InputError(f"--alpha {self.alpha:g}: give a share between 0 and 1, such as 0.05")
        if (self.run is not None) == (self.activations is not None) or (self.activations is None) != (
            self.labels is None
        ):
            raise InputError("give the folder of a run, or --activations FILE with --labels FILE, and not both")
        if self.activations is not None and self.on == "metrics":
            raise InputError("--on metrics: with --activations there is nothing to look at but these")
        if self.activations is not None and self.position is not None:
            raise InputError(f"--position {self.position}: vectors that are given were read already; leave it out")
        return self.out

    def _source(self) -> Source:
        """The run, or the vectors and their labels."""
        # As slow as in `execute`.
        from bluffscope.detectors.vectors import Given
        from bluffscope.table.health import read_health
        from bluffscope.table.reader import read_run

        if self.activations is not None and self.labels is not None:
            return Given.read(self.activations, self.labels)
        assert self.run is not None  # `_checked` has seen to it
        run = read_run(self.run)
        failures = read_health(run.manifest).withheld
        if failures and not self.allow_unsound:
            raise InputError(
                f"{self.run} failed its health gate ({failures[0]}); see bluffscope doctor, or --allow-unsound"
            )
        if run.read_at(self.position) == "divergence":
            others = [position for position in run.positions if position != "divergence"]
            cure = f"give --position {others[0]} --on residual" if others else "run analyze with another --position"
            raise InputError(
                f"{self.run} was measured at --position divergence, which a single text does not have; {cure}"
            )
        return run


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
    activations: Path | None = None
    """Safetensors with a row a text, as in detect train --activations: prints a JSON object a row."""
    out: Path | None = None
    """File for the lines of --data with probability and logit added, or of --activations (default: standard output)."""
    model: str | None = None
    """The model, if it has moved since training."""
    sae: str | None = None
    """The SAEs, if they have moved since training."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for the model."""

    def execute(self) -> int:
        """Score, print or write; 3 where a text could not be scored."""
        self._check()
        from bluffscope.detectors.files import read_detector

        detector = read_detector(self.detector)
        if self.text and detector.pairs_only:
            raise InputError(f"--text: this detector {detector.pairs_only}; give --prompt and --completion")
        if self.activations is not None:
            return self._vectors(detector, self.activations)
        from bluffscope.detectors.score import open_scorer  # torch: seconds that a mistyped flag should not take

        with messages_on(message_console()):
            scorer = open_scorer(detector, model=self.model, sae=self.sae, revision=self.revision, device=self.device)
            if self.data is not None:
                from bluffscope.detectors.score_file import score_file

                return score_file(scorer, self.data, self.out, whole_texts=not detector.pairs_only)
            return self._given(scorer)

    def _check(self) -> None:
        pair = self.prompt is not None or self.completion is not None
        if pair and (self.prompt is None or self.completion is None):
            raise InputError("--prompt and --completion: give both")
        if bool(self.text) + pair + (self.data is not None) + (self.activations is not None) != 1:
            raise InputError("give one of --text, --prompt with --completion, --data, and --activations")
        if self.out is not None and self.data is None and self.activations is None:
            raise InputError("--out: only with --data or --activations")
        check_file("--out", self.out)

    def _vectors(self, detector: Detector, path: Path) -> int:
        """Score vectors that exist already."""
        from bluffscope.detectors.vectors import scored_vectors
        from bluffscope.table.atomic import write_bytes

        lines = "".join(f"{json.dumps(row)}\n" for row in scored_vectors(detector, path))
        if self.out is not None:
            write_bytes(self.out, lines.encode())
        else:
            sys.stdout.write(lines)
        return exit_codes.DONE

    def _given(self, scorer: Scorer) -> int:
        """Score the texts on the command line."""
        from bluffscope.detectors.score import Text
        from bluffscope.records import joined

        texts = [Text(str(number), text) for number, text in enumerate(self.text)]
        if self.prompt is not None:
            texts = [Text("0", self.prompt, self.completion)]
        console = output_console()
        failed = False
        for text, found in zip(texts, scorer.scores(texts), strict=True):
            failed |= found.reason is not None
            whole = text.prompt if text.completion is None else joined(text.prompt, text.completion, scorer.join)
            scored = f"not scored ({found.reason}):" if found.probability is None else f"{found.probability:.3f}"
            console.say(f"{scored}{' ALARM' if found.alarm else ''} {json.dumps(whole, ensure_ascii=False)}")
        return exit_codes.QUARANTINED if failed else exit_codes.DONE


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a detector's linear weights as one safetensors file, to be applied without Bluffscope."""

    detector: tyro.conf.Positional[Path]
    """The folder of a detector, from bluffscope detect train."""
    out: Path
    """New file (.safetensors)."""

    def execute(self) -> int:
        """Read, write."""
        from bluffscope.detectors.export import export
        from bluffscope.detectors.files import read_detector

        output_console().say(f"Weights: {export(read_detector(self.detector), self.out)}")
        return exit_codes.DONE


COMMAND = CommandGroup(
    "Train a detector on a run; score texts with one, also while the model writes; see what carries over.",
    {"train": Train, "score": Score, "watch": Watch, "export": Export, "sweep": Sweep, "transfer": Transfer},
)
