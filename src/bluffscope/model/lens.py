"""The logit lens: what a model would predict if a layer were its last, by all that it does behind its last block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import nn

from bluffscope.errors import InputError
from bluffscope.host.float64_guard import computing_in
from bluffscope.model.head import CHECK_TOLERANCE, Head
from bluffscope.model.hooks import HookPoint
from bluffscope.model.load import LanguageModel
from bluffscope.records import LensReading

LENS_BYTES: Final = {"cpu": 200 << 20, "mps": 400 << 20, "cuda": 1 << 30}
"""Most bytes of the logits that are held at once, by device: positions come in blocks, each over the whole
vocabulary."""
_HELD: Final = 4
"""Blocks of logits that are held: the model's own, its probabilities and their logarithms, and the layer's."""
_CELLS: Final = {"cpu": 1 << 18, "mps": 1 << 22, "cuda": 1 << 23}
"""Logits that are turned into probabilities at a time; on a CPU few enough to stay in its caches."""
_BITS: Final = 0.6931471805599453
"""Nats of a bit."""


@dataclass(frozen=True)
class Lens:
    """A model's way from its last block to its logits, for the residual stream of any layer."""

    head: Head
    tail: tuple[nn.Module, ...]
    """What the model calls between its last block and its LM head, in order: a norm, a projection, or nothing."""
    dtype: torch.dtype
    """Of the model, in which the tail is called."""
    last: int | None
    """The measured layer that is what leaves the last block, if one is: its reading is the model's own prediction."""

    @classmethod
    def create(cls, model: LanguageModel, head: Head, points: Mapping[int, HookPoint]) -> Lens:
        """Find out what the model does behind its last block, and see on a short text that it gives the model's states.

        Args:
            model: loaded with all its blocks and its head.
            head: of the model.
            points: hook point of each measured layer.

        Raises:
            InputError: a layer's hook point is no residual stream, or there is more to it than modules called in turn.
        """
        for layer, point in points.items():
            if not point.point.startswith("hook_resid"):
                raise InputError(
                    f"--trajectory: the SAE of layer {layer} reads {point.point}, which is no residual stream; use "
                    "--no-trajectory"
                )
        final = HookPoint(len(model.blocks) - 1, "hook_resid_post")
        last = next(
            (layer for layer, point in points.items() if (point.block, point.point) == (final.block, final.point)), None
        )
        lens = cls(head, (), model.dtype, last)
        tail, states, expected = lens._watched(model, final)
        lens = cls(head, tuple(tail), model.dtype, last)
        found = lens.finished(states).to(expected.dtype)
        if not bool((found - expected).norm() <= CHECK_TOLERANCE[model.dtype] * expected.norm()):
            raise InputError(
                f"--trajectory: {model.name} ({type(model.network).__name__}) does more behind its last block than "
                "call one module after the other, which is not supported; use --no-trajectory"
            )
        return lens

    def finished(self, states: Float[torch.Tensor, "target d_model"]) -> Float[torch.Tensor, "target d_head"]:
        """What the tail makes of residuals."""
        with computing_in(self.dtype):
            hidden = states[None].to(self.dtype)
            for module in self.tail:
                hidden = module(hidden)
        return hidden[0]

    def read(
        self,
        states: Mapping[int, Float[torch.Tensor, "target d_model"]],
        final: Float[torch.Tensor, "target d_head"],
        tokens: Int[torch.Tensor, " target"],
    ) -> tuple[dict[int, LensReading], Float[torch.Tensor, " target"]]:
        """What each layer predicts at some positions of the batch.

        Logits are computed for a block of positions at a time, in float32 or better, and layers are taken in turn
        against the same block of the model's own prediction.

        Args:
            states: the residual stream of each layer there.
            final: the model's own states there, behind its tail.
            tokens: the token that follows each; at least one.

        Returns:
            The readings by layer, and the log-probabilities of the tokens as the model itself gives them, in nats.
        """
        precise = torch.promote_types(final.dtype, torch.float32)
        rows = max(1, LENS_BYTES[final.device.type] // (_HELD * precise.itemsize * len(self.head.weight)))
        parts: dict[int, list[LensReading]] = {layer: [] for layer in states}
        own: list[torch.Tensor] = []
        for start in range(0, len(tokens), rows):
            block = slice(start, start + rows)
            logits = self.head.logits(final[block].to(precise))  # (target, vocabulary)
            reading, likely = _reading(logits, None, tokens[block]), _predictions(logits)
            own.append(reading.logprob)
            for layer, at_layer in states.items():
                if layer != self.last:
                    logits = self.head.logits(self.finished(at_layer[block]).to(precise))
                    parts[layer].append(_reading(logits, likely, tokens[block]))
                else:
                    parts[layer].append(reading)
        return {layer: LensReading.joined(found) for layer, found in parts.items()}, torch.cat(own)

    @torch.inference_mode()
    def _watched(self, model: LanguageModel, final: HookPoint) -> tuple[list[nn.Module], torch.Tensor, torch.Tensor]:
        """The modules that are called behind the last block, what leaves it, and what the body ends with."""
        body: Any = self.head.body
        inside = {id(module) for block in model.blocks for module in block.modules()}
        left: list[torch.Tensor] = []
        tail: list[nn.Module] = []
        running: list[nn.Module] = []

        def enter(module: nn.Module, *_: Any) -> None:
            if left and not running:
                tail.append(module)
            if left:
                running.append(module)

        def leave(module: nn.Module, *_: Any) -> None:
            if running and running[-1] is module:
                running.pop()

        handles = [final.attach(model.blocks, lambda states: left.append(states[0].clone()))]
        for module in body.modules():
            if id(module) not in inside:
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        ids = [(number * 7919 + 11) % len(self.head.weight) for number in range(8)]
        try:
            with computing_in(model.dtype):
                ended = body(input_ids=torch.tensor([ids], device=model.device), use_cache=False)[0][0]
        finally:
            for handle in handles:
                handle.remove()
        return tail, left[-1], ended


@dataclass(frozen=True)
class _Prediction:
    """Probabilities over the vocabulary at some positions, as they are compared with those of other layers."""

    share: Float[torch.Tensor, "target vocabulary"]
    """Probabilities."""
    log: Float[torch.Tensor, "target vocabulary"]
    """Their logarithms."""

    def rows(self, of: slice) -> _Prediction:
        """At some of the positions."""
        return _Prediction(self.share[of], self.log[of])


def _predictions(logits: Float[torch.Tensor, "target vocabulary"]) -> _Prediction:
    likely = logits.log_softmax(1)
    return _Prediction(likely.exp(), likely)


def _reading(
    logits: Float[torch.Tensor, "target vocabulary"], last: _Prediction | None, tokens: Int[torch.Tensor, " target"]
) -> LensReading:
    """What logits say of the tokens, a few positions at a time; `last` is the model's own prediction."""
    width = max(1, _CELLS[logits.device.type] // logits.shape[1])
    pieces = [slice(start, start + width) for start in range(0, len(tokens), width)]
    return LensReading.joined(
        [_of_rows(logits[rows], None if last is None else last.rows(rows), tokens[rows]) for rows in pieces]
    )


def _of_rows(logits: torch.Tensor, last: _Prediction | None, tokens: torch.Tensor) -> LensReading:
    chosen = logits.gather(1, tokens[:, None])  # (target, 1)
    likely = torch.empty_like(logits)
    rank = 1 + torch.gt(logits, chosen, out=likely).sum(1)  # as numbers: sums of booleans take four times as long
    # One exponential an entry: probabilities, entropy and logarithms follow from e^(z - max) and its sum.
    torch.sub(logits, logits.amax(1, keepdim=True), out=likely)
    share = likely.exp()
    total = share.sum(1, keepdim=True)
    share /= total
    likely -= total.log()
    entropy = -(share * likely).sum(1)
    js = torch.zeros_like(entropy)
    if last is not None:
        # With m their mean it is the sum of (p (ln p - ln m) + q (ln q - ln m)) / 2: each logarithm is subtracted in
        # its own place, so that little is lost where p and q hardly differ, and ln m is the only further one to take.
        mean = (share + last.share).mul_(0.5).clamp_min_(torch.finfo(share.dtype).tiny).log_()
        apart = (last.log - mean).mul_(last.share)
        js = apart.addcmul_(share, likely - mean).sum(1).div_(2 * _BITS).clamp_(0, 1)
    return LensReading(likely.gather(1, tokens[:, None])[:, 0], entropy, js, rank.to(entropy.dtype))
