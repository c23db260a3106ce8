"""A kept detector on a model of the caller's: every call of its `generate` is scored while it runs, token by token."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from bluffscope.config import NO_SAE
from bluffscope.detectors.files import Detector
from bluffscope.detectors.growing import prefix_scores, reads_prompt, refuse_unstreamable
from bluffscope.detectors.probe import Probe, Reads
from bluffscope.detectors.score import refuse_parts, stored_config
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.model.given import GivenPlace
from bluffscope.pipeline.build import load_parts
from bluffscope.pipeline.given import Given

_CURE: Final = "give the model that it was trained on, as it was loaded there, or allow_other=True"
_REFUSED: Final = ("assistant_model", "prompt_lookup_num_tokens", "custom_generate", "guidance_scale")
"""Arguments of `generate` with which it feeds other tokens than it returns."""


class Scored(NamedTuple):
    """A token that `generate` returned."""

    id: int
    probability: float | None
    """Calibrated probability that the text up to it is hallucinated; None for a last token that was never fed."""
    logit: float | None
    """The linear score, in log odds before calibration."""


Each = Callable[[Sequence[Scored | None]], object]
"""Called at each forward with one token for each row, None for a row that has ended."""


@dataclass
class Attached:
    """What a detector made of the calls of `generate` while it was attached."""

    calls: list[list[list[Scored]]] = field(default_factory=list[list[list[Scored]]])
    """Of each call, each row's generated tokens, without the one that ended it."""

    @property
    def rows(self) -> list[list[Scored]]:
        """Of the latest call."""
        return self.calls[-1] if self.calls else []


@contextmanager
def attached(
    detector: Detector,
    model: Any,
    *,
    sae: str | None = None,
    allow_other: bool = False,
    on_token: Each | None = None,
) -> Generator[Attached, None, None]:
    """Within the block, the model's `generate` is scored; afterwards the model is as it was, whatever happened.

    Args:
        detector: of residuals or SAE features.
        model: a causal language model of transformers, on one device.
        sae: where the SAEs are, if no longer where they were.
        allow_other: take a model whose weights, precision or revision are others than those of the training.
        on_token: called during the calls, which costs a copy from the device a token.

    Raises:
        InputError: another model, or a detector that cannot judge a text that grows.
    """
    refuse_unstreamable(detector)
    held = GivenPlace.of(model)
    with exclusive():
        config = stored_config(detector, model=held.name, sae=sae, revision=None, device=held.device.type)
        parts = load_parts(config, given=Given(model=held))
        if not allow_other:
            refuse_parts(detector, parts, _CURE if config.model.sae == NO_SAE else f"{_CURE}; sae= says where SAEs are")
        probe = Probe.of(detector, parts)
    network, found = held.network, Attached()
    own = vars(network).get("generate")
    generate = network.generate

    with probe.reading(parts.model.blocks, last=0) as reads, ExitStack() as stack:
        scoring = _Scoring(detector, network, reads, on_token)
        hooks = (
            network.register_forward_pre_hook(scoring.before, with_kwargs=True),
            network.register_forward_hook(scoring.after),
        )
        for hook in hooks:
            stack.callback(hook.remove)

        def scored(*args: Any, **kwargs: Any) -> Any:
            scoring.begin(args, kwargs)
            try:
                returned = generate(*args, **kwargs)
                found.calls.append(scoring.rows(returned))
            finally:
                scoring.call = None
            return returned

        network.generate = scored
        try:
            yield found
        finally:
            if own is None:
                del network.generate
            else:
                network.generate = own


