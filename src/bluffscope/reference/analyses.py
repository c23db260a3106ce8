"""The slow, obvious implementation of docs/definitions.md: one text and one layer at a time.

It is the oracle of the tests and the baseline of the benchmark, and shares no code with the engine's plan, model, sae
and metrics (a test checks the imports). `reference_model` holds its tokens and forwards, `reference_geometry` its
mathematics. It follows the pattern of one script per analysis, so per pair, for three
layers, it makes 13 full forwards of one text, LM head included: fact and hall for each layer (layer sensitivity, 6);
prompt, fact and hall (semantic misalignment, 3; the prompt's forward also gives the prompt's residuals at every layer);
fact and hall (stability and entropy, 2); fact and hall with both layers hooked (cross-layer, 2). Beyond that no
residual is used twice; the d x d eigendecomposition is done once for each layer and view (9).

The five analyses are functions of a `Subject`; called alone, each makes all the forwards it needs itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from bluffscope.errors import InputError, PairError
from bluffscope.host.noise import unit_noise
from bluffscope.records import Item, View
from bluffscope.reference import geometry as maths
from bluffscope.reference.geometry import mean
from bluffscope.reference.model import Counts, ReferenceOptions, Text, logits, tokenise, width_at
from bluffscope.reference.questions import ask
from bluffscope.reference.subject import SAE, Reading, Readings, Row, Subject
from bluffscope.reference.trajectory import at_reads, lens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
else:  # its objects are only passed in
    PreTrainedTokenizerBase = Any


def analyse(
    pairs: Iterable[Item],
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    saes: Mapping[int, SAE],
    options: ReferenceOptions,
    counts: Counts | None = None,
) -> list[Row]:
    """`analyse_pair` of each pair, in order. The first pair that cannot be processed raises its `PairError`."""
    return [analyse_pair(pair, model, tokenizer, saes, options, counts) for pair in pairs]


def analyse_pair(
    pair: Item,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    saes: Mapping[int, SAE],
    options: ReferenceOptions,
    counts: Counts | None = None,
) -> Row:
    """Every metric of docs/definitions.md for one pair, one text and one layer at a time.

    Args:
        pair: The pair.
        model: A full causal language model with its LM head, in evaluation mode.
        tokenizer: Its tokenizer.
        saes: A sae_lens SAE for each layer of `options.layers`, in float32 or float64; its own hook point is read.
            Or none at all, for the analyses that need none.
        options: What is measured.
        counts: Added to, where given.

    Returns:
        pair_id, the token counts and read tokens, `l{layer}_{view}_{metric}` and `{metric}_{fact|hall|diff}`; diff is
        hall - fact. Undefined is None. All metrics but shape_class (a str) are floats, `l0_norm` too.

    Raises:
        InputError: The options, model and SAEs do not fit together.
        PairError: This pair cannot be measured: no tokens, longer than the context, or a non-finite residual.
    """
    subject = prepare(pair, model, tokenizer, saes, options, counts)
    return {pair.arrangement.key: pair.id, **token_columns(subject), **all_analyses(subject)}


def token_columns(subject: Subject) -> Row:
    """Token counts and the tokens read."""
    name, texts = subject.item.arrangement.of_view, subject.texts
    row: Row = {f"{view}_tokens": texts[view].tokens for view in subject.views}
    return row | {name(view, "read_token"): texts[view].read_token for view in subject.views}


def all_analyses(subject: Subject) -> Row:
    """All analyses in one pass: 13 forwards for three layers (see the head of this file). Without SAEs, the others."""
    options = subject.options
    asked = {"trajectory": options.trajectory, "logprob": options.logprob, "p_true": options.p_true}
    if not subject.saes:
        return {column: value for name, on in asked.items() if on for column, value in ANALYSES[name](subject).items()}
    prompt: Readings = {}
    if "prompt" in subject.views:
        prompt = {"prompt": subject.read("prompt", subject.options.layers)}
    row = layer_sensitivity(subject, prompt)
    if prompt:
        row |= semantic_misalignment(subject, prompt)
    once: Readings = {view: subject.read(view, [subject.options.layers[0]]) for view in subject.completions}
    row |= stability(subject, once) | entropy(subject, once)
    for name, analysis in ANALYSES.items():
        if analysis not in _SHARING and asked.get(name, True):
            row |= analysis(subject)
    return row


def prepare(
    pair: Item,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    saes: Mapping[int, SAE],
    options: ReferenceOptions,
    counts: Counts | None = None,
) -> Subject:
    """Check that model, SAEs and options fit together and tokenise the pair; see `analyse_pair` for the arguments."""
    if not options.layers or len(set(options.layers)) < len(options.layers):
        raise InputError(f"layers {options.layers}: expected one or more distinct layers; name each once")
    config: Any = cast(Any, model.config).get_text_config()
    for layer in options.layers if saes else ():
        if layer not in saes:
            raise InputError(f"layer {layer}: no SAE was given for it (there are {sorted(saes)}); add one")
        width, own = saes[layer].W_dec.shape[1], width_at(config, saes[layer].cfg.metadata.get("hook_name"))
        if width != own:
            raise InputError(f"SAE of layer {layer} is for width {width}, the model has {own}; use its own")
        if saes[layer].W_dec.dtype not in (torch.float32, torch.float64):
            raise InputError(f"SAE of layer {layer} is in {saes[layer].W_dec.dtype}; load it in float32 or float64")
    if model.training:
        raise InputError("the model is in training mode, where dropout adds noise; call model.eval() first")
    texts = tokenise(pair, tokenizer, options)
    context = getattr(config, "max_position_embeddings", None)
    longest = max(len(text.ids) for text in texts.values())
    if context is not None and longest > context:
        raise PairError(f"pair {pair.id}: {longest} tokens are more than the model's context of {context}")
    counts = Counts() if counts is None else counts
    questions = ask(pair, tokenizer, options, context) if options.p_true else {}
    return Subject(item=pair, texts=texts, model=model, saes=saes, options=options, counts=counts, questions=questions)


def layer_sensitivity(subject: Subject, prompt: Readings | None = None) -> Row:
    """Analysis 1, every layer and view: a forward for each; `prompt` readings of all layers spare the prompt's own."""
    row: Row = {}
    for layer in subject.options.layers:
        for view in subject.views:
            given = None if prompt is None else prompt.get(view)
            reading = subject.read(view, [layer])[layer] if given is None else given[layer]
            shapes = subject.geometry(layer, view, reading)
            values = maths.layer_metrics(reading.x.double().cpu().numpy(), reading.y, reading.a, shapes)
            row |= subject.at(layer, view, values)
    return row


