"""Kinds of GPU by their data sheets, and what the geometry takes there: arithmetic, as long as nobody measures it."""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from bluffscope.metrics.geometry import GROUPED_CELLS
from bluffscope.metrics.spectrum import BITS, bits_a_pass
from bluffscope.pipeline.memory import Shape

REACHED: Final = {"cpu": 0.85, "gpu": 0.4}
"""Share of the matrix-product peak that a run reaches: measured on processors (docs/speed.md: 79 to 94 %), assumed of
GPUs (what well-kept training and inference code reports)."""
CORES_A_GPU: Final = 8
"""Assumed of machines with GPUs, for what is left to their processors."""
LAUNCH_SECONDS: Final = 5e-6
"""Of one operation on a GPU, however small."""


class Gpu(NamedTuple):
    """A kind of GPU: published dense peaks in floating-point operations a second, memory in bytes, and its speed."""

    half: float
    """bfloat16, without sparsity (float16 where there is no bfloat16)."""
    single: float
    """float32 outside the tensor cores, which is what exact float32 products run on."""
    memory: float
    double: float
    """float64, on the tensor cores where they have it."""
    bandwidth: float
    """Bytes of the memory a second."""


GPUS: Final[dict[str, Gpu]] = {
    "b200": Gpu(2250e12, 75e12, 180e9, 37e12, 7.7e12),
    "h200": Gpu(989e12, 67e12, 141e9, 67e12, 4.8e12),
    "h100": Gpu(989e12, 67e12, 80e9, 67e12, 3.35e12),
    "a100": Gpu(312e12, 19.5e12, 80e9, 19.5e12, 2.0e12),
    "l40s": Gpu(362e12, 91.6e12, 48e9, 1.4e12, 0.86e12),
    "l4": Gpu(121e12, 30.3e12, 24e9, 0.47e12, 0.3e12),
    "a10g": Gpu(70e12, 31.2e12, 24e9, 0.49e12, 0.6e12),
    "v100": Gpu(125e12, 15.7e12, 32e9, 7.8e12, 0.9e12),
    "t4": Gpu(65e12, 8.1e12, 16e9, 0.25e12, 0.32e12),
    "rtx4090": Gpu(165e12, 82.6e12, 24e9, 1.3e12, 1.0e12),
    "rtx3090": Gpu(71e12, 35.6e12, 24e9, 0.56e12, 0.94e12),
}
"""By the name that --gpu-kind takes; from the makers' data sheets (SXM where there are two)."""


def geometry_seconds(gpu: Gpu, shape: Shape, reads: int) -> float:
    """Seconds of one read on a GPU, the mean over the layers, by arithmetic.

    Gram matrices run at the rate of float64 products. Decoder rows are gathered twice, written, changed and read.
    Whatever the number of matrices, their decomposition is 16 operations for each of their rows, and four more for
    each pass over it (`bluffscope.metrics.spectrum`), hardly longer than it takes to start them.

    Args:
        gpu: which.
        shape: of the SAEs.
        reads: of a forward.
    """
    taken = 0.0
    for sae in (sae for sae in shape.saes if sae.d_sae):
        active = max(1, min(round(sae.l0), sae.d_sae))
        widest = 2 * active  # of the reads that are decomposed together
        together = max(1, min(reads, GROUPED_CELLS // widest**2))
        passes = ceil(BITS / bits_a_pass(together * widest))
        taken += 2 * active**2 * sae.d_in / (gpu.double * REACHED["gpu"])
        taken += 50 * active * sae.d_in / (gpu.bandwidth * REACHED["gpu"])
        taken += LAUNCH_SECONDS * widest * (16 + 4 * passes) / together
    return taken / max(1, shape.encoding)
