"""Options of a model that writes: asked, measured by its answers, or watched by a detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bluffscope.config.layers import LayerSlice
from bluffscope.config.options import NO_SAE
from bluffscope.errors import InputError


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """How questions are read, and answers judged."""

    judge: str = "contains"
    """How answers are judged: match (a short answer alone), contains (also in a sentence), numeric (only numbers and
    dates), or a function of yours, FILE.py:NAME, of question, answer and right answers."""
    schema: str = "auto"
    """Read a published data set by its name; auto recognises it by its fields."""
    columns: tuple[str, ...] = ()
    """Map fields of the questions, KEY=NAME: question, answers, aliases, id, domain."""
    limit: int | None = None
    """Use only the first N questions."""


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """The model, and how it is asked."""

    model: str | None = None
    """Causal language model to ask: a Hugging Face id, a folder or a GGUF file."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for the model; auto prefers CUDA, then MPS, then the CPU."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the model."""
    chat: bool = False
    """Ask by the model's own chat template; else the prompt is Q: ... A:, and an answer ends with its line."""
    system: str | None = None
    """Text of a system message (with --chat)."""
    samples: int = 10
    """Answers to each question; one at --temperature 0."""
    temperature: float = 1.0
    """Temperature of the draw; 0 takes the most probable token."""
    max_new_tokens: int = 32
    """Most tokens of an answer."""
    shots: int = 0
    """Put the first N questions, with their answers, in front of every other as examples; they are not asked."""
    seed: int = 0
    """Seed of the draw."""
    batch_size: int | None = None
    """Questions a forward pass (default: as many as memory allows)."""

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            InputError: naming the option.
        """
        check_drawing(self, samples=1, max_new_tokens=1, batch_size=1, shots=0, seed=0)
        if self.system is not None and not self.chat:
            raise InputError("--system: only with --chat")


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How the model writes."""

    chat: bool = False
    """Put prompts through the model's own chat template; a detector trained on conversations always does."""
    system: str | None = None
    """Text of a system message (in a conversation)."""
    max_new_tokens: int = 128
    """Most tokens to write."""
    temperature: float = 0.0
    """Temperature of the draw; 0 takes the most probable token."""
    seed: int = 0
    """Seed of the draw."""
    stop: tuple[str, ...] = ()
    """Texts that end the writing, themselves included."""

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            InputError: naming the option.
        """
        check_drawing(self, max_new_tokens=1, seed=0)
        if "" in self.stop:
            raise InputError('--stop "": give a text that is not empty')


def check_drawing(options: AskOptions | WatchOptions, **least: int) -> None:
    """Refuse a temperature below 0, and whole numbers below the least that each may be.

    Raises:
        InputError: naming the option.
    """
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and not smallest <= value < 2**31:
            raise InputError(f"--{name.replace('_', '-')} {value}: give a whole number that is {smallest} or more")
    if not 0 <= options.temperature < 100:
        raise InputError(f"--temperature {options.temperature:g}: give a number that is 0 or more")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How the answers are measured."""

    sae: str = NO_SAE
    """SAEs: a SAELens release (RELEASE, or RELEASE:ID with {layer} in ID), a folder with layer_K/ in it, or none."""
    layers: tuple[int | LayerSlice, ...] = ()
    """Layers to measure: numbers, slices as in Python (4:20:2), all, or spread for six evenly spaced (default: all in
    the SAE folder, or spread without SAEs)."""
    position: Literal["last", "first-completion", "completion-mean", "end-of-turn"] = "last"
    """Read the last token of each answer, its first, the one that closes the assistant's turn (with --chat), or
    average over the answer."""
    allow_unsound: bool = False
    """Show verdicts (and exit with 0) even if the health gate fails."""
