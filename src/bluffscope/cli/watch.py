"""`bluffscope detect watch`: a model writes, and each token is coloured by a detector as it appears."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import tyro
from rich.console import Console
from rich.style import Style
from rich.text import Text

from bluffscope.cli import exit_codes
from bluffscope.cli.console import LastingConsole, message_console, messages_on, output_console
from bluffscope.cli.named_file import check_file
from bluffscope.cli.options import Command
from bluffscope.config import WatchOptions
from bluffscope.errors import InputError

if TYPE_CHECKING:
    from bluffscope.detectors.files import Detector
    from bluffscope.detectors.stream import Written

_COLOURS: Final = (
    (0.9, Style.parse("bold underline #000000 on #f7786b")),
    (0.7, Style.parse("#000000 on #ffad70")),
    (0.5, Style.parse("#000000 on #ffd98a")),
    (0.3, Style.parse("#000000 on #fff3c4")),
    (0.0, Style()),
)
"""From which probability a token has which style: readable on dark and on light, and not by hue alone."""


@dataclass(frozen=True, kw_only=True)
class Watch(Command):
    """Have the detector's own model write, and show at each token how probably the text is hallucinated."""

    detector: tyro.conf.Positional[Path]
    """The folder of a detector, from bluffscope detect train."""
    prompt: tuple[str, ...]
    """Texts to go on from, all at once; with --chat user turns, or conversations as JSON."""
    writing: WatchOptions = field(default_factory=WatchOptions)
    """How the model writes."""
    threshold: float = 0.5
    """Without colours: probability from which a word is followed by it, in brackets."""
    format: Literal["text", "json"] = "text"
    """Print coloured text, or one JSON object a token, on a line of its own."""
    html: Path | None = None
    """Also write a page with each token's probability (.html)."""
    model: str | None = None
    """The model, if it has moved since training."""
    sae: str | None = None
    """The SAEs, if they have moved since training."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for the model."""

    def execute(self) -> int:
        """Load, write, show; 130 where it was stopped."""
        self.writing.check()
        if not self.prompt:
            raise InputError("--prompt: give at least one text")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"--threshold {self.threshold:g}: give a probability, from 0 to 1")
        check_file("--html", self.html)
        if self.html is not None and self.html.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--html {self.html}: expected a name that ends in .html")
        from bluffscope.detectors.files import read_detector
        from bluffscope.detectors.growing import refuse_unstreamable

        detector = read_detector(self.detector)
        refuse_unstreamable(detector)
        from bluffscope.detectors.stream import open_watcher  # torch: seconds that a mistyped flag should not take

        with messages_on(message_console()):
            watcher = open_watcher(
                detector,
                model=self.model,
                sae=self.sae,
                revision=self.revision,
                device=self.device,
                chat=self.writing.chat,
                system=self.writing.system,
            )
            found: list[list[Written]] = [[] for _ in self.prompt]
            stopped = self._show(watcher.write(self.prompt, self.writing), found)
        if self.format == "text":
            _print_summary(detector, found, output_console())
            if self.writing.chat and not detector.chat:
                output_console().say("The detector was trained on plain texts, not on conversations.", style="dim")
        if self.html is not None:
            self._write_page(detector, found, self.html)
        return exit_codes.STOPPED if stopped else exit_codes.DONE

    def _show(self, tokens: Iterable[Written], found: list[list[Written]]) -> bool:
        """Print tokens as they come, and collect them; whether Ctrl-C ended it."""
        console = output_console()
        view = _Lines(console) if self.format == "json" else _Texts(console, self.prompt, self.threshold)
        try:
            for token in tokens:
                found[token.prompt].append(token)
                view.add(token)
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                view.close()
            return True
        view.close()
        return False

    def _write_page(self, detector: Detector, found: list[list[Written]], path: Path) -> None:
        from bluffscope.detectors.growing import SAYS
        from bluffscope.report.watch_page import Text as Shown
        from bluffscope.report.watch_page import Token, render_watch_page
        from bluffscope.table.atomic import write_bytes

        texts = [
            Shown(prompt, [Token(one.text, one.probability, one.id, one.logit) for one in some])
            for prompt, some in zip(self.prompt, found, strict=True)
        ]
        model = Path(str(detector.about["model"].get("name"))).name
        write_bytes(path, render_watch_page(detector.path.name, model, SAYS[detector.position], texts))
        message_console().say(f"Page: {path}")


