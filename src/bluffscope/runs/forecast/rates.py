"""How fast the work is done: measured here in about two seconds, and assumed of GPUs that are named."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from bluffscope.metrics.geometry import measure_geometry
from bluffscope.pipeline.memory import CELL_FLOPS, Shape
from bluffscope.records import Features

ROWS: Final = 1024
"""Rows of the products that are timed: a batch of the engine."""
MOST_WEIGHTS: Final = 32 << 20
"""Numbers of the largest matrix that is timed; wider ones run at no other rate."""
_READS: Final = 48
_NUMBERS: Final = 1 << 18
_REPEATS: Final = 3


@dataclass(frozen=True)
class Rates:
    """What one worker does in a second."""

    name: str
    products: float
    """Floating-point operations of the blocks' matrix products."""
    encode: float
    """The same of the SAEs', which are float32 at least."""
    cell_seconds: float
    """Of a query-key cell of one head in one block, its products apart: mask, softmax, capping."""
    forward_seconds: float
    """Of one block in one forward, whatever its size: launches and Python."""
    geometry_seconds: float
    """Of one read at one layer, on the processor."""
    noise_numbers: float
    """Normal numbers, on the processor."""
    seconds_a_byte: float
    """Of weights, when they are loaded."""
    apart: bool
    """Whether the model runs beside the processor, which prepares, measures and writes meanwhile."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: published dense peaks, in floating-point operations a second, and memory."""

    half: float
    """bfloat16, without sparsity (float16 where there is no bfloat16)."""
    single: float
    """float32 outside the tensor cores, which is what exact float32 products run on."""
    memory: float
    """Bytes."""


GPUS: Final[dict[str, Gpu]] = {
    "b200": Gpu(2250e12, 75e12, 180e9),
    "h200": Gpu(989e12, 67e12, 141e9),
    "h100": Gpu(989e12, 67e12, 80e9),
    "a100": Gpu(312e12, 19.5e12, 80e9),
    "l40s": Gpu(362e12, 91.6e12, 48e9),
    "l4": Gpu(121e12, 30.3e12, 24e9),
    "a10g": Gpu(70e12, 31.2e12, 24e9),
    "v100": Gpu(125e12, 15.7e12, 32e9),
    "t4": Gpu(65e12, 8.1e12, 16e9),
    "rtx4090": Gpu(165e12, 82.6e12, 24e9),
    "rtx3090": Gpu(71e12, 35.6e12, 24e9),
}
"""By the name that --gpu-kind takes; from the makers' data sheets (SXM where there are two)."""

CPU_SHARE: Final = 0.9
"""Of the matrix-product peak that a forward reaches on a processor (docs/speed.md: 94 % and 84 %)."""
CPU_ENCODE_SHARE: Final = 0.8
"""The same of encoding (docs/speed.md: 85 % and 79 %)."""
CPU_FORWARD_SECONDS: Final = 6e-4
"""Of a block's Python and small operations in a forward, measured with blocks of 16 dimensions."""
CPU_CELL_SECONDS: Final = CELL_FLOPS / 150e9
"""`CELL_FLOPS` was measured where products ran at 150 GFLOP/s."""
GPU_SHARE: Final = 0.4
"""Assumed of a GPU's published peak: what well-kept training and inference code reports."""
GPU_CELL_SECONDS: Final = 4e-11
"""Assumed: a cell in a few numbers of 4 bytes, written and read ten times at 1 TB/s."""
GPU_FORWARD_SECONDS: Final = 4e-4
"""Assumed: about forty launches of 10 microseconds a block."""
LOAD_BYTES_A_SECOND: Final = 1e9


def measured_rates(shape: Shape, dtype: torch.dtype) -> Rates:
    """What this machine's processor does, at the model's own sizes with random numbers; no weights are loaded."""
    width = min(shape.d_mlp, max(64, MOST_WEIGHTS // shape.d_model))
    queries = min(shape.heads * shape.head_dim, max(64, MOST_WEIGHTS // shape.d_model))
    sizes = ((shape.d_model, width), (width, shape.d_model), (shape.d_model, queries))
    first, threads = shape.saes[0], torch.get_num_threads()
    features = min(first.d_sae, max(64, MOST_WEIGHTS // first.d_in))
    return Rates(
        name=f"this processor, {threads} thread{'' if threads == 1 else 's'}",
        products=_product_rate(sizes, dtype) * CPU_SHARE,
        encode=_product_rate(((first.d_in, features),), torch.promote_types(dtype, torch.float32)) * CPU_ENCODE_SHARE,
        cell_seconds=CPU_CELL_SECONDS,
        forward_seconds=CPU_FORWARD_SECONDS,
        geometry_seconds=_geometry_seconds(shape),
        noise_numbers=_NUMBERS / _best(lambda: np.random.Generator(np.random.Philox(0)).standard_normal(_NUMBERS)),
        seconds_a_byte=1 / LOAD_BYTES_A_SECOND,
        apart=False,
    )


def gpu_rates(kind: str, host: Rates, dtype: torch.dtype) -> Rates:
    """What one GPU of a kind is assumed to do beside a processor like this machine's."""
    gpu = GPUS[kind]
    half = dtype in (torch.bfloat16, torch.float16)
    return Rates(
        name=kind,
        products=(gpu.half if half else gpu.single) * GPU_SHARE,
        encode=gpu.single * GPU_SHARE,
        cell_seconds=GPU_CELL_SECONDS,
        forward_seconds=GPU_FORWARD_SECONDS,
        geometry_seconds=host.geometry_seconds,
        noise_numbers=host.noise_numbers,
        seconds_a_byte=host.seconds_a_byte,
        apart=True,
    )


def _product_rate(sizes: tuple[tuple[int, int], ...], dtype: torch.dtype) -> float:
    """Floating-point operations a second over products of `ROWS` rows with matrices of these sizes together."""
    seconds = sum(_best(_product(*size, dtype)) for size in sizes)
    return sum(2.0 * ROWS * rows * columns for rows, columns in sizes) / seconds


def _product(rows: int, columns: int, dtype: torch.dtype) -> Callable[[], object]:
    left, weight = torch.randn(ROWS, rows).to(dtype), torch.randn(columns, rows).to(dtype)
    return lambda: torch.nn.functional.linear(left, weight)


def _geometry_seconds(shape: Shape) -> float:
    """Seconds of one read, the mean over the layers, with as many active features as are published."""
    generator = torch.Generator().manual_seed(0)
    taken = 0.0
    for sae in shape.saes:
        active = max(1, min(round(sae.l0), sae.d_sae))
        rows = min(sae.d_sae, max(active, 2048))
        indices = torch.cat([torch.randperm(rows, generator=generator)[:active].sort().values for _ in range(_READS)])
        features = Features(
            indptr=torch.arange(_READS + 1) * active,
            indices=indices,
            values=torch.rand(_READS * active, generator=generator) + 0.1,
            d_sae=rows,
        )
        decoder = torch.randn(rows, sae.d_in, generator=generator)
        taken += _best(lambda features=features, decoder=decoder: measure_geometry(features, decoder))
    return taken / _READS / len(shape.saes)


@torch.inference_mode()
def _best(run: Callable[[], object]) -> float:
    """Seconds of the shortest of some runs, after one that does not count."""
    run()
    taken: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)