def semantic_misalignment(subject: Subject, prompt: Readings | None = None) -> Row:
    """Analysis 2, at the first layer: the prompt's single read against each read of fact and hall, averaged."""
    first = subject.options.layers[0]
    given = None if prompt is None else prompt.get("prompt")
    origin_reading = subject.read("prompt", [first])[first] if given is None else given[first]
    origin = subject.geometry(first, "prompt", origin_reading)[0]
    row: Row = {}
    drift: dict[View, float | None] = {}
    twist: dict[View, float | None] = {}
    for view in subject.completions:
        reading = subject.read(view, [first])[first]
        centroids = [maths.centroid(*subject.active(first, a)) for a in reading.a]
        shapes = subject.geometry(first, view, reading)
        drift[view] = mean(maths.angle(origin.centroid, c) for c in centroids)
        twist[view] = mean(maths.line_angle(origin.axis, g.axis) for g in shapes)
    row |= _compared("centroid_drift", drift)
    return row | _compared("axis_twist", twist)


def stability(subject: Subject, readings: Readings | None = None) -> Row:
    """Analysis 3, at the first layer, for `noise_std` and each s of the sweep; `readings` of fact and hall if made."""
    first = subject.options.layers[0]
    readings = readings or {view: subject.read(view, [first]) for view in subject.completions}
    names = {"stability": subject.options.noise_std}
    names |= {f"stability_s{s:g}": s for s in subject.options.noise_sweep}
    row: Row = {}
    for name, s in names.items():
        row |= _compared(
            name, {view: _stability(subject, view, readings[view][first], s) for view in subject.completions}
        )
    return row


def _stability(subject: Subject, view: View, reading: Reading, s: float) -> float | None:
    """Mean over reads of the mean over draws of the Jaccard similarity of the top features with and without noise.

    The noise is s (or s RMS(x) of its read) times `unit_noise`, in float64, cast to x's dtype and added to x.
    """
    options, layer = subject.options, subject.options.layers[0]
    sae = subject.saes[layer]
    x = reading.x.double().cpu().numpy()
    relative = options.noise_mode == "relative"
    scale = s * np.sqrt(np.square(x).mean(axis=1, keepdims=True)) if relative else s
    clean = [maths.top_features(a) for a in reading.a]
    similarities: list[list[float | None]] = [[] for _ in clean]
    for draw in range(options.noise_draws):
        noise = unit_noise(options.seed, subject.item.id, view, layer, draw, tokens=x.shape[0], d_model=x.shape[1])
        with torch.no_grad(), subject.counts.stopwatch.stage("sae"):
            noisy = sae.encode(reading.x + torch.from_numpy(scale * noise).to(reading.x)).double().cpu().numpy()
        subject.counts.encodes += 1
        for of_read, before, after in zip(similarities, clean, noisy, strict=True):
            of_read.append(maths.jaccard(before, maths.top_features(after)))
    return mean(mean(of_read) for of_read in similarities)


def entropy(subject: Subject, readings: Readings | None = None) -> Row:
    """Analysis 4, at the first layer: entropy of the largest magnitudes; `readings` of fact and hall if made."""
    first = subject.options.layers[0]
    readings = readings or {view: subject.read(view, [first]) for view in subject.completions}
    return _compared(
        "entropy",
        {
            view: mean(maths.magnitude_entropy(a[a > 0]) for a in readings[view][first].a)
            for view in subject.completions
        },
    )


