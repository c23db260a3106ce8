"""A model that writes while a kept detector scores each token, with the keys and values of all tokens before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from bluffscope.config import WatchOptions
from bluffscope.detectors.files import Detector
from bluffscope.detectors.growing import prefix_scores, reads_prompt, refuse_unstreamable
from bluffscope.detectors.probe import Probe, Reads
from bluffscope.detectors.score import refuse_parts, stored_config
from bluffscope.errors import InputError, PairError
from bluffscope.host.exclusive import exclusive
from bluffscope.host.float64_guard import computing_in
from bluffscope.model import LanguageModel
from bluffscope.model.decode import LEVELS, State, chosen, prefilled, uniforms
from bluffscope.pipeline.build import load_parts, text_tokenizer
from bluffscope.pipeline.given import Given
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.plan.tokens import REPLACEMENT

_CONTEXT: Final = 5
"""Tokens in front of a token with which it is decoded: some tokenizers write the first of a text otherwise."""


class Written(NamedTuple):
    """A token that the model wrote."""

    prompt: int
    """Which of the prompts it goes on from, from 0."""
    text: str
    """What it adds to the text: empty for a token that ends inside a character, which the next one brings."""
    id: int
    probability: float
    """Calibrated probability that the text is hallucinated, as far as it is written."""
    logit: float
    """The linear score, in log odds before calibration."""


@dataclass(frozen=True)
class Watcher:
    """A detector with its whole model, ready to write."""

    detector: Detector
    model: LanguageModel
    probe: Probe
    tokenizer: TextTokenizer

    def write(self, prompts: Sequence[str], options: WatchOptions) -> Iterator[Written]:
        """Write on from all prompts at once; each token comes as soon as it is scored, step by step, row by row.

        What is drawn follows from seed, prompt and probabilities: other prompts of the batch change nothing but
        rounding. The token that ends a text is neither shown nor scored.

        Args:
            prompts: texts, or with `options.chat` user turns or conversations as JSON.
            options: checked already.

        Raises:
            InputError: a prompt that leaves no room to write, has no tokens, or is refused by the chat template.
        """
        ids = [self._opening(prompt) for prompt in prompts]
        occurrences: Counter[str] = Counter()
        numbers: list[np.ndarray] = []
        for prompt in prompts:  # the same prompt again is another sample
            drawn = uniforms(options.seed, prompt, occurrences[prompt], options.max_new_tokens * LEVELS)
            numbers.append(drawn.reshape(-1, LEVELS))
            occurrences[prompt] += 1
        return self._steps(ids, np.stack(numbers), options)

    def _opening(self, prompt: str) -> tuple[int, ...]:
        shown = prompt if len(prompt) <= 40 else f"{prompt[:40]}..."
        try:
            ids = self.tokenizer.opening(prompt)
        except PairError as error:
            raise InputError(f"--prompt {shown!r}: {error}") from error
        if not ids:
            raise InputError(f"--prompt {shown!r}: it has no tokens; give a text")
        if self._room(ids) < 1:
            raise InputError(
                f"--prompt {shown!r}: its {len(ids):,} tokens leave no room in the model's context of "
                f"{self.model.context:,}; shorten it"
            )
        return ids

    def _room(self, ids: tuple[int, ...]) -> float:
        """How many tokens the model's context has left behind a prompt."""
        return float("inf") if self.model.context is None else self.model.context - len(ids)

    def _steps(self, ids: list[tuple[int, ...]], numbers: np.ndarray, options: WatchOptions) -> Iterator[Written]:
        whole = reads_prompt(self.detector)
        ends = self._ends()
        with self._step(max(map(len, ids)) if whole else 0) as reads:
            state, logits = prefilled(self.model, ids, share=not whole)
            read = reads.scores().cpu().double().numpy() if whole else np.zeros((len(ids), 0))
        lead = int(self.tokenizer.bos is not None)  # a BOS is never read
        rows = [
            _Row(
                place,
                self,
                one,
                min(options.max_new_tokens, self._room(one)),
                scores[scores.size - len(one) + lead :] if whole else scores,
            )
            for place, (one, scores) in enumerate(zip(ids, read, strict=True))
        ]
        for step in range(options.max_new_tokens):
            with self._step(0):
                drawn = torch.from_numpy(numbers[[row.place for row in rows], step]).to(logits.device)
                tokens = chosen(logits, drawn, options.temperature)
            known = tokens.tolist()
            going = [
                k for k, (row, token) in enumerate(zip(rows, known, strict=True)) if row.goes_on and token not in ends
            ]
            if not going:
                return
            rows = [rows[k] for k in going]
            with self._step(1) as reads:
                logits, scores = _fed(state, tokens, going, reads)
            for row, k, score in zip(rows, going, scores, strict=True):
                yield row.add(known[k], score, options.stop)

    def _ends(self) -> set[int]:
        """Tokens with which the model ends a text, or its turn."""
        config = getattr(self.model.network, "generation_config", None)
        named: Any = getattr(config, "eos_token_id", None)
        own: Any = self.model.tokenizer.eos_token_id
        found: set[Any] = {own, *(named if isinstance(named, list) else [named])}
        if self.tokenizer.chat is not None:
            with suppress(InputError):  # some templates close a turn with no token
                found.add(self.tokenizer.chat.end_of_turn)
        return {token for token in found if isinstance(token, int)}

    @contextmanager
    def _step(self, last: int) -> Generator[Reads, None, None]:
        """Within the block, the model computes and is read; between steps, nothing of it reaches the caller's code."""
        with torch.inference_mode(), computing_in(self.model.dtype):
            if last:
                with self.probe.reading(self.model.blocks, last) as reads:
                    yield reads
            else:
                yield Reads(self.probe)


