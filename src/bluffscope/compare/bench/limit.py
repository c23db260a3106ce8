"""What is possible: this machine's matrix-product peak, measured at the model's own sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn

from bluffscope.model import LanguageModel
from bluffscope.sae import Coder

TOKENS: Final = 1024
"""Rows of the products that are timed: a batch of the engine."""
_REPEATS: Final = 5


def matrix_peak(model: LanguageModel, coders: Mapping[int, Coder]) -> dict[str, Any]:
    """Floating-point operations a second of plain matrix products, each of a block's sizes at its best.

    Returns:
        peak_flops: a second, over one block's products together; by_size: of each; flops_per_token: of the loaded
        blocks' products (attention apart); flops_per_encode: of one residual in the first layer's SAE, and
        encode_peak_flops at its size.
    """
    linear = [module for module in model.blocks[0].modules() if isinstance(module, nn.Linear)]
    sizes = [(module.in_features, module.out_features) for module in linear]
    seconds = {size: _best(_product(*size, model.dtype)) for size in set(sizes)}
    flops = [2 * TOKENS * rows * columns for rows, columns in sizes]
    coder = next(iter(coders.values()))
    encode = 2 * coder.d_in * coder.d_sae
    return {
        "tokens": TOKENS,
        "threads": torch.get_num_threads(),
        "peak_flops": sum(flops) / sum(seconds[size] for size in sizes),
        "by_size": {f"{a} x {b}": 2 * TOKENS * a * b / taken for (a, b), taken in seconds.items()},
        "flops_per_token": len(model.blocks) * sum(flops) / TOKENS,
        "flops_per_encode": encode,
        "encode_peak_flops": TOKENS * encode / _best(_product(coder.d_in, coder.d_sae, coder.decoder.dtype)),
    }


def plain_forward_seconds(model: LanguageModel, texts: list[list[int]]) -> float:
    """Seconds of one plain call of the causal language model, the mean over texts, as anybody would make it."""
    with torch.no_grad():
        model.network(input_ids=torch.tensor([texts[0]]))  # its first call does not count, as that of the run did not
        started = time.perf_counter()
        for ids in texts:
            model.network(input_ids=torch.tensor([ids]))
        return (time.perf_counter() - started) / len(texts)


def _product(rows: int, columns: int, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    left, weight = torch.randn(TOKENS, rows).to(dtype), torch.randn(columns, rows).to(dtype)
    return lambda: nn.functional.linear(left, weight)


@torch.inference_mode()
def _best(run: Callable[[], torch.Tensor]) -> float:
    """The shortest of some runs, after one that does not count."""
    run()
    taken: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)