def cross_layer(subject: Subject) -> Row:
    """Analysis 5 between layers[len // 2] and layers[-1]; of two layers, between both; all None for one layer.

    With two layers layers[len // 2] is the last itself, whose cosine is 1 whatever the text, so the first takes its
    place. Consistency is None where the dictionaries have different widths.
    """
    layers = subject.options.layers
    consistency: dict[View, float | None] = dict.fromkeys(subject.completions)
    alignment: dict[View, float | None] = dict.fromkeys(subject.completions)
    if len(layers) > 1:
        middle, last = (layers[len(layers) // 2] if len(layers) > 2 else layers[0]), layers[-1]
        same_width = subject.saes[middle].W_dec.shape[0] == subject.saes[last].W_dec.shape[0]
        for view in subject.completions:
            readings = subject.read(view, [middle, last])
            here, there = readings[middle], readings[last]
            if same_width:
                consistency[view] = mean(maths.cosine(a, b) for a, b in zip(here.a, there.a, strict=True))
            alignment[view] = mean(maths.cosine(a, b) for a, b in zip(here.y, there.y, strict=True))
    row = _compared("cross_layer_consistency", consistency)
    return row | _compared("cross_layer_alignment", alignment)


def logprob(subject: Subject) -> Row:
    """Log-probability of each completion given its prompt, in nats: the sum over its tokens, and that by their number.

    A completion's tokens are those after the longest token prefix its text shares with the prompt. None where its first
    token is the first of the text: nothing predicts it.
    """
    sums: dict[View, float | None] = dict.fromkeys(subject.completions)
    means: dict[View, float | None] = dict.fromkeys(subject.completions)
    for view in subject.completions:
        text = subject.texts[view]
        first = text.own.start
        if first == 0:
            continue
        predictions = logits(subject.model, text, subject.counts)
        total = 0.0
        for position in text.own:
            predicted = torch.log_softmax(predictions[position - 1], dim=0)
            total += float(predicted[text.ids[position]])
        if not np.isfinite(total):
            raise PairError(f"pair {subject.item.id}: the log-probability of the {view} completion is not finite")
        sums[view], means[view] = total, total / text.tokens
    row = _compared("logprob", sums) | _compared("logprob_per_token", means)
    if len(sums) == 1:
        return row
    fact, hall = sums["fact"], sums["hall"]
    return row | {"knows": None if fact is None or hall is None else fact > hall}


def p_true(subject: Subject) -> Row:
    """P(True) / (P(True) + P(False)) of the model's answer to whether each completion is true.

    The answers' tokens are those from where the two part. None where the question cannot be asked.
    """
    found: dict[View, float | None] = dict.fromkeys(subject.completions)
    for view, (yes, no, parting) in subject.questions.items():
        likely = [0.0, 0.0]
        for answer, ids in enumerate((yes, no)):
            text = Text(ids=ids[:-1], reads=[], tokens=0, read_token="")
            predictions = logits(subject.model, text, subject.counts)
            for position in range(parting, len(ids)):
                likely[answer] += float(torch.log_softmax(predictions[position - 1], dim=0)[ids[position]])
        if not np.isfinite(likely).all():
            raise PairError(f"pair {subject.item.id}: the log-probability of an answer about {view} is not finite")
        true, false = np.exp(np.array(likely) - max(likely))
        found[view] = float(true / (true + false))
    return _compared("p_true", found)


def _compared(name: str, values: Mapping[View, float | None]) -> Row:
    """Columns of fact, hall and diff = hall - fact, None where either is; of an only completion its value."""
    if len(values) == 1:
        return {name: next(iter(values.values()))}
    fact, hall = values["fact"], values["hall"]
    diff = None if fact is None or hall is None else hall - fact
    return {f"{name}_fact": fact, f"{name}_hall": hall, f"{name}_diff": diff}


def trajectory(subject: Subject) -> Row:
    """Analysis 6, every layer: a forward of each view, one of each completion, and one of it from each layer."""
    row: Row = {}
    residuals = {view: subject.residuals(view, subject.options.layers) for view in subject.views}
    through = {
        view: lens(subject.model, subject.texts[view], residuals[view], subject.counts) for view in subject.completions
    }
    for layer in subject.options.layers:
        reads: dict[View, np.ndarray] = {
            view: residuals[view][layer][subject.texts[view].reads].double().cpu().numpy() for view in subject.views
        }
        for view, values in at_reads(reads, subject.completions).items():
            row |= subject.at(layer, view, values)
        for view in subject.completions:
            row |= subject.at(layer, view, through[view][layer])
    return row


ANALYSES: Final[dict[str, Callable[[Subject], Row]]] = {
    "layer_sensitivity": layer_sensitivity,
    "semantic_misalignment": semantic_misalignment,
    "stability": stability,
    "entropy": entropy,
    "cross_layer": cross_layer,
    "trajectory": trajectory,
    "logprob": logprob,
    "p_true": p_true,
}
"""The analyses by the names of the engine's; the last three run only where they are asked for."""
OF_SAES: Final = ANALYSES.keys() - {"trajectory", "logprob", "p_true"}
"""Those that need SAEs: `all_analyses` makes them together."""
_SHARING: Final = (layer_sensitivity, semantic_misalignment, stability, entropy)
"""Those that use each other's readings in `all_analyses`."""