def _fed(state: State, tokens: torch.Tensor, going: list[int], reads: Reads) -> tuple[torch.Tensor, list[float]]:
    """Feed the tokens of rows that go on: the next logits, and the score of each."""
    if len(going) < len(tokens):
        kept = torch.tensor(going)
        state.select(kept)
        tokens = tokens[kept.to(tokens.device)]
    logits = state.next(tokens)
    return logits, reads.scores()[:, -1].tolist()


@dataclass
class _Row:
    """One text as it grows."""

    place: int
    watcher: Watcher
    prompt: tuple[int, ...]
    most: float
    """Tokens that it may have."""
    before: np.ndarray
    """(token,) scores of the prompt's tokens, where these belong to the text."""
    goes_on: bool = True
    _ids: list[int] = field(default_factory=list[int])
    _known: int = 0
    """How many of `_ids` stand in the text already."""
    _scores: list[float] = field(default_factory=list[float])
    _tail: str = ""

    def __post_init__(self) -> None:
        self._ids = list(self.prompt[-_CONTEXT:])
        self._known = len(self._ids)

    def add(self, token: int, score: float, stop: Sequence[str]) -> Written:
        """The next token, with the score of the text up to it."""
        self._scores.append(score)
        self.goes_on = len(self._scores) < self.most
        detector = self.watcher.detector
        logit = float(prefix_scores(detector.position, np.array(self._scores), self.before)[-1])
        text = self._piece(token)
        if stop:
            longest = max(map(len, stop))
            self._tail = self._tail[-longest:] + text
            self.goes_on &= not any(one in self._tail for one in stop)
        probability = float(detector.calibration.probabilities(np.array([logit]))[0])
        return Written(self.place, text, token, probability, logit)

    def _piece(self, token: int) -> str:
        """What a token adds to the text; a character in several tokens comes with its last."""
        self._ids.append(token)
        shown, text = self._decoded(self._ids[: self._known]), self._decoded(self._ids)
        if text.endswith(REPLACEMENT) and self.goes_on:
            return ""
        start = max(0, self._known - _CONTEXT)
        self._ids, self._known = self._ids[start:], len(self._ids) - start
        return text[len(shown) :]

    def _decoded(self, ids: list[int]) -> str:
        tokenizer: Any = self.watcher.model.tokenizer
        return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@exclusive()
def open_watcher(
    detector: Detector,
    *,
    model: str | None = None,
    sae: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    chat: bool = False,
    system: str | None = None,
    given: Given | None = None,
) -> Watcher:
    """Load the whole model of a detector and its SAEs, and see that they are those of the training.

    Args:
        detector: read from its folder.
        model: where the model is, if no longer where it was.
        sae: where the SAEs are, likewise.
        revision: of the model on the hub.
        device: "auto" or a torch device.
        chat: whether prompts go through the chat template although the detector's did not.
        system: text of a system message; None takes that of the training.
        given: model and SAEs in memory.

    Raises:
        InputError: they cannot be loaded or are others, or the detector cannot judge a text that grows.
    """
    refuse_unstreamable(detector)
    given = given or Given()
    config = stored_config(detector, model=model, sae=sae, revision=revision, device=device)
    chat = chat or detector.chat
    if system is not None and not chat:
        raise InputError("--system: only with --chat")
    config = replace(
        config,
        model=given.agreed(config.model),
        data=replace(config.data, chat=chat, system=detector.system if system is None and chat else system),
        measure=replace(config.measure, logprob="on"),  # the whole model, with its head
    )
    parts = load_parts(config, given=given)
    refuse_parts(detector, parts)
    return Watcher(detector, parts.model, Probe.of(detector, parts), text_tokenizer(config, parts))
