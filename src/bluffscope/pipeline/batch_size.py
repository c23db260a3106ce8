"""How large the batches of a run are: the memory model, asked about this model and this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, cast

import torch

from bluffscope.config import READ_WHOLE, EngineOptions, MeasureOptions, ModelOptions
from bluffscope.config.demo import model_place, sae_place
from bluffscope.config.layers import numbered
from bluffscope.config.presets import resolve
from bluffscope.errors import InputError
from bluffscope.host.hub import hub_or_cache
from bluffscope.host.machine import free_memory
from bluffscope.model import HookPoint, LanguageModel
from bluffscope.model.hooks import HOOK_Z
from bluffscope.model.lengths import LengthClasses
from bluffscope.model.load import check_model, choose_device
from bluffscope.pipeline.memory import READS_A_TOKEN, TOKENS_A_PAIR, Device, Footprint, Shape
from bluffscope.pipeline.plan import BatchLimits
from bluffscope.sae import Coder, find_saes, read_sae_configs

logger = logging.getLogger(__name__)

MOST_BATCH_TOKENS: Final = {"cpu": 1024, "mps": 4096, "cuda": 16384}
"""Tokens a forward by device: enough that matrix products dominate; on a CPU few enough to stay near the processor."""
ROW_TOKENS: Final = 1024
"""Slots of the longest row; the planner takes shorter ones where they are cheaper."""
SHARE: Final = 0.9
"""Of the memory that is free, what a run plans to fill: other programs live too."""
_STEP: Final = 64
"""Batches are whole multiples of it, so that they do not follow every flicker of the memory that is free."""


def run_footprint(shape: Shape, device: str, measure: MeasureOptions) -> Footprint:
    """The memory model of a run with these options."""
    # Where completions are read as a whole, about every other token belongs to one.
    first, *further = (0.5 if position in READ_WHOLE else READS_A_TOKEN for position in measure.positions)
    shape = replace(shape, lens=measure.trajectory == "on")
    return Footprint(shape, cast("Device", device), first, sum(further))


def loaded_shape(
    model: LanguageModel, coders: Iterable[Coder], quantize: str, *, bare: int = 0, head: bool = False
) -> Shape:
    """The shape of a run whose model and SAEs are loaded; `bare` layers have none."""
    saes = [(coder.d_in, coder.d_sae, coder.identity.get("published_l0")) for coder in coders]
    shape = Shape.of(
        model.config,
        blocks=len(model.blocks),
        number_bytes=model.dtype.itemsize,
        stored_bytes=model.stored_dtype.itemsize if model.stored_dtype is not None else None,
        saes=[*saes, *[(model.d_model, 0, None)] * bare],
        quantize=quantize,
        head=head,
    )
    return replace(shape, counted=sum(parameter.numel() for parameter in model.blocks[0].parameters()))


@dataclass(frozen=True)
class Planned:
    """A run as far as configurations tell."""

    name: str
    """Of the model."""
    device: str
    dtype: str
    shape: Shape
    lengths: LengthClasses
    """Which texts may share a forward."""

    def __str__(self) -> str:
        shape = self.shape
        saes = sum(sae.d_sae > 0 for sae in shape.saes)
        return f"{self.name}, {shape.blocks} blocks and {saes or 'no'} SAEs on {self.device} in {self.dtype}"


def plan_run(options: ModelOptions, *, whole: bool = False, weights: bool = True) -> Planned:
    """The shape of a run that was not started: configurations are read, weights are not.

    Args:
        options: model, SAEs and layers.
        whole: all blocks and the LM head, as for log-probabilities and the strategies of the reference.
        weights: whether a folder must have them, though they are not read.

    Raises:
        InputError: a model or SAEs that cannot be found, or do not fit each other.
    """
    options = resolve(options)
    assert options.model is not None and options.sae is not None  # resolve sees to it
    device = choose_device(options.device).type
    dtype = "float32" if options.dtype == "auto" else options.dtype
    model_name, sae_name = model_place(options.model), sae_place(options.sae)
    with hub_or_cache([model_name, *([sae_name.partition(":")[0]] if options.has_saes else [])]):
        config = check_model(model_name, options.revision, weights=weights)
        depth = int(config.num_hidden_layers)
        bare = () if options.has_saes else bare_layers(options, depth)
        saes = read_sae_configs(find_saes(sae_name, options.layers, depth)) if options.has_saes else {}
    for layer, sae in saes.items():
        reads_stream = HookPoint.parse(sae.hook_name).point != HOOK_Z  # whose width only the model itself can tell
        if reads_stream and sae.d_in != config.hidden_size:
            raise InputError(
                f"--sae {sae_name}, layer {layer}: it reads {sae.d_in} dimensions, but the residual stream of "
                f"{options.model} has {config.hidden_size}; give SAEs that were trained on this model"
            )
    blocks = 1 + max((*bare, *(HookPoint.parse(sae.hook_name).block for sae in saes.values())))
    shape = Shape.of(
        config,
        blocks=depth if whole else min(blocks, depth),
        number_bytes=getattr(torch, dtype).itemsize,
        stored_bytes=config.dtype.itemsize if isinstance(config.dtype, torch.dtype) else None,
        saes=[
            *((sae.d_in, sae.d_sae, sae.l0) for sae in saes.values()),
            *((config.hidden_size, 0, None) for _ in bare),
        ],
        quantize=options.quantize,
        head=whole,
    )
    return Planned(options.model, device, dtype, shape, LengthClasses.of(config))


def bare_layers(options: ModelOptions, depth: int) -> tuple[int, ...]:
    """The layers of a model of so many that are measured without SAEs.

    Raises:
        InputError: the model has no such layer, or one is given twice.
    """
    layers = numbered(options.layers, depth, str(options.model))
    if beyond := [layer for layer in layers if layer >= depth]:
        raise InputError(
            f"--layers {beyond[0]}: {options.model} has {depth} layers, 0 to {depth - 1}; choose among them"
        )
    return layers


def batch_tokens(found: Footprint, device: str, rows: int, budget: int) -> int:
    """Distinct tokens a forward: as many as bring speed, or as fit into so many bytes; 0 where no batch does."""
    return min(MOST_BATCH_TOKENS[device], found.largest_batch_tokens(budget, rows) // _STEP * _STEP)


def sized(engine: EngineOptions, device: str, found: Footprint, free: int | None = None) -> EngineOptions:
    """The options with the batch's limits filled in; warns where nothing fits.

    Args:
        engine: the options; what they say already stays.
        device: "cpu", "mps" or "cuda".
        found: the memory model of the run.
        free: bytes that a worker may have in all; None: what this process can have on this machine.

    Raises:
        InputError: a limit below 1.
    """
    if engine.batch_size != "auto" and engine.batch_size < 1:
        raise InputError(f"--batch-size {engine.batch_size}: give auto or at least 1")
    for name in ("batch_tokens", "row_tokens", "shard_pairs"):
        value = getattr(engine, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: give at least 1")
    rows = engine.row_tokens or ROW_TOKENS
    free = free_memory(device) if free is None else free
    chosen = batch_tokens(found, device, rows, int(free * SHARE))
    if not chosen:
        logger.warning(
            "this run needs about %s of memory and %s are free: expect it to swap or to fail; close other programs, or "
            "use --dtype bfloat16, narrower SAEs or a smaller model",
            gigabytes(found.least_needed(rows) / SHARE),
            gigabytes(free),
        )
    return replace(engine, batch_tokens=engine.batch_tokens or chosen or _STEP, row_tokens=rows)


def batch_limits(engine: EngineOptions, shape: Shape, lengths: LengthClasses) -> BatchLimits:
    """What the batch planner is given, once the options are sized."""
    assert engine.batch_tokens is not None and engine.row_tokens is not None  # `sized` fills them in
    return BatchLimits(
        batch_size=engine.batch_size,
        batch_tokens=engine.batch_tokens,
        row_tokens=engine.row_tokens,
        cell_cost=shape.cell_cost,
        lengths=lengths,
    )


def predicted_peak(engine: EngineOptions, found: Footprint, pairs: int) -> int | None:
    """The most memory that a run of so many pairs is expected to hold; None for strategies without a model of it."""
    if engine.strategy not in ("packed", "batched"):
        return None
    assert engine.batch_tokens is not None and engine.row_tokens is not None
    tokens = engine.batch_tokens if engine.batch_size == "auto" else engine.batch_size * TOKENS_A_PAIR
    return found.peak(min(tokens, max(1, pairs) * TOKENS_A_PAIR), engine.row_tokens)


def gigabytes(size: float) -> str:
    """Bytes for people: "1.2 GB", of 10^9."""
    return f"{size / 1e9:.1f} GB"
