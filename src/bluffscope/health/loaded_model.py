"""What the gate looks at: model and SAEs as the run holds them, a few of its texts, and their plain forward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import nn

from bluffscope.errors import PairError
from bluffscope.host.float64_guard import computing_in
from bluffscope.model import HookPoint, LanguageModel
from bluffscope.model.hooks import RESIDUAL, final_norm, ignores_mean
from bluffscope.model.lengths import LengthClasses
from bluffscope.model.sublayers import find_sublayers
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.pipeline.worker import RunWorker
from bluffscope.records import Item, Tokenized, View, spread
from bluffscope.reference.model import ReferenceOptions, tokenise
from bluffscope.sae import Coder

TEXTS: Final = 8
"""Texts that go through the model once more, each alone, as plainly as transformers can."""
FITTED: Final = 24
"""Texts that SAEs are tried on; those that went through the model alone are among them."""
MOST_FITTED: Final = 2048
"""Tokens of such texts in all, unless one text has more."""
TOGETHER: Final = 16
"""Of such texts, in a forward pass."""
OF_A_TEXT: Final = 16
"""Most tokens of such a text that SAEs are tried on."""
MOST_TOKENS: Final = 512
"""Of such a text; longer ones are left out unless there are no others."""
AFTER_NORM: Final = "the hidden state after the final norm"


@dataclass(frozen=True)
class Subject:
    """Model and SAEs of a run, wherever its strategy keeps them."""

    model: LanguageModel
    """Its body is used, without LM head: the blocks that the run loaded, or all."""
    coders: Mapping[int, Coder]
    points: Mapping[int, HookPoint]
    """Where each SAE says it belongs, whatever the run's reader hooks."""
    sublayers: Sequence[HookPoint]
    """What attention or MLP of every block add to the residual stream, or what the heads give, of the kind that an SAE
    reads."""
    options: ReferenceOptions
    """How texts are put together and read, for the reference's own tokenising."""
    texts: TextTokenizer
    """The run's own tokenising; its `bos` is what the run feeds in front of every text."""
    worker: ShardWorker | None
    """What reads packed batches; None for strategies that take one text at a time anyway."""

    @classmethod
    def of(cls, worker: RunWorker, whole: LanguageModel | None = None) -> Subject | None:
        """What a run's worker holds; None where it holds no model (any more).

        Args:
            worker: the run's.
            whole: the whole model, for plain forwards through it instead of the worker's own.
        """
        parts, texts = worker.parts, worker.tokenizer
        if parts is None:
            return None
        model, coders = parts.model if whole is None else whole, parts.coders
        body = _body(model)
        centred = ignores_mean(body)
        points = {layer: HookPoint(layer, "hook_resid_post") for layer in parts.bare} | {
            layer: HookPoint.parse(coder.hook_name, centred=coder.centred and centred)
            for layer, coder in coders.items()
        }
        sublayers = _sublayers(points, body, model.blocks)
        there = {(point.block, point.point): point for point in sublayers}
        return cls(
            model=model,
            coders=coders,
            points={
                layer: there.get((point.block, point.point), point).centred_where(point.centred)
                for layer, point in points.items()
            },
            sublayers=sublayers,
            options=ReferenceOptions(
                layers=parts.layers,
                join=texts.join,
                position=texts.position,
                further=texts.further,
                chat=texts.chat,
            ),
            texts=texts,
            worker=worker.in_batches,
        )

    @property
    def tokenizer(self) -> Any:
        """The model's own."""
        return self.model.tokenizer

    @property
    def asks_for_bos(self) -> bool:
        """Whether the SAEs were trained on texts with a BOS in front, as far as they say; without SAEs, always."""
        if not self.coders:
            return self.tokenizer.bos_token_id is not None
        return any(coder.prepend_bos for coder in self.coders.values())


def _body(model: LanguageModel) -> Any:
    """The causal language model without its LM head."""
    return cast(Any, model.network).base_model


@dataclass(frozen=True)
class Traits:
    """What checks of names and tables need to know of the model; travels between processes."""

    embedded: int
    """Rows of the embedding."""
    tokens: int
    """Ids of the tokenizer."""
    bos_text: str | None
    """A BOS as the table's read tokens show it; None where the tokenizer has none."""
    centred: frozenset[int]
    """Layers at which the mean is taken off what is read."""

    @classmethod
    def of(cls, subject: Subject) -> Traits:
        """Of the model as a run holds it."""
        texts = subject.tokenizer
        bos = texts.bos_token_id
        return cls(
            embedded=int(_body(subject.model).get_input_embeddings().weight.shape[0]),
            tokens=len(texts),
            bos_text=None if bos is None else str(texts.decode([bos])),
            centred=frozenset(layer for layer, point in subject.points.items() if point.centred),
        )


