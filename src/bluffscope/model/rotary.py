"""Rotary embeddings that remember the longest text of earlier forwards."""

from __future__ import annotations

from typing import Any

from torch import nn

_ORIGINAL = "original_inv_freq"


def forget_lengths(network: nn.Module) -> None:
    """Have every forward start from the frequencies of a model that was just loaded.

    With dynamic NTK, transformers keeps the frequencies of a long text until a text shorter than the context comes: one
    in between, or as long as the context, would get those of the text before it.
    """
    for module in network.modules():
        kinds: Any = getattr(module, "rope_type", None)
        if any("dynamic" in str(kind) for kind in (kinds.values() if isinstance(kinds, dict) else [kinds])):
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, _args: Any) -> None:
    for name in (name for name in dir(module) if name.endswith(_ORIGINAL)):
        prefix = name.removesuffix(_ORIGINAL)  # the kind of layer, where each has its own
        frequencies = getattr(module, f"{prefix}inv_freq")
        setattr(module, f"{prefix}inv_freq", getattr(module, name).to(frequencies.device))
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
