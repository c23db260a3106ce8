"""`bluffscope ask`: judge a model's answers to questions, and make labelled texts of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.named_file import check_file
from bluffscope.cli.options import Command
from bluffscope.cli.progress import BarProgress, LineProgress
from bluffscope.config import AskOptions, WorkerOptions
from bluffscope.errors import InputError
from bluffscope.host.terminal import count, table

if TYPE_CHECKING:
    from bluffscope.runs.ask.generate import Replies
    from bluffscope.runs.ask.questions import Question
    from bluffscope.runs.ask.verdicts import Answer

SHOWN_DOMAINS = 20


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
    judge: str = "contains"
    """How answers are judged: match (a short answer alone), contains (also in a sentence), numeric (only numbers and
    dates), or a function of yours, FILE.py:NAME, of question, answer and right answers."""
    schema: str = "auto"
    """Read a published data set by its name; auto recognises it by its fields."""
    columns: tuple[str, ...] = ()
    """Map fields of the questions, KEY=NAME: question, answers, aliases, id, domain."""
    limit: int | None = None
    """Use only the first N questions."""
    asking: AskOptions = field(default_factory=AskOptions)
    """The model, and how it is asked."""
    engine: WorkerOptions = field(default_factory=WorkerOptions)
    """Where the model is asked."""

    def execute(self) -> int:
        """Read, judge, write; print what the model knows."""
        # Polars takes half a second to import: --help and a mistyped flag should not.
        from bluffscope.runs.ask.answers import read_answers
        from bluffscope.runs.ask.own import judge_of
        from bluffscope.runs.ask.questions import read_questions
        from bluffscope.runs.ask.verdicts import Given, corrected, judged, with_corrections, write_answers

        check_file("--out", self.out)
        if self.out.suffix.lower() not in (".jsonl", ".ndjson"):
            raise InputError(f"--out {self.out}: expected a name that ends in .jsonl")
        if (self.answers is None) == (self.asking.model is None):
            raise InputError("give --model, to ask it, or --answers FILE, to judge what was generated elsewhere")
        judge = judge_of(self.judge)
        with messages_on(message_console()):
            by_hand = corrected(self.out)
            questions = read_questions(self.questions, self.schema, self.columns, self.limit)
            replies = None
            if self.answers is None:
                replies = _asked(self.asking, self.engine, questions, self.out)
                questions = questions[self.asking.shots :]
                given = {
                    name: Given([one.text for one in some], replies.prompts[name], [one.logprob for one in some])
                    for name, some in replies.kept.samples.items()
                }
            else:
                given = {name: Given(some) for name, some in read_answers(self.answers, questions).items()}
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
            write_answers(self.out, answers)
            if replies is not None:
                replies.kept.remove()
        _print(answers, kept, replies, self.out, output_console())
        return exit_codes.QUARANTINED if replies is not None and replies.left_out else exit_codes.DONE


def _asked(options: AskOptions, where: WorkerOptions, questions: list[Question], out: Path) -> Replies:
    """What the model answers to the questions (all but the examples)."""
    from bluffscope.runs.ask.asking import Asked
    from bluffscope.runs.ask.generate import asked

    messages = message_console()
    every = [Asked(question.id, question.text, question.golds[0]) for question in questions]
    with closing(BarProgress(messages) if messages.is_terminal else LineProgress(sys.stderr)) as progress:
        progress.tell("Loading the model")
        return asked(options, where, every, out, progress)


COMMAND = Ask


def _print(answers: Sequence[Answer], kept: int, replies: Replies | None, out: Path, console: LastingConsole) -> None:
    from bluffscope.runs.ask.verdicts import KNOWN, known

    states = known(answers)
    domains: dict[str, Counter[str]] = {}
    for domain, state in states.values():
        domains.setdefault(domain, Counter())[state] += 1
    verdicts = Counter(answer.verdict for answer in answers)
    said = ", ".join(f"{verdicts[name]:,} {name}" for name in ("right", "wrong", "refused", "empty"))
    console.say(f"{count(len(answers), 'answer')} to {count(len(states), 'question')}: {said}", "")
    every = sum(domains.values(), Counter[str]())
    rows = [(domain, *_shares(states)) for domain, states in list(domains.items())[:SHOWN_DOMAINS]]
    rows += [("all", *_shares(every))] if len(domains) > 1 else []
    heads = ["domain", "questions", "always right", "sometimes", "never", "refused", "no answer"]
    assert len(heads) == len(KNOWN) + 2
    console.print(table(heads, rows, gap=2))
    if (more := len(domains) - SHOWN_DOMAINS) > 0:
        console.say(f"Not shown: {more:,} more domains.")
    console.say("")
    if kept:
        console.say(f"{count(kept, 'label')} by hand kept.")
    if replies is not None:
        console.say(f"Peak memory: {replies.peak_bytes / 1e9:.1f} GB")
    console.say(f"Written to {out}. Next: bluffscope analyze --data {out}")


def _shares(states: Counter[str]) -> list[str]:
    from bluffscope.runs.ask.verdicts import KNOWN

    return [f"{states.total():,}", *(f"{states[name]:,}" for name in KNOWN)]
