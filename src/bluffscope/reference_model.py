"""How the reference sees a pair: its texts as tokens, and one full forward of one text at a time.

The first half of `bluffscope.reference`, under the same rule: no code in common with the engine.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from bluffscope.config import Position
from bluffscope.errors import InputError, PairError
from bluffscope.precision import computing_in
from bluffscope.records import AUTO_JOIN, VIEWS, Pair, View
from bluffscope.timing import Stopwatch

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedTokenizerBase
else:  # they are only handed through
    PreTrainedTokenizerBase = RemovableHandle = Any

_BLOCK_LISTS = ("model.layers", "model.language_model.layers", "transformer.h", "gpt_neox.layers")
_HOOK_NAME = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|mlp_out|attn_out)")


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
    prepend_bos: bool = True
    """Feed one BOS before the text, where the tokenizer has one."""
    logprob: bool = False
    """Also the log-probabilities of fact and hallucination: one more forward of each."""


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


def tokenise(pair: Pair, tokenizer: PreTrainedTokenizerBase, options: ReferenceOptions) -> dict[View, Text]:
    """Token ids and reads of the three views.

    The whole text of a view is tokenised at once, so tokens may merge across the border of prompt and completion, and
    text that looks like a special token stays text. Exactly one BOS is put in front where `prepend_bos` is set and the
    tokenizer has one. A completion's tokens are those after the longest token prefix its text shares with the prompt.

    Raises:
        PairError: A view has no tokens, its completion none of its own, or none to read at the position asked for.
    """
    bos: list[Any] = [tokenizer.bos_token_id] if options.prepend_bos and tokenizer.bos_token_id is not None else []
    ids: dict[View, list[int]] = {}
    for view in VIEWS:
        encoded: Any = tokenizer(pair.text(view, options.join), add_special_tokens=False, split_special_tokens=True)
        ids[view] = list(encoded["input_ids"])
        if not ids[view]:
            raise PairError(f"pair {pair.id}: the {view} text has no tokens")
    texts: dict[View, Text] = {}
    for view in VIEWS:
        other: View = "hall" if view == "fact" else "fact"
        shared = 0 if view == "prompt" else _shared(ids[view], ids["prompt"])
        if shared == len(ids[view]):
            raise PairError(f"pair {pair.id}: the {view} completion adds no token to the prompt")
        own = range(shared, len(ids[view]))
        reads = _reads(options.position, own, ids[view], ids[other]) if view != "prompt" else [own[-1]]
        if not reads:
            raise PairError(f"pair {pair.id}: the {view} text ends before it differs from the {other} text")
        last = ids[view][reads[-1]]
        word = str(tokenizer.decode([last]))
        if "\ufffd" in word:
            word = str(tokenizer.convert_ids_to_tokens(last))
        texts[view] = Text(ids=bos + ids[view], reads=[len(bos) + i for i in reads], tokens=len(own), read_token=word)
    return texts


def _shared(ids: list[int], others: list[int]) -> int:
    """Length of the longest prefix in common."""
    length = 0
    while length < min(len(ids), len(others)) and ids[length] == others[length]:
        length += 1
    return length


def _reads(position: Position, own: range, ids: list[int], others: list[int]) -> list[int]:
    """Which of a completion's `own` tokens are read; `others` are the ids of the pair's other completed text."""
    if position == "completion-mean":
        return list(own)
    if position == "divergence":  # the first token up to which the text is not also the other's beginning
        return [i for i in own if ids[: i + 1] != others[: i + 1]][:1]
    return [own[0] if position == "first-completion" else own[-1]]


def forward(
    model: torch.nn.Module, text: Text, hook_names: Mapping[int, str], counts: Counts
) -> dict[int, torch.Tensor]:
    """One full forward of one unpadded text; by layer the (read, d_model) activation at its hook point."""
    caught: dict[int, torch.Tensor] = {}

    def catch(layer: int, hidden: torch.Tensor) -> None:
        caught[layer] = hidden[0, text.reads]

    handles: list[RemovableHandle] = []
    try:
        for layer, hook_name in hook_names.items():
            handles.append(_hook(model, hook_name, partial(catch, layer)))
        _run(model, text, counts)
    finally:
        for handle in handles:
            handle.remove()
    return caught


def logits(model: torch.nn.Module, text: Text, counts: Counts) -> torch.Tensor:
    """One full forward of one unpadded text: its logits (token, vocabulary) as the model itself gives them, float64."""
    return _run(model, text, counts).logits[0].cpu().double()


def _run(model: torch.nn.Module, text: Text, counts: Counts) -> Any:
    weights = next(model.parameters())
    ids = torch.tensor([text.ids], device=weights.device)
    with torch.no_grad(), computing_in(weights.dtype), counts.stopwatch.stage("forward"):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    counts.forwards += 1
    return output


def _hook(model: torch.nn.Module, hook_name: str, store: Callable[[torch.Tensor], None]) -> RemovableHandle:
    """Call `store` with the activation (batch, token, d_model) at a hook point, by its TransformerLens name.

    `hook_mlp_out` and `hook_attn_out` are what the sublayer adds to the residual stream: where the block has norms
    after its sublayers (Gemma-2, Gemma-3), the output of those norms.
    """
    match = _HOOK_NAME.fullmatch(hook_name)
    if match is None:
        known = "blocks.K.hook_resid_pre, hook_resid_post, hook_mlp_out or hook_attn_out"
        raise InputError(f"SAE hook point {hook_name!r} is not known; use an SAE trained at {known}")
    number, point = int(match[1]), match[2]
    blocks = _blocks(model)
    if number >= len(blocks):
        raise InputError(f"SAE hook point {hook_name}: the model has {len(blocks)} blocks; use an SAE of this model")
    block = blocks[number]

    def of_input(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    def of_output(_module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        store(output[0] if isinstance(output, tuple) else output)

    if point == "resid_pre":
        return block.register_forward_pre_hook(of_input, with_kwargs=True)
    if point == "resid_post":
        return block.register_forward_hook(of_output)
    if point == "mlp_out":
        names = ("post_feedforward_layernorm", "mlp")
    elif hasattr(block, "post_feedforward_layernorm"):  # elsewhere post_attention_layernorm is the norm BEFORE the MLP
        names = ("post_attention_layernorm",)
    else:
        names = ("self_attn", "attn", "attention")
    sublayer = next(getattr(block, name) for name in names if hasattr(block, name))
    return sublayer.register_forward_hook(of_output)


def _blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The model's transformer blocks, in order."""
    for path in _BLOCK_LISTS:
        try:
            return operator.attrgetter(path)(model)
        except AttributeError:
            continue
    raise InputError(f"{type(model).__name__}: its list of blocks is none of {', '.join(_BLOCK_LISTS)}; not supported")
