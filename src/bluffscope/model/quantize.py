"""Weights of a model's linear layers as 8-bit or 4-bit integers; embeddings, norms and activations stay as they are."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from bluffscope.errors import InputError

Quantize = Literal["none", "int8", "int4"]

_DEVICES = {"int8": ("cpu", "cuda"), "int4": ("cuda",)}
_PACKAGES = {"int8": ("torchao",), "int4": ("bitsandbytes", "accelerate")}
_INSTALL = "pip install 'bluffscope[quant]'"


def check_quantize(quantize: Quantize, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what cannot be quantised, before anything is loaded.

    Raises:
        InputError: the device or dtype does not go with it, or a package of the extra `quant` is missing.
    """
    if quantize == "none":
        return
    if dtype == torch.float64:
        raise InputError(
            f"--quantize {quantize}: it rounds the weights and cannot be combined with --dtype float64; "
            "choose float32, bfloat16 or float16"
        )
    if device.type not in (there := _DEVICES[quantize]):
        instead = "use --quantize int8" if device.type in _DEVICES["int8"] else "use --quantize int8 --device cpu"
        raise InputError(f"--quantize {quantize}: it runs on {' or '.join(there)}, not on {device.type}; {instead}")
    if missing := next((name for name in _PACKAGES[quantize] if find_spec(name) is None), None):
        raise InputError(f"--quantize {quantize}: it needs {missing}, which is not installed; {_INSTALL}")


_HEADS = ("lm_head", "embed_out")
"""Names of LM heads."""


def loading_options(quantize: Quantize, device: torch.device, dtype: torch.dtype, *, head: bool) -> dict[str, Any]:
    """Further arguments of ``from_pretrained``: for int4, whose layers bitsandbytes replaces before they are filled.

    Nothing but the LM head is excepted, where one is loaded: left to itself, transformers would leave out the last
    module for a head's sake. Without a device map bitsandbytes would take the first device there is.
    """
    if quantize != "int4":
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(_HEADS) if head else [],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def quantize_to_int8(network: nn.Module, device: torch.device) -> None:
    """Round the weights of all linear layers, in place: one scale for each output row, products in the model's dtype.

    Each layer goes to the device by itself, so that it never holds the whole model unquantised. The activations are
    not rounded: that is less exact, and where bfloat16 is fast it is no faster (docs/models.md has the numbers).
    """
    # Seconds-slow, and optional: type checkers may not find it.
    from torchao.quantization import (  # pyright: ignore[reportMissingImports]
        Int8WeightOnlyConfig,
        quantize_,
    )
    from transformers.pytorch_utils import Conv1D

    # GPT-2's layers are linear ones with their weight transposed, which torchao does not know.
    for name, layer in list(network.named_modules()):
        if isinstance(layer, Conv1D):
            linear = nn.Linear(layer.nx, layer.nf, device="meta")
            linear.weight, linear.bias = nn.Parameter(layer.weight.T.contiguous(), requires_grad=False), layer.bias
            network.set_submodule(name, linear)
    # Inductor is not used here: its settings are global, and left alone.
    quantize_(network, Int8WeightOnlyConfig(set_inductor_config=False), device=device)
