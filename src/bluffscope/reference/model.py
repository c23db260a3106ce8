"""How the reference sees a pair: its texts as tokens, and one full forward of one text at a time.

The first half of `bluffscope.reference.analyses`, under the same rule: no code in common with the engine.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from bluffscope.config import Position
from bluffscope.errors import InputError, PairError
from bluffscope.host.chat import Chat, Message, messages_of
from bluffscope.host.float64_guard import computing_in
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.records import AUTO_JOIN, Item, View

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedTokenizerBase
else:  # they are only handed through
    PreTrainedTokenizerBase = RemovableHandle = Any

_BLOCK_LISTS = (
    *("model.layers", "transformer.h", "gpt_neox.layers"),
    *("model.language_model.layers", "model.text_model.layers"),  # of several modalities
)
_POINTS = ("resid_pre", "attn_out", "mlp_out", "resid_post")
_SUBLAYERS = (
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM-4
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2; elsewhere the MLP's input norm
    ("self_attention.dense", "mlp.dense_4h_to_h"),  # BLOOM, whose attention and mlp return the sum
    ("self_attn", "mlp"),
    ("attn", "mlp"),
    ("attention", "mlp"),
)
"""Modules that hold what attention and MLP add; a block's are the first two that it has."""
_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.02, torch.float16: 0.004}
"""Relative error of a sum of three."""
_PROJECTIONS = (
    *("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attention.dense", "self_attn.dense"),
    *("self_attn.out_proj", "attn.out_proj", "attention.out_proj", "attn.attention.out_proj"),
)
"""The modules that attention ends with; a block's is the first that it has."""
_HOOK_NAME = re.compile(r"blocks\.(\d+)\.(?:hook_(resid_pre|resid_post|mlp_out|attn_out)|attn\.hook_(z))")


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """What is measured; the same meanings and defaults as the run's own options."""

    layers: tuple[int, ...]
    """Layers in the order of the user; the first is that of misalignment, stability and entropy."""
    join: str = AUTO_JOIN
    """Text between prompt and completion; see `bluffscope.records.joined`."""
    position: Position = "last"
    """Read the last token; the completion's first; the first that is not the other completion's; or every token of the
    completion, and average the metrics. The prompt is always read at its last token."""
    further: tuple[Position, ...] = ()
    """Further positions of which residuals are kept."""
    noise_std: float = 0.1
    """s of the stability noise."""
    noise_mode: Literal["absolute", "relative"] = "absolute"
    """s in activation units, or times the root mean square of the residual."""
    noise_draws: int = 8
    """Draws of noise for each text and s."""
    noise_sweep: tuple[float, ...] = ()
    """Further s, each with columns stability_s{S}_*."""
    seed: int = 0
    """Seed of the noise."""
    chat: Chat | None = None
    """Make conversations of prompts; the template then decides on a BOS."""
    prepend_bos: bool = True
    """Feed one BOS before the text, where the tokenizer has one."""
    logprob: bool = False
    """Also the log-probabilities of fact and hallucination: one more forward of each."""
    p_true: bool = False
    """Also whether the model, asked, says that fact and hallucination are true: two more forwards of each."""
    trajectory: bool = False
    """Also what each layer predicts of fact and hallucination: one more forward of each for every layer."""


@dataclass
class Counts:
    """How much work was done; hand one in to have it counted."""

    forwards: int = 0
    """Full forward passes of one text."""
    encodes: int = 0
    """Calls of `sae.encode`: one for each text, layer, analysis and noise draw, whatever the number of reads."""
    eigendecompositions: int = 0
    """Decompositions of a d x d matrix; reads with fewer than two active features need none."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch, compare=False, repr=False)
    """Seconds in the three, as the stages forward, sae and geometry."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One view as the model sees it."""

    ids: list[int]
    """Token ids, BOS first where one is fed."""
    reads: list[int]
    """Positions in `ids` at which the view is measured: never BOS, never empty."""
    tokens: int
    """Prompt: its tokens without BOS. Fact, hall: tokens after the longest token prefix in common with the prompt."""
    read_token: str
    """Text of the (last) token read; as the vocabulary writes it where it is no whole character."""
    further: tuple[tuple[int, ...], ...] = ()
    """Of a completion, likewise `reads` at each further position."""
    closing: int = 0
    """Tokens behind the completion: what closes the assistant's turn, where it is read."""

    @property
    def own(self) -> range:
        """Where the completion's tokens are in `ids`."""
        stop = len(self.ids) - self.closing
        return range(stop - self.tokens, stop)


