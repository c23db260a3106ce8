"""Attention patterns of packed tries, as the float masks that Hugging Face models add to their scores."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int

from bluffscope.host.buffers import Buffers

MaskStyle = Literal["by-kind", "single"]


def ancestors(subtree_end: Int[torch.Tensor, "row token"]) -> Bool[torch.Tensor, "row token token"]:
    """Which slots (last axis) each slot (middle axis) attends to: its ancestors and itself.

    In depth-first order the descendants of k are the slots [k, end_k), so q sees k where
    k <= q < end_k. A pad's subtree is itself: it sees itself only, which keeps its softmax finite.
    """
    slots = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = slots[None, :, None], slots[None, None, :]
    return (key <= query) & (query < subtree_end[:, None, :])


def additive(
    visible: Bool[torch.Tensor, "row token token"], mask: Float[torch.Tensor, "row token token"]
) -> Float[torch.Tensor, "row 1 token token"]:
    """Fill `mask`: 0 where a slot may attend, the dtype's lowest number where not (eager attention adds the mask)."""
    return mask.zero_().masked_fill_(~visible, torch.finfo(mask.dtype).min)[:, None]


def attention_masks(
    style: MaskStyle,
    subtree_end: Int[torch.Tensor, "row token"],
    position_ids: Int[torch.Tensor, "row token"],
    window: int | None,
    dtype: torch.dtype,
    buffers: Buffers | None = None,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask argument of a model's forward.

    Args:
        style: "by-kind" returns one mask for each kind of layer, as models with several kinds take it
            (Gemma 2 and 3, Qwen 2 and 3); "single" returns one 4-D mask for all layers.
        subtree_end: see `PackedBatch`.
        position_ids: depth of each slot in its trie.
        window: width of the sliding window in positions (not slots), or None.
        dtype: of the model's attention scores.
        buffers: where the masks are put; they are overwritten by the next call with the same buffers.
    """
    buffers = buffers or Buffers()
    visible = ancestors(subtree_end)
    shape, device = tuple(visible.shape), visible.device
    if window is None or int(position_ids.max()) < window:  # the window covers every text
        full = additive(visible, buffers.take("full", shape, dtype, device))
        return full if style == "single" else {"full_attention": full, "sliding_attention": full}
    distance = position_ids[:, :, None] - position_ids[:, None, :]  # (row, query, key)
    sliding = additive(visible & (distance < window), buffers.take("sliding", shape, dtype, device))
    if style == "single":
        return sliding
    full = additive(visible, buffers.take("full", shape, dtype, device))
    return {"full_attention": full, "sliding_attention": sliding}
