"""`bluffscope study`: ask a model, and find out whether anything inside tells its right from its wrong answers."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.ask import Answered, answered, print_known
from bluffscope.cli.brief import print_brief
from bluffscope.cli.console import message_console, messages_on, output_console
from bluffscope.cli.health import exit_code, print_findings
from bluffscope.cli.options import Command, ScreenOptions
from bluffscope.cli.progress import shown_progress
from bluffscope.cli.report import reported
from bluffscope.config import (
    NO_SAE,
    AskOptions,
    DataOptions,
    EngineOptions,
    MeasureOptions,
    ModelOptions,
    OutputOptions,
    QuestionOptions,
    RunConfig,
    StudyOptions,
    WorkerOptions,
)
from bluffscope.config.layers import SPREAD, LayerSlice
from bluffscope.errors import BluffscopeError, InputError, RunStopped
from bluffscope.host.terminal import count
from bluffscope.table.health import outcome

if TYPE_CHECKING:
    from bluffscope.api import CompletedRun
    from bluffscope.runs.ask.verdicts import Answer

_FEW: Final = "nothing inside can be told from so few"


@dataclass(frozen=True, kw_only=True)
class Study(Command):
    """Ask a model questions with known answers, and test whether anything inside tells its right from its wrong ones.

    Asks, judges, measures the answers, tests them, fits detectors and writes the report, all into one folder. Run again
    with the same options, it goes on where it stopped. Labels that you correct in answers.jsonl are kept, and what
    depends on them is made again.
    """

    questions: tyro.conf.Positional[str]
    """A file, folder or dataset of the Hub with questions and right answers, as for bluffscope ask; or the bundled
    bluffqa."""
    out: Path | None = None
    """Folder of the study (default: runs/study-MODEL-QUESTIONS)."""
    reading: QuestionOptions = field(default_factory=QuestionOptions)
    """How questions are read, and answers judged."""
    asking: AskOptions = field(default_factory=AskOptions)
    """The model, and how it is asked."""
    measuring: StudyOptions = field(default_factory=StudyOptions)
    """How the answers are measured."""
    engine: WorkerOptions = field(default_factory=WorkerOptions)
    """Where the model is asked, and its answers are measured."""
    screen: ScreenOptions = field(default_factory=ScreenOptions)
    """How much is printed."""

    def execute(self) -> int:
        """Ask, judge, measure, test, report; print what came out."""
        self.screen.check()
        if self.asking.model is None:
            raise InputError("give --model: the model that is asked and looked into")
        self.asking.check()
        folder = (self.out or self._named()).expanduser()
        console = output_console()
        with messages_on(message_console(), notes=not self.screen.quiet):
            found = self._answers(folder)
        if self.screen.full or self.screen.verbose:
            print_known(found, console, self.screen)
        _refuse_too_few(found.answers, folder)
        result = self._measured(folder)
        report = reported(result.path, self.screen, detectors=True)
        if self.screen.quiet:
            console.say(str(report.path))
        elif self.screen.full:
            console.say("", report.answer.headline, style="bold")
            console.say("", *report.answer.own, "")
            console.say(self._where(result.path))
            print_findings(console, result.manifest["health"])
            console.say(outcome(result.manifest["health"]), f"Report: {report.path}", *_next(folder))
        else:
            if self.screen.verbose:
                console.say("", *report.answer.own, "", self._where(result.path))
                print_findings(console, result.manifest["health"])
            kept = [f"{count(found.kept, 'label')} by hand kept."] if found.kept and not self.screen.verbose else []
            print_brief(console, report.answer, f"Report: {report.path}", first=kept)
        from bluffscope.table.health import read_health

        quarantined = exit_codes.QUARANTINED if result.merged.quarantined else exit_codes.DONE
        return exit_code(read_health(result.manifest)) or quarantined or found.exit_code

    def _named(self) -> Path:
        """The folder of this model and these questions."""
        parts = (Path(str(self.asking.model)).name, Path(self.questions).name.split(".")[0])
        named = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") for part in parts)
        return Path("runs") / f"study-{named[:80]}"

    def _answers(self, folder: Path) -> Answered:
        """The judged answers: those in the folder, or the model is asked."""
        # Polars takes half a second to import: --help and a mistyped flag should not.
        from bluffscope.runs.ask.record import ANSWERS, answers_there, record_of, write_record
        from bluffscope.runs.ask.verdicts import given_again
        from bluffscope.runs.options import check_out
        from bluffscope.table.atomic import make_folder

        file = folder / ANSWERS
        check_out(None if file.exists() else folder)  # somebody else's run stays as it is
        try:
            return answered(
                self.questions,
                self.reading,
                self.asking,
                self.engine,
                file,
                lambda questions: (
                    given_again(file)
                    if answers_there(folder, record_of(self.asking, questions))
                    else make_folder(folder)
                ),
                lambda questions: write_record(folder, record_of(self.asking, questions)),
                quiet=self.screen.quiet,
            )
        except BluffscopeError:
            with contextlib.suppress(OSError):  # where nothing is in it
                folder.rmdir()
            raise

    def _where(self, folder: Path) -> str:
        """Where it was measured, and how to change what was chosen for lack of a choice."""
        from bluffscope.table.reader import read_run

        layers = " ".join(map(str, read_run(folder).config["model"]["layers"]))
        without = self.measuring.sae == NO_SAE
        more = " (--layers all takes all)" if without and not self.measuring.layers else ""
        return f"Measured at layers {layers}{more}{', without SAEs (--sae)' if without else ''}"

    def _config(self, folder: Path) -> RunConfig:
        """The options of the run over the answers; what asking and measuring share is what the model was asked with."""
        from bluffscope.runs.ask.record import ANSWERS

        ask, chosen = self.asking, self.measuring
        layers = chosen.layers or (() if chosen.sae != NO_SAE else (LayerSlice(SPREAD),))
        return RunConfig(
            data=DataOptions(data=str((folder / ANSWERS).resolve()), chat=ask.chat, system=ask.system),
            model=ModelOptions(
                model=ask.model,
                revision=ask.revision,
                device=ask.device,
                dtype=ask.dtype,
                sae=chosen.sae,
                layers=layers,
            ),
            measure=MeasureOptions(position=chosen.position, logprob="on", p_true=True, seed=ask.seed),
            engine=EngineOptions(**vars(self.engine)),
            output=OutputOptions(keep_residuals="on", allow_unsound=chosen.allow_unsound),
        )

    def _measured(self, folder: Path) -> CompletedRun:
        """The run over the answers: new, gone on with, or made anew from an earlier one where labels changed."""
        messages = message_console()
        with shown_progress(messages, quiet=self.screen.quiet) as progress:
            # Torch and polars take seconds to import: the bar moves by then.
            from bluffscope.api import run
            from bluffscope.host.hub import downloads_reported
            from bluffscope.pairs import open_source
            from bluffscope.runs.earlier import drop_earlier, prepare

            downloads = downloads_reported(progress.tell) if progress.moves else nullcontext()
            with messages_on(messages, once=True, notes=not self.screen.quiet), downloads:
                config = self._config(folder)
                state = prepare(folder, Path(config.data.data), open_source(config.data).scan().digest)
                place = {"resume": folder} if state.resume else {"out": folder}
                config = replace(config, output=replace(config.output, **place))
                try:
                    result = run(config, progress=progress, tell=progress.tell, draw=False, earlier=state.earlier)
                except RunStopped as stop:
                    raise RunStopped(stop.signal_number, "the same bluffscope study command") from stop
                drop_earlier(folder)
        return result


def _refuse_too_few(answers: Sequence[Answer], folder: Path) -> None:
    """Refuse answers of which nothing could come: the model knows next to nothing, or nearly everything."""
    from bluffscope.detectors.folds import FEWEST_OF_A_LABEL
    from bluffscope.runs.ask.record import ANSWERS

    kept = f"the answers are kept in {folder / ANSWERS}"
    if not any(answer.label is not None for answer in answers):
        raise InputError(f"no answer is right or wrong: all decline or are empty; ask otherwise (--chat?); {kept}")
    for label, name, other in ((True, "right", "easier"), (False, "wrong", "harder")):
        number = len({answer.group for answer in answers if answer.label is label})
        if number < FEWEST_OF_A_LABEL:
            raise InputError(
                f"{number or 'no'} question{'s' * (number > 1)} with a {name} answer, fewer than "
                f"{FEWEST_OF_A_LABEL}: {_FEW}; ask more, or {other} ones; {kept}"
            )


def _next(folder: Path) -> list[str]:
    """What to do next."""
    named = shlex.quote(str(folder))
    return [
        f"Next: correct labels in {folder / 'answers.jsonl'} and run this again;",
        f"  bluffscope detect train {named} --on residual --out DETECTOR",
        f"  bluffscope compare PAIRS_RUN {named}  (does what separates somebody's sentences separate these?)",
    ]


COMMAND = Study
