"""`bluffscope ask`: judge a model's answers to questions, and make labelled texts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.named_file import check_file
from bluffscope.cli.options import Command, ScreenOptions
from bluffscope.cli.progress import shown_progress
from bluffscope.config import AskOptions, QuestionOptions, WorkerOptions
from bluffscope.errors import InputError
from bluffscope.host.terminal import count, table

if TYPE_CHECKING:
    from bluffscope.runs.ask.generate import Replies
    from bluffscope.runs.ask.questions import Question
    from bluffscope.runs.ask.verdicts import Answer, Given

    GivenTo = Callable[[Sequence[Question]], Mapping[str, Given] | None]

SHOWN_DOMAINS = 6


class Answered(NamedTuple):
    """Judged answers, as they were written."""

    answers: list[Answer]
    kept: int
    """Labels by hand among them."""
    replies: Replies | None
    """What the model answered; None where answers were given."""

    @property
    def exit_code(self) -> int:
        """3 where a question could not be asked."""
        left_out = self.replies is not None and self.replies.left_out
        return exit_codes.QUARANTINED if left_out else exit_codes.DONE


@dataclass(frozen=True, kw_only=True)
class Ask(Command):
    """Ask a model questions with known answers, or judge answers from elsewhere; writes labelled texts for analyze.

    Labels that you correct in the file are kept when the command runs again. A run that was stopped goes on where it
    was when it is given the same options.
    """

    questions: tyro.conf.Positional[str]
    """A file, folder or dataset of the Hub with questions and right answers: PopQA, SimpleQA, TriviaQA, TruthfulQA,
    the bundled bluffqa, or the fields question and answers (also aliases, id, domain)."""
    answers: Path | None = None
    """Judge these answers and ask nothing: JSON lines of a chat API, of a batch, or of vLLM; or the fields id (or
    question) and answer. Several answers to a question are samples."""
    out: Path
    """File of the judged answers (.jsonl)."""
    reading: QuestionOptions = field(default_factory=QuestionOptions)
    """How questions are read, and answers judged."""
    asking: AskOptions = field(default_factory=AskOptions)
    """The model, and how it is asked."""
    engine: WorkerOptions = field(default_factory=WorkerOptions)
    """Where the model is asked."""
    screen: ScreenOptions = field(default_factory=ScreenOptions)
    """How much is printed."""

    def execute(self) -> int:
        """Read, judge, write; print what the model knows."""
        self.screen.check()
        check_file("--out", self.out)
        if self.out.suffix.lower() not in (".jsonl", ".ndjson"):
            raise InputError(f"--out {self.out}: expected a name that ends in .jsonl")
        if (self.answers is None) == (self.asking.model is None):
            raise InputError("give --model, to ask it, or --answers FILE, to judge what was generated elsewhere")
        quiet = self.screen.quiet
        with messages_on(message_console(), notes=not quiet):
            found = answered(
                self.questions, self.reading, self.asking, self.engine, self.out, self._elsewhere, quiet=quiet
            )
        console = output_console()
        if quiet:
            console.say(str(self.out))
            return found.exit_code
        print_known(found, console, self.screen)
        console.say(f"Written to {self.out}. Next: bluffscope analyze --data {self.out}")
        return found.exit_code

    @property
    def _elsewhere(self) -> GivenTo | None:
        """Reads answers that were generated elsewhere, where some are given."""
        if (path := self.answers) is None:
            return None
        from bluffscope.runs.ask.answers import read_answers
        from bluffscope.runs.ask.verdicts import Given

        return lambda questions: {name: Given(some) for name, some in read_answers(path, questions).items()}


def answered(
    data: str,
    reading: QuestionOptions,
    asking: AskOptions,
    where: WorkerOptions,
    out: Path,
    given_to: GivenTo | None = None,
    asked_all: Callable[[Sequence[Question]], None] | None = None,
    *,
    quiet: bool = False,
) -> Answered:
    """Read questions, put them to the model, judge its answers and write them; labels by hand in the file are kept.

    Args:
        data: the questions.
        reading: how they are read, and answers judged.
        asking: the model, and how it is asked.
        where: it is asked.
        out: file of the judged answers.
        given_to: gives answers that are there already; where it gives None, the model is asked.
        asked_all: called with all questions once the model has answered them, before the file is written.
        quiet: whether no progress is shown.
    """
    # Polars takes half a second to import: --help and a mistyped flag should not.
    from bluffscope.runs.ask.own import judge_of
    from bluffscope.runs.ask.questions import read_questions
    from bluffscope.runs.ask.verdicts import Given, corrected, judged, with_corrections, write_answers

    judge = judge_of(reading.judge)
    by_hand = corrected(out)
    questions = read_questions(data, reading.schema, reading.columns, reading.limit)
    replies = None
    given = None if given_to is None else given_to(questions)
    if given is None:
        replies = _asked(asking, where, questions, out, quiet=quiet)
        if asked_all is not None:
            asked_all(questions)
        questions = questions[asking.shots :]
        given = {
            name: Given([one.text for one in some], replies.prompts[name], [one.logprob for one in some])
            for name, some in replies.kept.samples.items()
        }
    found = [
        answer
        for question in questions
        if (said := given.get(question.id)) is not None
        for answer in judged(
            question,
            said.texts,
            [judge(question.text, text, question.golds) for text in said.texts],
            prompt=said.prompt,
            logprobs=said.logprobs,
        )
    ]
    answers, kept = with_corrections(found, by_hand)
    write_answers(out, answers)
    if replies is not None:
        replies.kept.remove()
    return Answered(answers, kept, replies)


def _asked(options: AskOptions, where: WorkerOptions, questions: list[Question], out: Path, *, quiet: bool) -> Replies:
    """What the model answers to the questions (all but the examples)."""
    from bluffscope.runs.ask.asking import Asked
    from bluffscope.runs.ask.generate import asked

    messages = message_console()
    every = [Asked(question.id, question.text, question.golds[0]) for question in questions]
    with shown_progress(messages, quiet=quiet) as progress:
        progress.tell("Loading the model")
        return asked(options, where, every, out, progress)


COMMAND = Ask


def print_known(found: Answered, console: LastingConsole, screen: ScreenOptions) -> None:
    """How many answers are right, and on how many questions of each domain the model is."""
    from bluffscope.runs.ask.verdicts import KNOWN, known

    answers = found.answers
    states = known(answers)
    domains: dict[str, Counter[str]] = {}
    for domain, state in states.values():
        domains.setdefault(domain, Counter())[state] += 1
    verdicts = Counter(answer.verdict for answer in answers)
    said = ", ".join(f"{verdicts[name]:,} {name}" for name in ("right", "wrong", "refused", "empty"))
    console.say(f"{count(len(answers), 'answer')} to {count(len(states), 'question')}: {said}", "")
    every = sum(domains.values(), Counter[str]())
    most = len(domains) if screen.full else SHOWN_DOMAINS
    rows = [(domain, *_shares(states)) for domain, states in list(domains.items())[:most]]
    rows += [("all", *_shares(every))] if len(domains) > 1 else []
    heads = ["domain", "questions", "always right", "sometimes", "never", "refused", "no answer"]
    assert len(heads) == len(KNOWN) + 2
    console.print(table(heads, rows, gap=2))
    if (more := len(domains) - most) > 0:
        console.say(f"Not shown: {more:,} more domains (--full).")
    console.say("")
    if found.kept:
        console.say(f"{count(found.kept, 'label')} by hand kept.")
    if (replies := found.replies) is not None and (screen.full or screen.verbose):
        console.say(f"Peak memory: {replies.peak_bytes / 1e9:.1f} GB")


def _shares(states: Counter[str]) -> list[str]:
    from bluffscope.runs.ask.verdicts import KNOWN

    return [f"{states.total():,}", *(f"{states[name]:,}" for name in KNOWN)]