def _sublayers(points: Mapping[int, HookPoint], network: nn.Module, blocks: nn.ModuleList) -> list[HookPoint]:
    kinds = {point.point for point in points.values()} - set(RESIDUAL)
    if not kinds:
        return []
    found = find_sublayers("the model", network, blocks, range(len(blocks)))
    return [point for there in found.values() for kind, point in there.points.items() if kind in kinds]


@dataclass(frozen=True)
class Plain:
    """One text alone through the model as transformers runs it, with the residual stream at every site."""

    pair: Item
    view: View
    ids: tuple[int, ...]
    """By the reference's tokenising, a BOS first where one belongs."""
    reads: tuple[int, ...]
    """Where it should be read."""
    bos: bool
    """Whether `ids` begins with a BOS."""
    sites: Mapping[str, Float[torch.Tensor, "token d_model"]]
    """By TransformerLens name: the residual stream before and after every block that is loaded, from
    `output_hidden_states`; the last block's from the input of the final norm. Then `AFTER_NORM`, and other hook
    points that SAEs read."""
    further: tuple[tuple[int, ...], ...] = ()
    """Likewise `reads` at each further position."""

    def at(self, site: str, point: HookPoint) -> Float[torch.Tensor, "token d_model"]:
        """The activations of all tokens at a site, centred where the hook point is."""
        return _centred(self.sites[site], point)


@dataclass(frozen=True)
class Activations:
    """Some tokens of texts that went through the model plainly: none is the first of its text, with or without BOS."""

    bos: bool
    """Whether a BOS was put in front."""
    pair: torch.Tensor
    """(token,) number of the pair that each belongs to."""
    sites: Mapping[str, Float[torch.Tensor, "token d_model"]]
    """As in `Plain.sites`."""

    def at(self, site: str, point: HookPoint) -> Float[torch.Tensor, "token d_model"]:
        """The activations at a site, centred where the hook point is."""
        return _centred(self.sites[site], point)

    @classmethod
    def of(
        cls,
        subject: Subject,
        texts: Sequence[tuple[int, Sequence[int]]],
        *,
        bos: bool,
        plain: Sequence[Plain] = (),
        everywhere: bool = True,
    ) -> Activations:
        """Those of texts, a few in a forward pass, padded on the right.

        Args:
            subject: the model.
            texts: each one's pair, and its ids without BOS.
            bos: whether a BOS is put in front.
            plain: texts that went through the model already, at all sites.
            everywhere: whether all sites are kept, or only those that the SAEs read.
        """
        start = [subject.tokenizer.bos_token_id] if bos else []
        found = {one.ids: one.sites for one in plain}
        class_of = LengthClasses.of(subject.model.config).of_length
        batches: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        left = sorted({(*start, *ids) for _, ids in texts} - found.keys(), key=lambda ids: (len(ids), ids))
        for number, ids in enumerate(left):
            batches.setdefault((class_of(len(ids)), number // TOGETHER), []).append(ids)
        for batch in batches.values():
            sites = _sites(subject, batch, everywhere=everywhere)
            found |= {ids: {name: states[row] for name, states in sites.items()} for row, ids in enumerate(batch)}
        numbers: list[int] = []
        parts: dict[str, list[torch.Tensor]] = {}
        for pair, ids in texts:
            places = torch.tensor([len(start) + 1 + at for at in spread(len(ids) - 1, OF_A_TEXT)], dtype=torch.long)
            for name, states in found[*start, *ids].items():
                parts.setdefault(name, []).append(states[places.to(states.device)])
            numbers += [pair] * len(places)
        sites = {name: torch.cat(states) for name, states in parts.items()}
        return cls(bos, torch.tensor(numbers, dtype=torch.long), sites)


def _centred(states: torch.Tensor, point: HookPoint) -> torch.Tensor:
    return states - states.mean(dim=-1, keepdim=True) if point.centred else states


def site_of(point: HookPoint) -> str:
    """The name under which `Plain.sites` has a hook point: before block k is after block k - 1."""
    if point.point == "hook_resid_pre" and point.block > 0:
        return f"blocks.{point.block - 1}.hook_resid_post"
    return f"blocks.{point.block}.{point.point}"


def plain_forwards(
    subject: Subject, texts: Sequence[tuple[Item, View]], *, bos: bool | None = None, everywhere: bool = True
) -> Iterator[Plain]:
    """Each text alone, unpadded, no custom mask, no positions; those that cannot be tokenised are left out.

    Args:
        subject: the model.
        texts: which views.
        bos: whether a BOS is put in front; as the SAEs ask unless given.
        everywhere: whether all sites are kept, or only those that the SAEs read: of a long text, all take much memory.
    """
    options = replace(subject.options, prepend_bos=subject.asks_for_bos if bos is None else bos)
    tokenizer = subject.tokenizer
    begins = options.prepend_bos and tokenizer.bos_token_id is not None
    for pair, view in texts:
        try:
            text = tokenise(pair, tokenizer, options)[view]
        except PairError:
            continue
        sites = {name: states[0] for name, states in _sites(subject, [text.ids], everywhere=everywhere).items()}
        yield Plain(pair, view, tuple(text.ids), tuple(text.reads), begins, sites, text.further)


@torch.inference_mode()
def _sites(
    subject: Subject, texts: Sequence[Sequence[int]], *, everywhere: bool
) -> dict[str, Float[torch.Tensor, "text token d_model"]]:
    """The residual stream of texts, padded on the right, at every site or only where the SAEs say they belong."""
    model, longest = subject.model, max(map(len, texts))
    pad = texts[0][0]  # never attended to: any id will do
    body = _body(model)
    inputs = torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in texts], device=model.device)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts], device=model.device)
    sites: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        def receive(activations: torch.Tensor) -> None:
            sites[name] = activations.clone()  # a block may add in place

        return receive

    last = f"blocks.{len(model.blocks) - 1}.hook_resid_post"
    points = subject.sublayers if everywhere else [replace(point, centred=False) for point in subject.points.values()]
    handles = [point.attach(model.blocks, keep(site_of(point))) for point in points]
    handles.append(
        _watch_end(model, keep(last))
        if everywhere
        else model.blocks[max(point.block for point in points)].register_forward_hook(_stop)
    )
    output: Any = None
    try:
        with computing_in(model.dtype), contextlib.suppress(_Enough):
            output = body(input_ids=inputs, attention_mask=mask, use_cache=False, output_hidden_states=everywhere)
    finally:
        for handle in handles:
            handle.remove()
    if not everywhere:
        return sites
    # hidden_states[k] is before block k; the last entry is behind the final norm.
    states = output.hidden_states
    between = {f"blocks.{block - 1}.hook_resid_post": states[block] for block in range(1, len(model.blocks))}
    ends = {last: sites.pop(last), AFTER_NORM: states[-1]}
    return {"blocks.0.hook_resid_pre": states[0], **between, **ends, **sites}