class _Lines:
    """One JSON object a token."""

    def __init__(self, console: LastingConsole) -> None:
        self._console = console

    def add(self, token: Written) -> None:
        """Print it at once."""
        self._console.file.write(json.dumps(token._asdict()) + "\n")
        self._console.file.flush()

    def close(self) -> None:
        """Nothing is left."""


class _Texts:
    """The texts one behind the other, each as it is written; those behind it wait until it is done."""

    def __init__(self, console: LastingConsole, prompts: tuple[str, ...], threshold: float) -> None:
        self._console, self._prompts, self._threshold = console, prompts, threshold
        self._coloured = console.color_system is not None and not console.no_color
        self._waiting: list[list[Written]] = [[] for _ in prompts]
        self._at = -1
        self._word, self._highest = "", 0.0
        self._since: set[int] = set()
        self._next()

    def add(self, token: Written) -> None:
        """Print a token of the text at which the console is; keep one of a later text."""
        if token.prompt == self._at:
            self._since.clear()
            self._print(token)
        elif token.prompt in self._since:  # a whole step without one of this text: it has ended
            self._since.clear()
            self._next()
            self.add(token)
        else:
            self._since.add(token.prompt)
            self._waiting[token.prompt].append(token)

    def close(self) -> None:
        """Print what waits, and end the line."""
        while self._at < len(self._prompts):
            self._next()

    def _next(self) -> None:
        if self._at >= 0:
            self._end_word()
            self._write("\n")
        self._at += 1
        if self._at == len(self._prompts):
            self._write("\n")
            return
        self._write(("\n" if self._at else "") + self._prompts[self._at], Style(dim=True))
        for token in self._waiting[self._at]:
            self._print(token)

    def _print(self, token: Written) -> None:
        if self._coloured:
            word = token.text.lstrip()
            self._write(token.text[: len(token.text) - len(word)])
            self._write(word, next(style for least, style in _COLOURS if token.probability >= least))
            return
        if token.text[:1].isspace():
            self._end_word()
        self._word += token.text
        self._highest = max(self._highest, token.probability)

    def _end_word(self) -> None:
        """Without colours: the word, and its highest probability where that is worth saying."""
        body = self._word.rstrip()
        if body.strip() and self._highest >= self._threshold:
            self._write(f"{body}[{self._highest:.2f}]{self._word[len(body) :]}")
        else:
            self._write(self._word)
        self._word, self._highest = "", 0.0

    def _write(self, text: str, style: Style | None = None) -> None:
        _raw(self._console, text, style)


def _raw(console: Console, text: str, style: Style | None) -> None:
    """Text as it is, control characters escaped, without a line's end of its own."""
    shown = "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)
    if not shown:
        return
    if console.is_terminal:
        console.print(Text(shown, style or ""), end="", soft_wrap=True)
    else:
        console.file.write(shown)
        console.file.flush()


def _print_summary(detector: Detector, found: list[list[Written]], console: LastingConsole) -> None:
    from bluffscope.detectors.growing import SAYS

    for place, tokens in enumerate(found, start=1):
        if not tokens:
            console.say(f"Text {place}: the model ended it at once.", style="dim")
            continue
        top = max(tokens, key=lambda one: one.probability)
        of = f"Text {place}: " if len(found) > 1 else ""
        console.say(
            f"{of}{len(tokens)} tokens; probability at the last {tokens[-1].probability:.2f}, highest "
            f"{top.probability:.2f} at {json.dumps(top.text, ensure_ascii=False)}",
            style="dim",
        )
    console.say(f"Each probability is {SAYS[detector.position]}.", style="dim")
