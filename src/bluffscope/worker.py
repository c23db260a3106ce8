"""From options to a worker: SAEs found and loaded, model loaded as far as they need it, limits set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from bluffscope.config import EngineOptions, ModelOptions, RunConfig
from bluffscope.demo import model_dir, sae_dir
from bluffscope.errors import InputError
from bluffscope.hub import hub_or_cache
from bluffscope.metrics import Analysis
from bluffscope.model import HookPoint, LanguageModel, ResidualReader, load_model
from bluffscope.model.load import check_model, choose_device
from bluffscope.model.quantize import check_quantize
from bluffscope.pipeline import ShardWorker
from bluffscope.plan import BatchLimits, TextTokenizer
from bluffscope.presets import DEMO_NAME
from bluffscope.sae import Coder, find_saes, load_coders
from bluffscope.table.schema import Column
from bluffscope.timing import Stopwatch

logger = logging.getLogger(__name__)

ColumnsOf = Callable[[tuple[int, ...]], Sequence[Column]]
"""The result table's columns for the layers measured."""

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_BATCH_TOKENS = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""Distinct tokens a forward: enough that matrix products dominate, few enough to stay in memory."""


def build_worker(
    config: RunConfig, analyses: Sequence[Analysis], columns_of: ColumnsOf, stopwatch: Stopwatch
) -> tuple[ShardWorker, RunConfig]:
    """Load everything that a shard needs.

    Args:
        config: options, the preset already resolved.
        analyses: what is measured.
        columns_of: the table's columns, once the layers are known.
        stopwatch: told the time of every stage.

    Returns:
        The worker, and the options with everything frozen in that was left open.

    Raises:
        InputError: model, SAEs and layers that cannot be loaded or do not fit each other.
    """
    options = config.model
    assert options.model is not None and options.sae is not None  # presets.resolve sees to it
    device = choose_device(options.device)
    name = "float32" if options.dtype == "auto" else options.dtype
    if name == "float64" and device.type == "mps":
        raise InputError("--dtype float64: MPS has none; use --device cpu")
    dtype = _DTYPES[name]
    check_quantize(options.quantize, device, dtype)
    model_name = str(model_dir()) if options.model == DEMO_NAME else options.model
    sae_name = str(sae_dir()) if options.sae == DEMO_NAME else options.sae
    with hub_or_cache([model_name, sae_name.partition(":")[0]]):
        check_model(model_name, options.revision)  # what is plainly wrong is said before gigabytes of SAEs are loaded
        source = find_saes(sae_name, options.layers)
        columns = columns_of(source.layers)
        # SAEs and metrics never go below float32
        coders = load_coders(source, device=str(device), dtype=torch.promote_types(dtype, torch.float32))
        points = _points(source.name, coders)
        model = load_model(
            model_name,
            revision=options.revision,
            blocks=1 + max(point.block for point in points.values()),
            device=device,
            dtype=dtype,
            quantize=options.quantize,
        )
    _check_fit(model, source.name, coders, points)
    if options.model == DEMO_NAME:  # wherever the package is installed
        model = replace(model, name=DEMO_NAME, identity={**model.identity, "name": DEMO_NAME})
    engine = _freeze(config.engine, device.type, model.d_model)
    frozen: ModelOptions = replace(options, layers=source.layers, device=device.type, dtype=name)
    config = replace(config, model=frozen, engine=engine)
    worker = ShardWorker(
        tokenizer=TextTokenizer(
            tokenizer=model.tokenizer,
            bos=_bos(model, coders),
            position=config.measure.position,
            join=config.data.join,
            context=model.context,
        ),
        reader=ResidualReader.create(model, points),
        coders=coders,
        analyses=analyses,
        columns=columns,
        options=config.measure,
        limits=_limits(engine),
        keep_residuals=config.output.keep_residuals,
        stopwatch=stopwatch,
    )
    return worker, config


def _points(sae: str, coders: Mapping[int, Coder]) -> dict[int, HookPoint]:
    """The hook point of each layer's SAE; refuses those that are not read, saying whose they are."""
    points: dict[int, HookPoint] = {}
    for layer, coder in coders.items():
        try:
            points[layer] = HookPoint.parse(coder.hook_name)
        except InputError as error:
            raise InputError(f"--sae {sae}, layer {layer}: {error}") from error
    return points


def _check_fit(model: LanguageModel, sae: str, coders: Mapping[int, Coder], points: Mapping[int, HookPoint]) -> None:
    """Refuse SAEs of another width; warn of one that reads another block than its folder says."""
    for layer, coder in coders.items():
        if coder.d_in != model.d_model:
            raise InputError(
                f"--sae {sae}, layer {layer}: it reads {coder.d_in} dimensions, but the residual stream of "
                f"{model.name} has {model.d_model}; give SAEs that were trained on this model"
            )
        if points[layer].block != layer:
            logger.warning("the SAE given for layer %d reads %s", layer, coder.hook_name)


def _bos(model: LanguageModel, coders: Mapping[int, Coder]) -> int | None:
    """The BOS to feed: the tokenizer's, where the SAEs were trained with one."""
    asked = {coder.prepend_bos for coder in coders.values()}
    if len(asked) > 1:
        raise InputError("--sae: some of the SAEs were trained with a BOS and some without; give layers that agree")
    bos = model.tokenizer.bos_token_id
    if asked == {True} and bos is None:
        logger.warning("the SAEs were trained with a BOS in front, but %s has none: none is fed", model.name)
    return int(bos) if asked == {True} and bos is not None else None  # pyright: ignore[reportArgumentType]


def _freeze(engine: EngineOptions, device: str, d_model: int) -> EngineOptions:
    if engine.batch_size != "auto" and engine.batch_size < 1:
        raise InputError(f"--batch-size {engine.batch_size}: give auto or at least 1")
    for name in ("batch_tokens", "row_tokens", "shard_pairs"):
        value = getattr(engine, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: give at least 1")
    return replace(
        engine,
        batch_tokens=engine.batch_tokens or _BATCH_TOKENS[device],
        # Attention over a row costs 1/d_model as much a token as the layer's products: wider models, longer rows.
        row_tokens=engine.row_tokens or min(max(2 * d_model, 128), 512),
    )


def _limits(engine: EngineOptions) -> BatchLimits:
    assert engine.batch_tokens is not None and engine.row_tokens is not None  # _freeze filled them in
    return BatchLimits(batch_size=engine.batch_size, batch_tokens=engine.batch_tokens, row_tokens=engine.row_tokens)
