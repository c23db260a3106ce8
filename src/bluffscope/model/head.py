"""The LM head at a few positions: log-probabilities of given tokens, in float32 or better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import nn

from bluffscope.errors import NoHeadError
from bluffscope.host.float64_guard import computing_in
from bluffscope.model.failures import model_errors
from bluffscope.model.load import LanguageModel

SLICE_BYTES: Final = 200 << 20
"""Most bytes that logits, their copies and converted weights take at once; the vocabulary comes in slices."""
COPIES: Final = 3
"""Of a slice's logits: themselves, and the copies that capping and the sum of exponentials need."""
CHECK_TOLERANCE: Final = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.01}
"""Relative difference from the model's own logits; in half precision these are rounded themselves."""
_CHECK_TOKENS: Final = 8


@dataclass(frozen=True)
class Head:
    """A causal language model taken apart: the network that ends in the final norm, and what makes logits of it."""

    body: nn.Module
    weight: Float[torch.Tensor, "vocabulary d_model"]
    bias: Float[torch.Tensor, " vocabulary"] | None
    scale: float
    """Logits are multiplied by it (Cohere, Granite)."""
    cap: float | None
    """c of cap(z) = c tanh(z / c), the final soft-capping (Gemma 2); None if the model has none."""

    @classmethod
    def create(cls, model: LanguageModel, flag: str = "--logprob") -> Head:
        """Take a whole model apart, and see on a short text that the parts give the model's own logits.

        Args:
            model: loaded with all its blocks and its head.
            flag: what asks for it, for messages.

        Raises:
            NoHeadError: its base model and head cannot be told apart, or it does more with its logits than is known.
        """
        network: Any = model.network
        who = f"{flag}: {model.name} ({type(network).__name__})"
        linear = network.get_output_embeddings()
        body = network.base_model
        if body is network or not isinstance(linear, nn.Linear):
            raise NoHeadError(f"{who} has no linear LM head on a base model; leave it out")
        scale = getattr(model.config, "logit_scale", None) or 1 / (getattr(model.config, "logits_scaling", None) or 1)
        cap = getattr(model.config, "final_logit_softcapping", None)
        head = cls(body, linear.weight, linear.bias, float(scale), None if cap is None else float(cap))
        with model_errors(model.name, "model"):  # some write nothing without sound or a picture
            same = head._gives_the_logits_of(model)
        if not same:
            raise NoHeadError(
                f"{who} does more with its logits than scale and cap them, which is not supported; leave it out"
            )
        return head

    def logprobs(
        self, hidden: Float[torch.Tensor, "target d_model"], tokens: Int[torch.Tensor, " target"]
    ) -> Float[torch.Tensor, " target"]:
        """Log-probability of one token at each position, in nats.

        Args:
            hidden: states after the final norm.
            tokens: the requested id at each.

        Returns:
            log softmax over the whole vocabulary, in float64 where `hidden` is, else in float32.
        """
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        total = hidden.new_full((len(tokens),), -torch.inf)
        chosen = hidden.new_zeros((len(tokens),))
        width = max(1, SLICE_BYTES // (hidden.itemsize * (COPIES * len(tokens) + hidden.shape[1])))
        for start in range(0, len(self.weight), width):
            logits = self._logits(hidden, slice(start, start + width))  # (target, slice)
            total = torch.logaddexp(total, logits.logsumexp(1))
            place = tokens - start
            inside = (place >= 0) & (place < logits.shape[1])
            found = logits.gather(1, place.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
            chosen = torch.where(inside, found, chosen)
        return chosen - total

    def logits(self, hidden: Float[torch.Tensor, "target d_model"]) -> Float[torch.Tensor, "target vocabulary"]:
        """Logits over the whole vocabulary, in the dtype of `hidden`; weights of another are converted in slices."""
        if self.weight.dtype == hidden.dtype:
            return self._logits(hidden, slice(None))
        found = hidden.new_empty((len(hidden), len(self.weight)))
        width = max(1, SLICE_BYTES // (hidden.itemsize * hidden.shape[1]))
        for start in range(0, len(self.weight), width):
            found[:, start : start + width] = self._logits(hidden, slice(start, start + width))
        return found

    def _logits(self, hidden: torch.Tensor, of: slice) -> torch.Tensor:
        """(target, slice) logits in the dtype of `hidden`; the model's own rounds them to half precision."""
        bias = None if self.bias is None else self.bias[of].to(hidden.dtype)
        logits = nn.functional.linear(hidden, self.weight[of].to(hidden.dtype), bias)
        if self.scale != 1:
            logits *= self.scale
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    @torch.inference_mode()
    def _gives_the_logits_of(self, model: LanguageModel) -> bool:
        ids = [(number * 7919 + 11) % len(self.weight) for number in range(_CHECK_TOKENS)]
        tokens = torch.tensor([ids], device=model.device)
        with computing_in(model.dtype):
            expected = model.network(input_ids=tokens, use_cache=False).logits[0]  # (token, vocabulary)
            hidden = self.body(input_ids=tokens, use_cache=False)[0][0]  # (token, d_model)
            precise = torch.promote_types(model.dtype, torch.float32)
            found = self._logits(hidden.to(precise), slice(None))
            if found.shape != expected.shape:
                return False
            difference = (found - expected.to(precise)).norm()
        return bool(difference <= CHECK_TOLERANCE[model.dtype] * found.norm())