class _Enough(Exception):  # noqa: N818 (no error)
    """Ends a forward pass: nothing behind this block is asked for."""


def _stop(*_: object) -> None:
    raise _Enough


def _watch_end(model: LanguageModel, receive: Callable[[torch.Tensor], None]) -> torch.utils.hooks.RemovableHandle:
    """Keep what the final norm is given: the residual stream after the last block, seen from its other side."""
    norm = final_norm(_body(model))
    if norm is not None:
        return norm.register_forward_pre_hook(lambda _module, args: receive(args[0]))
    return HookPoint(len(model.blocks) - 1, "hook_resid_post").attach(model.blocks, receive)


def chosen_texts(tokenized: Sequence[Tokenized[Item]]) -> list[tuple[Item, View]]:
    """The texts that go through the model alone: completions in turn, of as many items as there are."""
    short = [pair for pair in tokenized if max(len(view.ids) for view in pair.sequences) <= MOST_TOKENS]
    pairs = short or sorted(tokenized, key=lambda pair: max(len(view.ids) for view in pair.sequences))[:2]
    chosen = [pairs[place].item for place in spread(len(pairs), TEXTS)]
    turns = range(chosen[0].arrangement.per if chosen else 0)
    texts: list[tuple[Item, View]] = [
        (item, item.arrangement.completions[(number + turn) % len(turns)])
        for turn in turns
        for number, item in enumerate(chosen)
    ]
    return texts[:TEXTS]


def fitted_texts(
    tokenized: Sequence[Tokenized[Item]], bos: int | None, plain: Sequence[Plain]
) -> list[tuple[int, tuple[int, ...]]]:
    """Texts that SAEs are tried on: each one's pair and its ids without BOS.

    One completion of each item, those of a pair in turn, and of an item that went through the model already the same
    as there; all where there are few items.
    """
    chosen: list[tuple[int, tuple[int, ...]]] = []
    tokens = 0
    first: dict[int, View] = {one.pair.index: one.view for one in plain}
    views = tokenized[0].item.arrangement.completions if tokenized else ()
    for turn in range(len(views)):
        for number, found in enumerate(tokenized):
            at = views.index(first.get(found.item.index, views[number % len(views)])) + turn
            place = found.item.arrangement.views.index(views[at % len(views)])
            ids = next(tuple(text.ids) for text in found.sequences if text.view == place)
            ids = ids[1:] if ids[0] == bos else ids
            tokens += len(ids)
            if len(chosen) == FITTED or (chosen and tokens > MOST_FITTED):
                return chosen
            chosen.append((number, ids))
    return chosen