def tokenise(pair: Item, tokenizer: PreTrainedTokenizerBase, options: ReferenceOptions) -> dict[View, Text]:
    """Token ids and reads of the three views.

    The whole text of a view is tokenised at once, so tokens may merge across the border of prompt and completion, and
    text that looks like a special token stays text. Exactly one BOS is put in front where `prepend_bos` is set and the
    tokenizer has one. A completion's tokens are those after the longest token prefix its text shares with the prompt.

    Raises:
        PairError: A view has no tokens, its completion none of its own, or none to read at the position asked for.
    """
    if options.chat is not None:
        return _chat(pair, tokenizer, options, options.chat)
    bos: list[Any] = [tokenizer.bos_token_id] if options.prepend_bos and tokenizer.bos_token_id is not None else []
    prompt, whole = pair.texts(options.join)
    views = pair.arrangement.views
    given: dict[View, str] = {"prompt": prompt, **dict(zip(pair.arrangement.completions, whole, strict=True))}
    ids: dict[View, list[int]] = {}
    for view, text in given.items():
        encoded: Any = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids[view] = list(encoded["input_ids"])
        if not ids[view] and view in views:
            raise PairError(f"pair {pair.id}: the {view} text has no tokens")
    texts: dict[View, Text] = {}
    for view in views:
        other = _other(view)
        shared = 0 if view == "prompt" else _shared(ids[view], ids["prompt"])
        if shared == len(ids[view]):
            raise PairError(f"pair {pair.id}: the {view} completion adds no token to the prompt")
        own = range(shared, len(ids[view]))
        asked = (options.position, *options.further) if view != "prompt" else ("last",)
        places = [_reads(position, own, ids[view], ids.get(other, [])) for position in asked]
        if not all(places):
            raise PairError(f"pair {pair.id}: the {view} text ends before it differs from the {other} text")
        reads, *further = (tuple(len(bos) + i for i in place) for place in places)
        text = _text(tokenizer, bos + ids[view], [*reads], len(own))
        texts[view] = replace(text, further=tuple(further))
    return texts


def _other(view: View) -> View:
    """The other completion of a pair."""
    return "hall" if view == "fact" else "fact"


def _chat(pair: Item, tokenizer: PreTrainedTokenizerBase, options: ReferenceOptions, chat: Chat) -> dict[View, Text]:
    """`tokenise` of a conversation: the tokenizer's own template, then the completion's tokens."""
    prompt, whole = pair.texts("")
    opening = opening_of(messages_of(prompt) or [{"role": "user", "content": prompt}], tokenizer, chat)
    said: dict[View, list[int]] = {}
    for view, joined in zip(pair.arrangement.completions, whole, strict=True):
        text = joined[len(prompt) :]
        encoded: Any = tokenizer(text.lstrip(" "), add_special_tokens=False, split_special_tokens=True)
        said[view] = list(encoded["input_ids"])
        if not said[view]:
            raise PairError(f"pair {pair.id}: the {view} completion has no tokens")
    first = int(bool(opening) and opening[0] == tokenizer.bos_token_id)
    texts: dict[View, Text] = {"prompt": _text(tokenizer, opening, [len(opening) - 1], len(opening) - first)}
    for view, ids in said.items():
        own = range(len(opening), len(opening) + len(ids))
        whole, others = opening + ids, opening + said.get(_other(view), [])
        asked = (options.position, *options.further)
        closing = [chat.end_of_turn] if "end-of-turn" in asked else []
        places = [
            [len(whole)] if position == "end-of-turn" else _reads(position, own, whole, others) for position in asked
        ]
        if not all(places):
            raise PairError(f"pair {pair.id}: the {view} text ends before it differs from the other text")
        text = _text(tokenizer, whole + closing, places[0], len(ids))
        texts[view] = replace(text, closing=len(closing), further=tuple(map(tuple, places[1:])))
    return texts


