"""Analysis 6 of the reference: what each layer would predict, by letting the model finish from its residual stream.

The third part of `bluffscope.reference.analyses`, under the same rule: no code in common with the engine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from bluffscope.records import View
from bluffscope.reference.geometry import cosine, mean
from bluffscope.reference.model import Counts, Text, logits, logits_from

Value = float | None


def lens(
    model: torch.nn.Module, text: Text, states: Mapping[int, torch.Tensor], counts: Counts
) -> dict[int, dict[str, Value]]:
    """By layer the four metrics of the logit lens over the positions that predict a completion's tokens.

    Args:
        model: the whole causal language model.
        text: prompt and completion.
        states: (token, d_model) residual stream of each layer.
        counts: added to.

    Returns:
        Each None where the completion's first token is the first of the text: nothing predicts it.
    """
    first, stop = text.own.start, text.own.stop
    if first == 0:
        return {layer: dict.fromkeys(("lens_logprob", "lens_entropy", "lens_js", "lens_rank")) for layer in states}
    places, following = slice(first - 1, stop - 1), torch.tensor(text.ids[first:stop])
    last = torch.log_softmax(logits(model, text, counts)[places], dim=1)  # (target, vocabulary)
    found: dict[int, dict[str, Value]] = {}
    for layer, residual in states.items():
        own = torch.log_softmax(logits_from(model, text, residual, counts)[places], dim=1)
        chosen = own.gather(1, following[:, None])  # (target, 1)
        found[layer] = {
            "lens_logprob": float(chosen.mean()),
            "lens_entropy": float(_entropy(own.exp()).mean()),
            "lens_js": float(_divergence(own.exp(), last.exp()).mean()),
            "lens_rank": float(np.median(1 + (own > chosen).sum(1).numpy())),
        }
    return found


def at_reads(residuals: Mapping[View, np.ndarray], completions: tuple[View, ...]) -> dict[View, dict[str, Value]]:
    """Norm, and cosine with the prompt's single read, of one layer's (read, d_model) residuals, means over reads."""
    found: dict[View, dict[str, Value]] = {
        view: {"residual_norm": mean(float(np.linalg.norm(x)) for x in reads)} for view, reads in residuals.items()
    }
    prompt = residuals.get("prompt")
    for view in completions:
        cosines = () if prompt is None else (cosine(x, prompt[0]) for x in residuals[view])
        found[view]["prompt_cosine"] = mean(cosines)
    return found


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    """(target,) entropies in nats."""
    return torch.special.entr(shares).sum(1)


def _divergence(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(target,) Jensen-Shannon divergences in bits: the entropy of the mean less the mean of the entropies."""
    nats = _entropy((left + right) / 2) - (_entropy(left) + _entropy(right)) / 2
    return nats.clamp_min(0) / np.log(2)
