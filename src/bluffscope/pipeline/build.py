"""From options to a worker: SAEs found and loaded, model loaded as far as they need it, limits set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from bluffscope.config import NO_SAE, MeasureOptions, ModelOptions, RunConfig
from bluffscope.config.demo import model_place, sae_place
from bluffscope.config.layers import numbered
from bluffscope.errors import InputError, NoHeadError
from bluffscope.host.chat import Chat
from bluffscope.host.hub import hub_or_cache
from bluffscope.host.machine import emulated, free_memory
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import Analysis
from bluffscope.model import Head, HookPoint, LanguageModel, ResidualReader, load_model
from bluffscope.model.hooks import ignores_mean
from bluffscope.model.lengths import LengthClasses
from bluffscope.model.lens import Lens
from bluffscope.model.load import blocks_of, check_model, choose_device
from bluffscope.model.quantize import check_quantize
from bluffscope.model.sublayers import placed
from bluffscope.pipeline.baseline import BaselineWorker
from bluffscope.pipeline.batch_size import bare_layers, batch_limits, loaded_shape, run_footprint, sized
from bluffscope.pipeline.by_default import Spare, head_by_default, refuse_unfit
from bluffscope.pipeline.given import Given
from bluffscope.pipeline.memory import Footprint, Shape
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.plan.token_labels import refuse_without_places
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.pipeline.worker import Loaded, Parts, RunWorker
from bluffscope.reference.analyses import ANALYSES as REFERENCE
from bluffscope.reference.analyses import Counts, ReferenceOptions
from bluffscope.sae import Coder, SaeSource, find_saes, load_coders
from bluffscope.sae.given import coders_given
from bluffscope.table.schema import Column

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

ColumnsOf = Callable[[tuple[int, ...]], Sequence[Column]]
"""The result table's columns for the layers measured."""

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
NOTHING: Final = Given()
"""Everything is loaded by name."""
OF_THE_REFERENCE = ("sequential", "separate")
"""Strategies that measure with `bluffscope.reference.analyses`, which takes one text at a time."""


def build_worker(
    config: RunConfig,
    analyses: Sequence[Analysis],
    columns_of: ColumnsOf,
    stopwatch: Stopwatch,
    given: Given = NOTHING,
    spare: Spare | None = None,
) -> RunWorker:
    """Load everything that a shard needs.

    Args:
        config: options, the preset already resolved.
        analyses: what is measured.
        columns_of: the table's columns, once the layers are known.
        stopwatch: records the time of every stage.
        given: model and SAEs that are in memory already.
        spare: room for residuals that nobody asked for; None for no room.

    Returns:
        The worker; its `loaded.config` has everything frozen in that was left open.

    Raises:
        NoHeadError: log-probabilities, which nobody asked for, cannot be measured.
        InputError: model, SAEs and layers that cannot be loaded or do not fit each other.
    """
    options = given.agreed(config.model)
    device = choose_device(options.device)
    name = "float32" if options.dtype == "auto" else options.dtype
    if name == "float64" and device.type == "mps":
        raise InputError("--dtype float64: MPS has none; use --device cpu")
    if slow := emulated(name, device.type):
        logger.warning("%s", slow)
    check_quantize(options.quantize, device, _DTYPES[name])
    if options.quantize != "none" and config.engine.strategy in OF_THE_REFERENCE:
        raise InputError(f"--quantize {options.quantize}: not with --strategy {config.engine.strategy}; use packed")
    config = replace(config, model=replace(options, device=device.type, dtype=name))
    parts = load_parts(config, columns_of, given)
    config = replace(config, model=replace(config.model, layers=parts.layers))
    worker = assemble(config, parts, analyses, columns_of, stopwatch, given)
    return worker if spare is None else replace(worker, loaded=spare.settled(worker.loaded))