def opening_of(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[int]:
    """Ids of a conversation up to the assistant's turn."""
    asked = [dict(message) for message in messages]
    if chat.system is not None and asked[0]["role"] != "system":
        asked = [{"role": "system", "content": chat.system}, *asked]
    if any(chat.forged(message["content"]) for message in asked):
        return chat.openings([prompt := json.dumps(asked)])[prompt]  # which tokens those are is a definition
    made: Any = tokenizer.apply_chat_template(asked, add_generation_prompt=True, enable_thinking=False)
    return list(made["input_ids"])


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int], reads: list[int], tokens: int) -> Text:
    word = str(tokenizer.decode([ids[reads[-1]]]))
    if "\ufffd" in word:
        word = str(tokenizer.convert_ids_to_tokens(ids[reads[-1]]))
    return Text(ids=ids, reads=reads, tokens=tokens, read_token=word)


def _shared(ids: list[int], others: list[int]) -> int:
    """Length of the longest prefix in common."""
    length = 0
    while length < min(len(ids), len(others)) and ids[length] == others[length]:
        length += 1
    return length


def _reads(position: Position, own: range, ids: list[int], others: list[int]) -> list[int]:
    """Which of a completion's `own` tokens are read; `others` are the ids of the pair's other completed text."""
    if position in ("completion-mean", "tokens"):
        return list(own)
    if position == "divergence":  # the first token up to which the text is not also the other's beginning
        return [i for i in own if ids[: i + 1] != others[: i + 1]][:1]
    return [own[0] if position == "first-completion" else own[-1]]


def forward(
    model: torch.nn.Module, text: Text, hook_names: Mapping[int, str], counts: Counts
) -> dict[int, torch.Tensor]:
    """One full forward of one unpadded text; by layer the (token, d_model) activation at its hook point."""
    points = {layer: _point(hook_name) for layer, hook_name in hook_names.items()}
    wanted = {(number, point) for number, point in points.values()}
    added = {number for number, point in wanted if point.endswith("_out")}
    states: dict[tuple[int, str], torch.Tensor] = {}  # (token, d_model) by block and point

    def catch(place: tuple[int, str], hidden: torch.Tensor) -> None:
        states[place] = hidden[0].clone()  # a block may add in place

    handles: list[RemovableHandle] = []
    try:
        for place in wanted | {(number, point) for number in added for point in _POINTS}:
            handles.append(_hook(model, *place, partial(catch, place)))
        _run(model, text, counts)
    finally:
        for handle in handles:
            handle.remove()
    for number in added:
        _check_sum(number, *(states[number, point] for point in _POINTS))
    return {layer: states[place] for layer, place in points.items()}


def _check_sum(number: int, *states: torch.Tensor) -> None:
    """Refuse a block whose attention and MLP, as they were read, are not what it adds to the residual stream."""
    before, attention, mlp, after = (part.double() for part in states)
    allowed = _ROUNDING[states[0].dtype] * sum(part.norm(dim=1) for part in (before, attention, mlp, after))
    if not bool(((before + attention + mlp - after).norm(dim=1) <= allowed).all()):
        raise InputError(
            f"block {number}: resid_pre + attn_out + mlp_out is not resid_post, so the reference cannot read attn_out "
            "or mlp_out of this model; use --strategy packed, or SAEs that read the residual stream"
        )


def logits(model: torch.nn.Module, text: Text, counts: Counts) -> torch.Tensor:
    """One full forward of one unpadded text: its logits (token, vocabulary) as the model itself gives them, float64."""
    return _run(model, text, counts).logits[0].cpu().double()


