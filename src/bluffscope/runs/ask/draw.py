"""Answers drawn from a model: each question's prompt computed once for all its samples, many questions a batch.

What is drawn is a function of the seed, the question's id, the sample's number and the model's probabilities: token by
token inverses of cumulative distributions at uniform numbers that nothing else depends on. Batches change no answer but
where rounding moves a probability across such a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float

from bluffscope.host.float64_guard import computing_in
from bluffscope.model import LanguageModel
from bluffscope.model.decode import GREEDY, LEVELS, chosen, prefilled, uniforms
from bluffscope.model.lengths import LengthClasses

_KEPT: Final = 0.75
"""Share of the rows under which those that are done are taken out of the cache."""


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn."""

    samples: int = 10
    """Answers a question."""
    temperature: float = 1.0
    """Probabilities are those of the logits divided by it; `GREEDY` takes the most probable token."""
    most_tokens: int = 32
    """Of an answer."""
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """A question as the model is asked it."""

    id: str
    ids: tuple[int, ...]
    """Token ids, a BOS first where one is fed."""
    index: int = 0
    """Its place among the questions."""


@dataclass(frozen=True)
class Answer:
    """One sample."""

    tokens: tuple[int, ...]
    """Its ids, without the one that ended it."""
    logprob: float
    """Of its tokens, and of the one that ended it, given the prompt, in nats at temperature 1."""
    ended: bool
    """Whether the model ended it; else it was cut off."""


@torch.inference_mode()
def draw(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    drawing: Drawing,
    stops: Sequence[int],
    step: Callable[[], None] = lambda: None,
) -> list[list[Answer]]:
    """The answers to each of a batch of prompts, in their order.

    Args:
        model: whole, with its LM head.
        prompts: one batch; all their samples are drawn together.
        drawing: how.
        stops: ids of the tokens that end an answer.
        step: called before each token; whatever it raises ends the batch.
    """
    samples = 1 if drawing.temperature == GREEDY else drawing.samples
    with computing_in(model.dtype):
        state, logits = prefilled(model, [one.ids for one in prompts])
        state.repeat(samples)
        rows = _Rows(
            np.stack(
                [
                    uniforms(drawing.seed, one.id, k, drawing.most_tokens * LEVELS).reshape(-1, LEVELS)
                    for one in prompts
                    for k in range(samples)
                ]
            )
        )
        logits = logits.repeat_interleave(samples, 0)
        ending = torch.tensor(sorted(stops), device=logits.device)
        for place in range(drawing.most_tokens):
            step()
            tokens = chosen(logits, rows.numbers(place, logits.device), drawing.temperature)
            likely = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
            rows.add(tokens, likely, torch.isin(tokens, ending))
            if rows.done or place + 1 == drawing.most_tokens:
                break
            if (kept := rows.kept()) is not None:
                state.select(kept)
                tokens = tokens[kept]
            logits = state.next(tokens)
    found = rows.answers()
    return [found[start : start + samples] for start in range(0, len(found), samples)]


class _Rows:
    """The samples of a batch as they grow; those that have ended stay until it is worth taking them out."""

    def __init__(self, numbers: Float[np.ndarray, "row step level"]) -> None:
        count = len(numbers)
        self._numbers = numbers
        self._tokens: list[list[int]] = [[] for _ in range(count)]
        self._logprobs = np.zeros(count)
        self._ended = np.zeros(count, dtype=bool)
        self._there = np.arange(count)  # the sample of each row of the batch

    def numbers(self, step: int, device: torch.device) -> torch.Tensor:
        """(row, level) of a step."""
        return torch.from_numpy(self._numbers[self._there, step]).to(device)

    def add(self, tokens: torch.Tensor, logprobs: torch.Tensor, ends: torch.Tensor) -> None:
        """The next token of each row of the batch; those of samples that have ended count for nothing."""
        parts = zip(self._there.tolist(), tokens.tolist(), logprobs.tolist(), ends.tolist(), strict=True)
        for row, token, logprob, end in parts:
            if self._ended[row]:
                continue
            self._logprobs[row] += logprob
            if end:
                self._ended[row] = True
            else:
                self._tokens[row].append(token)

    @property
    def done(self) -> bool:
        """Whether all samples have ended."""
        return bool(self._ended.all())

    def kept(self) -> torch.Tensor | None:
        """(row,) rows of the batch that go on, where enough have ended that the others are better off alone."""
        going = np.flatnonzero(~self._ended[self._there])
        if len(going) > _KEPT * len(self._there):
            return None
        self._there = self._there[going]
        return torch.from_numpy(going)

    def answers(self) -> list[Answer]:
        """The samples, in order."""
        return [
            Answer(tuple(tokens), float(logprob), bool(ended))
            for tokens, logprob, ended in zip(self._tokens, self._logprobs, self._ended, strict=True)
        ]


def batched(
    prompts: Sequence[Prompt], size: int, alike: Callable[[int], object] = lambda _: None
) -> Iterator[list[int]]:
    """Places of the prompts that share a batch, by their lengths: it follows from prompts, size and model alone.

    Args:
        prompts: all of them.
        size: most of a batch.
        alike: given a length, what must be the same in a batch.
    """
    order = sorted(range(len(prompts)), key=lambda place: (len(prompts[place].ids), place))
    for _, group in groupby(order, key=lambda place: alike(len(prompts[place].ids))):
        places = list(group)
        for start in range(0, len(places), size):
            yield places[start : start + size]


def alike(config: Any, most_tokens: int) -> Callable[[int], object]:
    """Which prompts may share a batch, by their length: those whose answers get the same position factors all along.

    Args:
        config: of the model.
        most_tokens: of an answer.
    """
    lengths = LengthClasses.of(config)

    def kind(length: int) -> tuple[int, int]:
        first, last = lengths.of_length(length), lengths.of_length(length + most_tokens)
        return first, length if first != last else 0  # on the way from one class to the next: its own length only

    return kind