def load_parts(config: RunConfig, check: ColumnsOf | None = None, given: Given = NOTHING) -> Parts:
    """Load the SAEs, and the model as far as they need it; all of it for the reference's strategies and the LM head.

    Args:
        config: options with preset, device and dtype resolved.
        check: called with the layers before anything large is loaded; may refuse them.
        given: model and SAEs that are in memory already; the others are loaded by their names.

    Raises:
        NoHeadError: the whole model, which is needed for what nobody asked for alone, does not load or fit.
        InputError: model and SAEs that cannot be loaded or do not fit each other.
    """
    options = config.model
    assert options.model is not None and options.sae is not None  # presets.resolve sees to it
    # SAEs and metrics never go below float32
    dtype = torch.promote_types(_DTYPES[options.dtype], torch.float32)
    model_name, sae_name = model_place(options.model), sae_place(options.sae)
    whole = config.engine.strategy in OF_THE_REFERENCE or config.measure.needs_head
    saes_by_name = options.has_saes and given.saes is None
    away = ([] if given.model else [model_name]) + ([sae_name.partition(":")[0]] if saes_by_name else [])
    with hub_or_cache(away):
        if given.model is None:
            # plain mistakes are reported before gigabytes of SAEs are loaded
            known = check_model(model_name, options.revision)
            depth, device = int(known.num_hidden_layers), options.device
        else:
            known, depth, device = None, given.model.depth, str(given.model.device)
        bare = () if options.has_saes else bare_layers(options, depth)
        if given.saes is not None:
            layers = numbered(options.layers, depth, model_name, given.saes)
            coders = coders_given(given.saes, layers, device=device, dtype=dtype)
            if check is not None:
                check(tuple(coders))
        else:
            source = find_saes(sae_name, options.layers, depth) if options.has_saes else SaeSource(NO_SAE, {})
            if check is not None:
                check((*source.layers, *bare))
            coders = load_coders(source, device=device, dtype=dtype)
        points = hook_points(sae_name, coders, bare)
        blocks = blocks_of(model_name, depth, 1 + max(point.block for point in points.values()))
        unasked = head_by_default(config.measure)
        if unasked and known is not None and config.engine.strategy not in OF_THE_REFERENCE:
            _refuse_unfit(config, known, coders.values(), bare)
        try:
            model = _load_model(options, None if whole else blocks, head=whole, given=given)
        except InputError as error:
            if not (unasked and _loads_without_head(error)):
                raise
            raise NoHeadError(str(error)) from error
    return Parts(model, coders, sae_name, bare)


def _loads_without_head(error: InputError) -> bool:
    """Whether a model may load without its LM head: nothing is wrong with its files, or with the way to them."""
    cause = error.__cause__
    too_large = isinstance(cause, MemoryError | torch.OutOfMemoryError)
    return cause is None or too_large or "AutoModelForCausalLM" in str(cause)


def _refuse_unfit(config: RunConfig, model: PretrainedConfig, coders: Iterable[Coder], bare: Sequence[int]) -> None:
    """Refuse a whole model that has no room beside SAEs that are loaded; the driver of a cluster has seen to it."""
    if config.engine.engine != "local":
        return
    saes = [(coder.d_in, coder.d_sae, coder.identity.get("published_l0")) for coder in coders]
    shape = Shape.of(
        model,
        blocks=int(model.num_hidden_layers),
        number_bytes=_DTYPES[config.model.dtype].itemsize,
        saes=[*saes, *[(int(model.hidden_size), 0, None)] * len(bare)],
        quantize=config.model.quantize,
        head=True,
    )
    device = config.model.device
    refuse_unfit(shape, device, config.measure, config.engine.row_tokens, free_memory(device))


def load_whole(config: RunConfig) -> LanguageModel:
    """The whole causal language model of a run, LM head included, as transformers gives it.

    Args:
        config: options with preset, device and dtype resolved.

    Raises:
        InputError: it cannot be loaded.
    """
    assert config.model.model is not None  # presets.resolve sees to it
    with hub_or_cache([model_place(config.model.model)]):
        return _load_model(config.model, None, head=True)


def _load_model(options: ModelOptions, blocks: int | None, *, head: bool, given: Given = NOTHING) -> LanguageModel:
    if given.model is not None:
        return given.model.load(blocks, head=head)
    assert options.model is not None  # presets.resolve sees to it
    model = load_model(
        model_place(options.model),
        revision=options.revision,
        blocks=blocks,
        device=torch.device(options.device),
        dtype=_DTYPES[options.dtype],
        head=head,
        quantize=options.quantize,
    )
    # Wherever the package is installed, the embedded model has its own name.
    return replace(model, name=options.model, identity={**model.identity, "name": options.model})


