"""What a process of the benchmark builds and measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bluffscope.compare.bench.texts import Sharing


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One stretch of work that is timed."""

    pairs: int
    batch_size: Literal["auto"] | int = "auto"
    sharing: Sharing = "bundled"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process builds, and what it measures with it."""

    shape: str
    step: str
    """What the record is called: a strategy, or a step of the ladder."""
    strategy: Literal["packed", "batched", "sequential", "separate"] = "packed"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    quantize: Literal["none", "int8"] = "none"
    measurements: tuple[Measurement, ...] = ()
    whole: bool = False
    """All blocks and the LM head, as if no layer were the last one needed."""
    text_by_text: bool = False
    """Each text in a forward of its own."""
    one_by_one: bool = False
    """Each residual encoded in a call of its own."""
    dense: bool = False
    """Geometry from the d x d matrix."""
    pooled: bool = True
    """Memory that is freed is kept, buffers are used again."""
    depth: int = 1
    """Shards read ahead and written behind; 0 for none."""
    warm_pairs: int = 1
    """Pairs measured beforehand, not counted."""
    limit: bool = False
    """Also measure this machine's matrix-product peak at the shape's sizes."""