@dataclass
class _Call:
    """One call of `generate` under way."""

    prompt: int
    """Columns of the prompt."""
    hidden: int
    """How many of them the returned sequences lack."""
    ends: frozenset[int]
    """Tokens that end a row, or stand behind its end."""
    own_cache: bool
    """Whether the cache is of this call alone."""
    seen: int
    """Columns fed so far."""
    read: int
    """The first column that is not read yet."""
    new: int = 0
    """How many columns of the forward under way were generated."""
    fed: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    """(row, token) ids of the generated columns."""
    scores: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    """(row, token) of the generated columns."""
    early: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    """(row, token) of the prompt's columns, where they are read too."""
    counts: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    """(row, token) which of these count as text."""
    last: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the latest forward was given."""
    ended: set[int] = field(default_factory=set[int])
    """Rows that the callback knows to have ended."""


class _Scoring:
    """The hooks on the model as a whole: which tokens a forward is given, and what came of them."""

    def __init__(self, detector: Detector, network: Any, reads: Reads, each: Each | None) -> None:
        self._detector, self._network, self._reads, self._each = detector, network, reads, each
        self._whole = reads_prompt(detector)
        self.call: _Call | None = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of `generate` with these arguments.

        Raises:
            InputError: it would reorder its rows, or feed other tokens than it returns.
        """
        given: Any = args[1] if len(args) > 1 else kwargs.get("generation_config")
        given = self._network.generation_config if given is None else given

        def option(name: str) -> Any:
            return kwargs[name] if name in kwargs else getattr(given, name, None)

        if (option("num_beams") or 1) > 1:
            raise InputError("a detector is attached, and beams swap rows while they grow; generate with num_beams=1")
        if refused := next((name for name in _REFUSED if option(name) is not None), None):
            raise InputError(f"a detector is attached, which cannot follow generate with {refused}; leave it out")
        ids = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        embeds = kwargs.get("inputs_embeds")
        first: Any = ids if embeds is None else embeds
        prompt = 1 if first is None else int(first.shape[1])
        cache = kwargs.get("past_key_values")
        if cache is not None and self._whole and int(cache.get_seq_length()):
            raise InputError(
                f"{self._detector.path}: it reads the prompt too, which past_key_values holds already; leave them out"
            )
        self.call = _Call(
            prompt=prompt,
            hidden=prompt if ids is None and embeds is not None else 0,
            ends=frozenset(_numbers(option("eos_token_id"))) | frozenset(_numbers(option("pad_token_id"))),
            own_cache=cache is None and not option("return_dict_in_generate"),
            seen=0 if cache is None else int(cache.get_seq_length()),
            read=0 if self._whole else prompt,
        )

    def before(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Have the layers' hooks read the columns that are new in this forward."""
        if (call := self.call) is None:
            self._reads.last = 0
            return
        ids: Any = args[0] if args else kwargs.get("input_ids")
        width = int((kwargs["inputs_embeds"] if ids is None else ids).shape[1])
        call.seen = width if kwargs.get("past_key_values") is None else call.seen + width
        self._reads.last = max(0, call.seen - call.read)
        call.last = {**kwargs, "input_ids": ids}
        call.new = max(0, min(self._reads.last, call.seen - call.prompt))
        if call.new and ids is not None:
            call.fed.append(ids[:, -call.new :])
        if (early := self._reads.last - call.new) > 0:
            call.counts.append(self._counted(ids, kwargs.get("attention_mask"))[:, :early])

    def _counted(self, ids: Any, mask: Any) -> torch.Tensor:
        """(row, token) of a prompt: not what was padded, and no BOS."""
        bos = self._network.config.get_text_config(decoder=True).bos_token_id
        counts = torch.ones_like(ids, dtype=torch.bool)
        if isinstance(mask, torch.Tensor) and mask.ndim == 2:
            counts = mask[:, -ids.shape[1] :].bool()
        first = counts & (counts.cumsum(1) == 1)
        return counts & ~(first & (ids == (-1 if bos is None else bos)))

    def after(self, _module: Any, _args: Any, _output: Any) -> None:
        """Keep what was read."""
        if (call := self.call) is None or not self._reads.last:
            return
        scores = self._reads.scores()
        call.read = call.seen
        early = scores.shape[1] - call.new
        if early:
            call.early.append(scores[:, :early])
        if call.new:
            call.scores.append(scores[:, early:])
            if self._each is not None:
                self._tell(call, self._each)

    def _tell(self, call: _Call, each: Each) -> None:
        """Hand the token that each row was just fed to the callback."""
        known = call.fed[-1][:, -1].tolist()
        call.ended |= {row for row, token in enumerate(known) if token in call.ends}
        logits = self._logits(call)
        each(
            [
                None if row in call.ended else self._scored([token], logits[row][-1:])[0]
                for row, token in enumerate(known)
            ]
        )

    def rows(self, returned: Any) -> list[list[Scored]]:
        """What came of the call that returned this.

        Raises:
            InputError: other tokens were fed than returned.
        """
        call = self.call
        assert call is not None
        sequences: torch.Tensor = returned if isinstance(returned, torch.Tensor) else returned.sequences
        written = sequences[:, call.prompt - call.hidden :]
        self._feed_last(call, written)
        fed = torch.cat(call.fed, 1)[:, : written.shape[1]] if call.fed else written[:, :0]
        if fed.shape[0] != written.shape[0] or not torch.equal(fed, written[:, : fed.shape[1]].to(fed.device)):
            raise InputError(
                "a detector is attached, and generate fed other tokens than it returned: they cannot be scored; "
                "generate without beams, guidance or candidates"
            )
        rows: list[list[Scored]] = []
        for ids, logits in zip(written.tolist(), self._logits(call, len(written)), strict=True):
            count = next((place for place, token in enumerate(ids) if token in call.ends), len(ids))
            rows.append(self._scored(ids[:count], logits[:count]))
        return rows

    def _logits(self, call: _Call, rows: int = 0) -> list[np.ndarray]:
        """Of each row, (token,) the score of the text up to each generated token that was fed."""
        if not call.scores:
            return [np.zeros(0)] * rows
        scores = torch.cat(call.scores, 1).cpu().double().numpy()
        early = [None] * len(scores)
        if call.early:
            values, counts = (torch.cat(parts, 1).cpu().numpy() for parts in (call.early, call.counts))
            early = [row[counted] for row, counted in zip(values, counts, strict=True)]
        position = self._detector.position
        return [prefix_scores(position, row, before) for row, before in zip(scores, early, strict=True)]

    def _scored(self, ids: list[int], logits: np.ndarray) -> list[Scored]:
        """Tokens with their scores; those beyond the last score were not fed."""
        chances = self._detector.calibration.probabilities(logits)
        known = [Scored(*found) for found in zip(ids, chances.tolist(), logits.tolist(), strict=False)]
        return known + [Scored(token, None, None) for token in ids[len(known) :]]

    def _feed_last(self, call: _Call, written: torch.Tensor) -> None:
        """Feed the last tokens, which `generate` does not, if a row goes up to there and nobody else has the cache."""
        cache = call.last.get("past_key_values")
        if (
            call.read - call.prompt != written.shape[1] - 1
            or not call.own_cache
            or type(cache).__name__ != "DynamicCache"
        ):
            return
        if set(written[:, -1].tolist()) <= call.ends:
            return
        kwargs = {name: value for name, value in call.last.items() if value is not None}
        kwargs["input_ids"] = written[:, -1:]
        for name, value in kwargs.items():
            if name == "attention_mask" and isinstance(value, torch.Tensor) and value.ndim == 2:
                kwargs[name] = torch.cat([value, value.new_ones(len(value), 1)], 1)
            elif name in ("position_ids", "cache_position"):
                kwargs[name] = value[..., -1:] + 1
        with torch.no_grad():
            self._network(**kwargs)


def _numbers(value: Any) -> list[int]:
    """Token ids, of an option that may be one, several, or none."""
    if value is None:
        return []
    return [int(one) for one in (value.flatten().tolist() if isinstance(value, torch.Tensor) else np.ravel(value))]
