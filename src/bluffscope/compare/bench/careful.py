"""What a careful user's own script does for residuals and features: transformers and SAELens, sorted padded batches.

It shares nothing with the engine that it is measured against: neither tokens, batches, forward nor encode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Float

BATCH = 16
"""Texts a forward."""


class Found(NamedTuple):
    """Residuals and features of texts at their last token."""

    residuals: dict[int, Float[torch.Tensor, "text d_model"]]
    features: dict[int, Float[torch.Tensor, "text d_sae"]]
    slots: int
    """Tokens that went through the model, padding included."""


def load(folder: str, *, head: bool) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer, as transformers gives them.

    Args:
        folder: of the model.
        head: as a causal language model, which is the usual call; without, logits are not computed.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    kind: Any = AutoModelForCausalLM if head else AutoModel
    return kind.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def read(
    model: Any, tokenizer: Any, saes: Mapping[int, Any], states: Mapping[int, int], texts: Sequence[str], *, bos: bool
) -> Found:
    """Residuals at each text's last token, and the features that SAELens's own encode finds there.

    Args:
        model: what `load` gives.
        tokenizer: the same.
        saes: SAELens's SAE of each layer that has one.
        states: by layer, the index into `hidden_states` at which its residual stands.
        texts: all of them.
        bos: whether the SAEs were trained on texts with a BOS in front.
    """
    lead = [tokenizer.bos_token_id] if bos else []
    ids = [lead + text for text in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    residuals: dict[int, list[torch.Tensor]] = {layer: [] for layer in states}
    features: dict[int, list[torch.Tensor]] = {layer: [] for layer in saes}
    slots = 0
    for start in range(0, len(order), BATCH):
        rows = [ids[index] for index in order[start : start + BATCH]]
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = (torch.arange(width) < lengths[:, None]).long()
        hidden = model(input_ids=padded, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
        slots += padded.numel()
        for layer, state in states.items():
            residuals[layer].append(hidden[state][torch.arange(len(rows)), lengths - 1])
            if layer in saes:
                features[layer].append(saes[layer].encode(residuals[layer][-1]))
    back = torch.tensor(order).argsort()
    at, active = ({layer: torch.cat(parts)[back] for layer, parts in found.items()} for found in (residuals, features))
    return Found(at, active, slots)