def assemble(
    config: RunConfig,
    parts: Parts,
    analyses: Sequence[Analysis],
    columns_of: ColumnsOf,
    stopwatch: Stopwatch,
    given: Given = NOTHING,
) -> RunWorker:
    """A worker of these parts; see `build_worker`."""
    if config.engine.strategy in OF_THE_REFERENCE:
        load = partial(load_parts, config, given=given)
        return _baseline(config, parts, load, analyses, columns_of, stopwatch)
    return assemble_batched(config, parts, analyses, columns_of, stopwatch)


def assemble_batched(
    config: RunConfig, parts: Parts, analyses: Sequence[Analysis], columns_of: ColumnsOf, stopwatch: Stopwatch
) -> ShardWorker:
    """A worker of these parts that reads texts in batches, packed or padded."""
    model, coders = parts.model, parts.coders
    points = points_of(parts)
    device = model.device.type
    sizes = loaded_shape(
        model, coders.values(), config.model.quantize, bare=len(parts.bare), head=config.measure.needs_head
    )
    found = run_footprint(sizes, device, config.measure)
    config = replace(config, engine=sized(config.engine, device, found))
    packs = config.engine.strategy == "packed"
    head, lens = _heads(model, points, config.measure)
    further: dict[str, Any] = {"head": head, "lens": lens, "stopwatch": stopwatch}
    reader = (ResidualReader.create if packs else partial(ResidualReader, style=None))(model, points, **further)
    return ShardWorker(
        loaded=_loaded(config, parts, columns_of, "packed" if reader.packs else "batched", found),
        reader=reader,
        coders=coders,
        sae=parts.sae,
        analyses=analyses,
        limits=batch_limits(config.engine, sizes, LengthClasses.of(model.config)),
        stopwatch=stopwatch,
    )


def _heads(
    model: LanguageModel, points: Mapping[int, HookPoint], measure: MeasureOptions
) -> tuple[Head | None, Lens | None]:
    """The LM head and the logit lens, where they are asked for."""
    if not measure.needs_head:
        return None, None
    asked = measure.trajectory == "on"
    head = Head.create(model, "--trajectory" if asked else "--p-true" if measure.logprob == "off" else "--logprob")
    return head, Lens.create(model, head, points) if asked else None


def _baseline(
    config: RunConfig,
    parts: Parts,
    load: Callable[[], Parts],
    analyses: Sequence[Analysis],
    columns_of: ColumnsOf,
    stopwatch: Stopwatch,
) -> BaselineWorker:
    """The worker of the reference's strategies."""
    points_of(parts)
    if config.measure.logprob == "auto":  # only where every strategy would measure them
        Head.create(parts.model)
    if strange := [analysis.name for analysis in analyses if analysis.name not in REFERENCE]:
        raise InputError(
            f"--strategy {config.engine.strategy}: the reference has no analysis {strange[0]!r}; use packed or batched"
        )
    measure, loaded = config.measure, _loaded(config, parts, columns_of, config.engine.strategy, None)
    return BaselineWorker(
        loaded=loaded,
        load=load,
        held=[parts],
        separate=config.engine.strategy == "separate",
        analyses=[analysis.name for analysis in analyses],
        options=ReferenceOptions(
            layers=parts.layers,
            join=config.data.join,
            position=measure.first_position,
            further=measure.further_positions,
            chat=loaded.tokenizer.chat,
            noise_std=measure.noise_std,
            noise_mode=measure.noise_mode,
            noise_draws=measure.noise_draws,
            noise_sweep=measure.noise_sweep,
            seed=measure.seed,
            prepend_bos=loaded.tokenizer.bos is not None,
            logprob=measure.logprob != "off",
            p_true=measure.p_true,
            trajectory=measure.trajectory == "on",
        ),
        counts=Counts(stopwatch=stopwatch),
        stopwatch=stopwatch,
    )


