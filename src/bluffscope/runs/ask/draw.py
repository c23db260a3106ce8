"""Answers drawn from a model: each question's prompt computed once for all its samples, many questions a batch.

What is drawn is a function of the seed, the question's id, the sample's number and the model's probabilities: token by
token inverses of cumulative distributions at uniform numbers that nothing else depends on. Batches change no answer but
where rounding moves a probability across such a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int

from bluffscope.host.float64_guard import computing_in
from bluffscope.model import LanguageModel
from bluffscope.model.lengths import LengthClasses

GREEDY: Final = 0.0
"""The temperature at which the most probable token is taken."""
_FAN: Final = 16
LEVELS: Final = 6
"""Numbers a token: enough for 16 million tokens."""
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


def uniforms(seed: int, question: str, sample: int, count: int) -> Float[np.ndarray, " count"]:
    """Numbers in [0, 1) of one sample, float64: Philox, keyed with BLAKE2b of seed, question's id and sample."""
    name = f"{seed}\x1f{question}\x1f{sample}".encode()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


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
        state, logits = _prefilled(model, prompts)
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


def chosen(
    logits: Float[torch.Tensor, "row vocabulary"], numbers: Float[torch.Tensor, "row level"], temperature: float
) -> Int[torch.Tensor, " row"]:
    """The token of each row: of groups of `_FAN` groups of ... of tokens one after another, each by its own number.

    A group is the first at which the cumulative probability among its siblings, in the order of ids, exceeds the
    number. One cumulative distribution over all tokens would have many of them between two values that rounding alone
    moves, and more answers would change with the batch.
    """
    return logits.argmax(1) if temperature == GREEDY else drawn(logits, numbers, temperature)[0]


def drawn(
    logits: Float[torch.Tensor, "row vocabulary"], numbers: Float[torch.Tensor, "row level"], temperature: float
) -> tuple[Int[torch.Tensor, " row"], Float[torch.Tensor, " row"]]:
    """The token of each row, and how far the nearest of its numbers is from a border between two groups."""
    sums = [_filled((logits / temperature).softmax(1).double())]
    while sums[-1].shape[1] > 1:
        sums.append(_filled(sums[-1].sum(2)))
    rows = torch.arange(len(logits), device=logits.device)
    place, nearest = torch.zeros_like(rows), torch.ones_like(numbers[:, 0])
    for level, groups in enumerate(reversed(sums)):
        cumulative = groups[rows, place].cumsum(1)
        total = cumulative[:, -1:]
        wanted = torch.minimum(numbers[:, level, None] * total, total.nextafter(torch.zeros_like(total)))
        place = place * _FAN + torch.searchsorted(cumulative, wanted, right=True)[:, 0]
        far = ((cumulative - wanted) / total).abs().where(cumulative < total, 1)  # behind the last group is no border
        nearest = torch.minimum(nearest, far.amin(1))
    return place, nearest


def _filled(shares: Float[torch.Tensor, "row part"]) -> Float[torch.Tensor, "row group fan"]:
    """Shares in groups of `_FAN`, with zeros behind the last."""
    return torch.nn.functional.pad(shares, (0, -shares.shape[1] % _FAN)).unflatten(1, (-1, _FAN))


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


class _State:
    """What a model keeps of the tokens so far: keys and values, which of them count, and the next position."""

    def __init__(self, network: Any, cache: Any, mask: torch.Tensor) -> None:
        self._network, self._cache, self._mask = network, cache, mask

    def repeat(self, times: int) -> None:
        """Each row so many times."""
        if times > 1:
            self._cache.batch_repeat_interleave(times)
            self._mask = self._mask.repeat_interleave(times, 0)

    def select(self, rows: torch.Tensor) -> None:
        """Only these rows."""
        rows = rows.to(self._mask.device)
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def next(self, tokens: Int[torch.Tensor, " row"]) -> Float[torch.Tensor, "row vocabulary"]:
        """Feed a token to each row; the logits of the one that follows."""
        return self.feed(tokens[:, None], torch.ones_like(tokens)[:, None])

    def feed(
        self, ids: Int[torch.Tensor, "row token"], there: Int[torch.Tensor, "row token"]
    ) -> Float[torch.Tensor, "row vocabulary"]:
        """Feed tokens, of which those count that are there; the logits behind the last."""
        self._mask = torch.cat([self._mask, there], 1)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        found = self._network(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = found.past_key_values
        return found.logits[:, -1].float() if found.logits.dtype != torch.float64 else found.logits[:, -1]


def _prefilled(model: LanguageModel, prompts: Sequence[Prompt]) -> tuple[_State, torch.Tensor]:
    """The state behind each prompt, and the logits there; what all begin with is computed once.

    Prompts are padded on the left. Where a layer looks back only so far, padding behind a common beginning would stand
    between tokens that it sees; and where position factors follow from the longest text, a beginning alone has others:
    there is then no common beginning.
    """
    from transformers import DynamicCache

    network: Any = model.network
    shared = 0 if _windowed(model) or LengthClasses.of(model.config).several else _common([one.ids for one in prompts])
    longest = max(len(one.ids) for one in prompts) - shared
    device = model.device
    cache = DynamicCache(config=model.config)
    state = _State(network, cache, torch.zeros((1, 0), dtype=torch.long, device=device))
    if shared:
        first = torch.tensor([prompts[0].ids[:shared]], device=device)
        state.feed(first, torch.ones_like(first))
        state.repeat(len(prompts))
    else:
        state = _State(network, cache, torch.zeros((len(prompts), 0), dtype=torch.long, device=device))
    rest = [one.ids[shared:] for one in prompts]
    ids = torch.tensor([[prompts[0].ids[0]] * (longest - len(one)) + list(one) for one in rest], device=device)
    there = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in rest], device=device)
    return state, state.feed(ids, there)


def _windowed(model: LanguageModel) -> bool:
    return bool(getattr(model.config, "sliding_window", None) or getattr(model.config, "attention_chunk_size", None))


def _common(texts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all texts begin with; fewer than the shortest has."""
    least, most = min(texts), max(texts)
    limit = min(map(len, texts)) - 1
    return next((place for place in range(limit) if least[place] != most[place]), limit)


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