def logits_from(model: torch.nn.Module, text: Text, states: torch.Tensor, counts: Counts) -> torch.Tensor:
    """The logits (token, vocabulary), float64, that the model ends with where its last block gives these states."""

    def put(_module: torch.nn.Module, _args: Any, output: Any) -> Any:
        return states[None] if isinstance(output, torch.Tensor) else (states[None], *output[1:])

    handle = _blocks(model)[-1].register_forward_hook(put)
    try:
        return logits(model, text, counts)
    finally:
        handle.remove()


def _run(model: torch.nn.Module, text: Text, counts: Counts) -> Any:
    weights = next(model.parameters())
    ids = torch.tensor([text.ids], device=weights.device)
    with torch.no_grad(), computing_in(weights.dtype), counts.stopwatch.stage("forward"):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    counts.forwards += 1
    return output


def width_at(config: Any, hook_name: Any) -> int:
    """Dimensions of the activation at a hook point: those of the residual stream, or of all heads together."""
    if not str(hook_name).endswith("hook_z"):
        return config.hidden_size
    if getattr(config, "is_heterogeneous", False):  # each block has a configuration of its own
        config = config.per_layer_config[_point(hook_name)[0]]
    sizes = (getattr(config, name, None) for name in ("v_head_dim", "head_dim"))
    size = next((size for size in sizes if size), config.hidden_size // config.num_attention_heads)
    return config.num_attention_heads * size


def _point(hook_name: str) -> tuple[int, str]:
    """Block and point of a TransformerLens name."""
    match = _HOOK_NAME.fullmatch(hook_name)
    if match is None:
        known = "blocks.K.hook_resid_pre, hook_resid_post, hook_mlp_out, hook_attn_out or attn.hook_z"
        raise InputError(f"SAE hook point {hook_name!r} is not known; use an SAE trained at {known}")
    return int(match[1]), match[2] or match[3]


def _hook(model: torch.nn.Module, number: int, point: str, store: Callable[[torch.Tensor], None]) -> RemovableHandle:
    """Call `store` with the activation (batch, token, d_model) at a hook point; of z, (batch, token, heads together).

    `mlp_out` and `attn_out` are what the sublayer adds to the residual stream: the output of the norm after it where
    there is one, times the block's multiplier.
    """
    blocks = _blocks(model)
    if number >= len(blocks):
        name = f"blocks.{number}.hook_{point}"
        raise InputError(f"SAE hook point {name}: the model has {len(blocks)} blocks; use an SAE of this model")
    block = blocks[number]

    def of_input(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    def of_output(_module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        store(output[0] if isinstance(output, tuple | list) else output)

    def of_sublayer(_module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        store((output[0] if isinstance(output, tuple) else output) * getattr(block, "residual_multiplier", 1.0))

    if point == "resid_pre":
        return block.register_forward_pre_hook(of_input, with_kwargs=True)
    if point == "resid_post":
        return block.register_forward_hook(of_output)
    modules = dict(block.named_modules())
    if point == "z":
        projection = next((modules[name] for name in _PROJECTIONS if name in modules), None)
        if projection is None:
            raise InputError(f"the reference knows no hook_z of {type(block).__name__}; use --strategy packed")
        return projection.register_forward_pre_hook(of_input, with_kwargs=True)
    pair = next((pair for pair in _SUBLAYERS if all(name in modules for name in pair)), None)
    if pair is None:
        raise InputError(f"the reference knows no {point} of {type(block).__name__}; use --strategy packed")
    return modules[pair[point == "mlp_out"]].register_forward_hook(of_sublayer)


def _blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The model's transformer blocks, in order."""
    for path in _BLOCK_LISTS:
        try:
            return operator.attrgetter(path)(model)
        except AttributeError:
            continue
    raise InputError(f"{type(model).__name__}: its list of blocks is none of {', '.join(_BLOCK_LISTS)}; not supported")
