"""The tokens that a feature promotes: its decoder direction through the final norm's gain and the LM head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from bluffscope.errors import InputError
from bluffscope.host.float64_guard import own_settings
from bluffscope.model import LanguageModel
from bluffscope.model.hooks import HOOK_Z, final_norm
from bluffscope.pipeline.reload import load_whole
from bluffscope.table.reader import Run

TOKENS: Final = 5


@own_settings()
def promoted_tokens(
    run: Run, features: Mapping[int, Sequence[int]], device: str, count: int = TOKENS
) -> dict[tuple[int, int], list[str]]:
    """The tokens whose logits each feature raises most, the most raised first.

    Args:
        run: a finished run, whose model and SAEs are loaded.
        features: indices by layer.
        device: "auto" or a torch device.
        count: tokens of each feature.

    Returns:
        Tokens as text by layer and feature.

    Raises:
        InputError: model or SAEs cannot be loaded, are others than the run's, or the model has no linear LM head.
    """
    parts, _ = load_whole(run, features, device)
    found: dict[tuple[int, int], list[str]] = {}
    for layer, chosen in features.items():
        if parts.coders[layer].hook_name.endswith(HOOK_Z):
            raise InputError(f"--tokens: the SAE of layer {layer} reads hook_z, no residual stream; leave --tokens out")
        directions = parts.coders[layer].decoder[torch.tensor(list(chosen), device=parts.model.device)]
        best = promotions(parts.model, directions).topk(count, dim=1).indices
        for feature, tokens in zip(chosen, best.tolist(), strict=True):
            found[layer, feature] = [_text(parts.model, token) for token in tokens]
    return found


@torch.inference_mode()
def promotions(model: LanguageModel, directions: torch.Tensor) -> torch.Tensor:
    """(feature, vocabulary) how far a unit of each direction raises each logit, the final norm's scale held fixed.

    The logit lens of nostalgebraist (2020) for directions, as Neuronpedia shows it: (direction * gain) @ W_U, the
    direction centred first where the norm is a LayerNorm. Soft-capping and the norm's own scale keep the order.

    Args:
        model: loaded whole.
        directions: (feature, d_model).

    Raises:
        InputError: the model has no linear LM head behind a final norm that is known.
    """
    network: Any = model.network
    head, body = network.get_output_embeddings(), network.base_model
    norm = final_norm(body)
    if norm is None or body is network or not isinstance(head, nn.Linear):
        raise InputError(f"--tokens: {model.name} ({type(network).__name__}) has no linear LM head behind a final norm")
    directions = directions.to(torch.promote_types(directions.dtype, torch.float32))
    if isinstance(norm, nn.LayerNorm):
        directions = directions - directions.mean(dim=1, keepdim=True)
    return (directions * _gain(norm, model, directions)) @ head.weight.to(directions.dtype).T


def _gain(norm: nn.Module, model: LanguageModel, like: torch.Tensor) -> torch.Tensor:
    """(d_model,) what the norm multiplies its normalised input with.

    Families store it differently (Gemma keeps weight - 1), so the norm itself is asked: of a vector of ones and minus
    ones, whose mean is 0 and whose variance is 1, it gives the gain with these signs, and the bias besides.
    """
    signs = torch.ones(model.d_model, device=model.device, dtype=model.dtype)
    signs[1::2] = -1
    both = norm(torch.stack([signs, -signs])[None])[0].to(like.dtype)
    return (both[0] - both[1]) / 2 * signs.to(like.dtype)


def _text(model: LanguageModel, token: int) -> str:
    """A token as text; its vocabulary piece where it is only a part of a character."""
    text: str = model.tokenizer.decode([token])  # pyright: ignore[reportAssignmentType]
    return str(model.tokenizer.convert_ids_to_tokens(token)) if "\N{REPLACEMENT CHARACTER}" in text else text