def _loaded(
    config: RunConfig, parts: Parts, columns_of: ColumnsOf, strategy: str, footprint: Footprint | None
) -> Loaded:
    columns = tuple(columns_of(parts.layers))
    if config.measure.logprob == "auto":
        config = replace(config, measure=replace(config.measure, logprob="on"))
    tokenizer, identity = text_tokenizer(config, parts), parts.model.identity
    return Loaded(config, tokenizer, columns, identity, parts.sae_identities, strategy, footprint)


def text_tokenizer(config: RunConfig, parts: Parts) -> TextTokenizer:
    """How a run turns its texts into token ids."""
    model = parts.model
    if config.measure.first_position == "tokens":
        refuse_without_places(model.tokenizer, model.name)
    chat = Chat.of(model.name, model.tokenizer, config.data.system) if config.data.chat else None
    return TextTokenizer(
        tokenizer=model.tokenizer,
        bos=_bos(model, parts.coders) if chat is None else chat.bos,
        chat=chat,
        position=config.measure.first_position,
        further=config.measure.further_positions,
        join=config.data.join,
        context=model.context,
        logprob=config.measure.scores_completions,
    )


def points_of(parts: Parts) -> dict[int, HookPoint]:
    """Where each SAE reads; refuses SAEs that do not fit the model."""
    model, coders = parts.model, parts.coders
    points = centred_points(hook_points(parts.sae, coders, parts.bare), coders, model)
    points = placed(points, model.name, model.network, model.blocks)
    _check_fit(model, parts.sae, coders, points)
    return points


def hook_points(sae: str, coders: Mapping[int, Coder], bare: Iterable[int] = ()) -> dict[int, HookPoint]:
    """The hook point of each layer's SAE, refusing those that are not read; without one, what the block gives."""
    points = {layer: HookPoint(layer, "hook_resid_post") for layer in bare}
    for layer, coder in coders.items():
        try:
            points[layer] = HookPoint.parse(coder.hook_name)
        except InputError as error:
            raise InputError(f"--sae {sae}, layer {layer}: {error}") from error
    return points


def centred_points(
    points: Mapping[int, HookPoint], coders: Mapping[int, Coder], model: LanguageModel
) -> dict[int, HookPoint]:
    """The hook points as they are read: centred for SAEs of a model whose writing weights were centred.

    TransformerLens centres models with LayerNorm only: elsewhere the mean matters, and the option does nothing.
    """
    applies = ignores_mean(model.network)
    return {
        layer: point.centred_where(layer in coders and coders[layer].centred and applies)
        for layer, point in points.items()
    }


def _check_fit(model: LanguageModel, sae: str, coders: Mapping[int, Coder], points: Mapping[int, HookPoint]) -> None:
    """Refuse SAEs of another width; warn of one that reads another block than its folder says."""
    for layer, coder in coders.items():
        width, what = points[layer].width, f"{points[layer].point} of {model.name}"
        if coder.d_in != (width or model.d_model):
            what = what if width else f"the residual stream of {model.name}"
            raise InputError(
                f"--sae {sae}, layer {layer}: it reads {coder.d_in} dimensions, but {what} has "
                f"{width or model.d_model}; give SAEs that were trained on this model"
            )
        if points[layer].block != layer:
            logger.warning("the SAE given for layer %d reads %s", layer, coder.hook_name)


def _bos(model: LanguageModel, coders: Mapping[int, Coder]) -> int | None:
    """The BOS to feed: the tokenizer's, where the SAEs were trained with one."""
    asked = {coder.prepend_bos for coder in coders.values()}
    if not coders:  # nothing was trained without one
        return None if model.tokenizer.bos_token_id is None else int(model.tokenizer.bos_token_id)  # pyright: ignore[reportArgumentType]
    if len(asked) > 1:
        raise InputError("--sae: some of the SAEs were trained with a BOS and some without; give layers that agree")
    bos = model.tokenizer.bos_token_id
    if asked == {True} and bos is None:
        logger.warning("the SAEs were trained with a BOS in front, but %s has none: none is fed", model.name)
    return int(bos) if asked == {True} and bos is not None else None  # pyright: ignore[reportArgumentType]
