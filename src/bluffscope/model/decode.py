"""A model that writes: keys and values kept from token to token, and the next token chosen of the logits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int

from bluffscope.model.lengths import LengthClasses
from bluffscope.model.load import LanguageModel

GREEDY: Final = 0.0
"""The temperature at which the most probable token is taken."""
_FAN: Final = 16
LEVELS: Final = 6
"""Numbers a token: enough for 16 million tokens."""


def uniforms(seed: int, question: str, sample: int, count: int) -> Float[np.ndarray, " count"]:
    """Numbers in [0, 1) of one sample, float64: Philox, keyed with BLAKE2b of seed, question's id and sample."""
    name = f"{seed}\x1f{question}\x1f{sample}".encode()
    key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


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


class State:
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


def prefilled(
    model: LanguageModel, prompts: Sequence[tuple[int, ...]], *, share: bool = True
) -> tuple[State, Float[torch.Tensor, "row vocabulary"]]:
    """The state behind each prompt, and the logits there; what all begin with is computed once.

    Prompts are padded on the left. Where a layer looks back only so far, padding behind a common beginning would stand
    between tokens that it sees; and where position factors follow from the longest text, a beginning alone has others:
    there is then no common beginning.

    Args:
        model: whole, with its LM head.
        prompts: token ids, a BOS first where one is fed.
        share: False where every row is to pass through the model whole, in one forward.
    """
    from transformers import DynamicCache

    network: Any = model.network
    apart = _windowed(model) or LengthClasses.of(model.config).several
    shared = 0 if apart or not share else _common(prompts)
    longest = max(map(len, prompts)) - shared
    device = model.device
    cache = DynamicCache(config=model.config)
    state = State(network, cache, torch.zeros((1, 0), dtype=torch.long, device=device))
    if shared:
        first = torch.tensor([prompts[0][:shared]], device=device)
        state.feed(first, torch.ones_like(first))
        state.repeat(len(prompts))
    else:
        state = State(network, cache, torch.zeros((len(prompts), 0), dtype=torch.long, device=device))
    rest = [ids[shared:] for ids in prompts]
    ids = torch.tensor([[prompts[0][0]] * (longest - len(one)) + list(one) for one in rest], device=device)
    there = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in rest], device=device)
    return state, state.feed(ids, there)


def _windowed(model: LanguageModel) -> bool:
    return bool(getattr(model.config, "sliding_window", None) or getattr(model.config, "attention_chunk_size", None))


def _common(texts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all texts begin with; fewer than the shortest has."""
    least, most = min(texts), max(texts)
    limit = min(map(len, texts)) - 1
    return next((place for place in range(limit) if least[place] != most[place]), limit)
