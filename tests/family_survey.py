"""What becomes of every family: what is read of a tiny model, and whether it equals a plain forward of transformers.

`tests/model/test_families.py` holds the result to what is claimed, `tools/make_family_docs.py` writes it down.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

import families
import tiny
from bluffscope.errors import InputError
from bluffscope.model import HookPoint, LanguageModel, ResidualReader, load_model
from bluffscope.model.hooks import HOOK_Z, find_blocks
from bluffscope.model.sublayers import find_sublayers, placed
from bluffscope.pipeline.plan import pack, pad
from bluffscope.records import Sequence
from bluffscope.reference.model import Counts, Text, forward

STATES_AFTER = {"mamba", "falcon_mamba", "rwkv"}
"""Their `hidden_states` begin with the first block's output; everybody else's with the embedding."""
MIXES_TOKENS_LATER = {"inkling_text", "inkling2_text"}
"""The MLP's output goes through a convolution over tokens."""
SLOTS = {0: 0, 1: 1}
LOADS = ((False, True, 2), (True, False, 2), (False, False, None), (True, True, None))
"""Names as published, or as transformers 5 has them; with or without LM head; blocks: each pair of choices once."""


@dataclass
class Seen:
    """What became of a family."""

    architecture: str = ""
    unbuilt: str = ""
    refused: str = ""
    packs: bool = False
    error: float = 0.0
    """Largest relative difference of residuals from plain forwards."""
    sum_error: float = 0.0
    """Of resid_pre + attn_out + mlp_out from resid_post, where a block has them."""
    complete: int = 0
    """Blocks with both."""
    heads: int = 0
    """Blocks with hook_z."""
    attention_alone: bool = True
    """Whether tokens meet each other in attn_out, and so in hook_z, alone."""
    reference: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    """Why blocks lack one of them."""
    unequal: list[str] = field(default_factory=list)
    """Ways of loading a language model alone whose residuals or logits are not those of the whole model."""

    @property
    def is_read(self) -> bool:
        return not self.unbuilt and not self.refused


def texts() -> list[Sequence]:
    """Views of two pairs with shared beginnings, all longer than the sliding window; every token is read."""
    rng = np.random.default_rng(0)
    stem = rng.integers(3, 300, 9).tolist()
    made = [(*stem[: 4 + n], *rng.integers(3, 300, 8 + n).tolist()) for n in range(6)]
    return [Sequence(n // 3, n % 3, ids, reads=tuple(range(len(ids)))) for n, ids in enumerate(made)]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


def plain(model: LanguageModel, layers: list[int]) -> torch.Tensor:
    """(layer, token, d_model) hidden states of each text alone, as transformers runs it."""
    found = []
    for text in texts():
        with torch.no_grad():
            output = model.network(torch.tensor([text.ids]), use_cache=False, output_hidden_states=True)
        states = output.hidden_states[model.name not in STATES_AFTER :]
        found.append(torch.stack([states[layer][0] for layer in layers]))
    return torch.cat(found, dim=1)


def look(name: str) -> Seen:
    """A family of causal language models."""
    try:
        model = families.build(name)
    except Exception as error:  # noqa: BLE001 (whatever keeps transformers from building one is the reason)
        return Seen(unbuilt=_said(error))
    layers = list(range(len(model.blocks) - 1))  # the last one's hidden state is after the final norm
    return read(model, lambda: plain(model, layers))


def look_inside(name: str) -> Seen:
    """A family of several modalities: its language model as it is loaded alone, against the whole model fed text."""
    try:
        whole = families.build_whole(name)
        expected = [plain_inside(whole, text.ids) for text in texts()]
    except Exception as error:  # noqa: BLE001 (as above)
        return Seen(unbuilt=_said(error))
    states = torch.cat([torch.stack(states) for states, _ in expected], dim=1)  # (layer, token, d_model)
    unequal: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for original in (True, False):
            place = Path(folder) / str(original)
            whole.network.save_pretrained(place, save_original_format=original)
            tiny.save_tokenizer(place)
        for original, head, blocks in LOADS:
            options = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32}
            try:
                model = load_model(str(Path(folder) / str(original)), blocks=blocks, head=head, **options)
            except InputError as error:
                return Seen(
                    architecture=type(whole.network).__name__,
                    refused=str(error).replace(str(Path(folder) / str(original)), name),
                )
            found = [caught(model.network, model.blocks, text.ids) for text in texts()]
            ours = torch.cat([torch.stack(one) for one, _ in found], dim=1)
            error = max(apart(*pair) for pair in zip(ours, states[: len(model.blocks)], strict=True))
            if head and blocks is None:
                both = zip(found, expected, strict=True)
                error = max(error, *(apart(one.logits[0], two.logits[0]) for (_, one), (_, two) in both))
            if not error < 1e-5:
                unequal.append(f"original={original} head={head} blocks={blocks}: {error:.1e}")
    body = replace(model, name=name, network=model.network.base_model)
    seen = read(body, lambda: states[: len(model.blocks) - 1], model.network)
    return replace(seen, architecture=type(whole.network).__name__, unequal=unequal)


def plain_inside(whole: families.WholeModel, ids: tuple[int, ...]) -> tuple[list[torch.Tensor], Any]:
    """What each block of the language model gives when the whole model reads a text; some read none by themselves."""
    blocks = find_blocks(whole.text, families.LAYERS)
    try:
        return caught(whole.network, blocks, ids)
    except (TypeError, ValueError):
        return caught(whole.text, blocks, ids)


def caught(network: Any, blocks: Any, ids: tuple[int, ...]) -> tuple[list[torch.Tensor], Any]:
    """(token, d_model) output of each block, and the network's."""
    states: list[torch.Tensor] = []

    def catch(_module: Any, _args: Any, output: Any) -> None:
        states.append((output if isinstance(output, torch.Tensor) else output[0])[0].clone())

    hooks = [block.register_forward_hook(catch) for block in blocks]
    try:
        with torch.no_grad():
            return states, network(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()


def read(model: LanguageModel, plain_states: Callable[[], torch.Tensor], whole: Any = None) -> Seen:
    """What is read of a model, compared with (layer, token, d_model) states of plain forwards of each text alone.

    The reference takes the whole network, with its LM head.
    """
    layers = list(range(len(model.blocks) - 1))
    architecture = type(model.network).__name__
    try:
        sublayers = find_sublayers(model.name, model.network, model.blocks, layers)
    except InputError as error:
        return Seen(architecture=architecture, refused=str(error))
    seen = Seen(architecture=architecture)
    reader = ResidualReader.create(model, {layer: HookPoint(layer, "hook_resid_post") for layer in layers})
    seen.packs = reader.packs
    batch = pack(texts(), SLOTS, 1000) if reader.packs else pad(texts(), SLOTS)
    residuals = reader.read(batch).residuals
    expected = plain_states()
    seen.error = max(apart(residuals[layer], expected[layer]) for layer in layers)
    for layer, there in sublayers.items():
        both = {"hook_attn_out", "hook_mlp_out"} <= there.points.keys()
        seen.reasons |= set() if both else {there.reason}
        seen.heads += HOOK_Z in there.points
        if both:
            seen.complete += 1
            added = (there.points[point] for point in ("hook_attn_out", "hook_mlp_out"))
            points = dict(enumerate((HookPoint(layer, "hook_resid_pre"), *added)))
            parts = ResidualReader(model, points, reader.style).read(batch).residuals
            seen.sum_error = max(seen.sum_error, apart(sum(parts.values()), residuals[layer]))
            seen.reference.append(by_reference(model, layer, model.network if whole is None else whole, there.points))
    if "hook_attn_out" in sublayers[0].points:
        met = {point: tokens_meet(model, there) for point, there in sublayers[0].points.items()}
        seen.attention_alone = met == {point: point == "hook_mlp_out" for point in met}
    return seen


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:100]


def tokens_meet(model: LanguageModel, without: HookPoint) -> bool:
    """Whether the first block's output at the last token depends on the first token, one of its sublayers removed."""
    seen = []
    hooks = [
        without.alter(model.blocks, torch.zeros_like),
        HookPoint(0, "hook_resid_post").attach(model.blocks, lambda states: seen.append(states[0, -1])),
    ]
    for first in (7, 8):
        with torch.no_grad():
            model.network(torch.tensor([[first, 9, 10, 11]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return not torch.allclose(*seen, rtol=1e-5, atol=1e-6)


def by_reference(model: LanguageModel, layer: int, network: Any, there: Iterable[str]) -> str:
    """ "same" where the reference reads what the engine reads; else why it does not."""
    names = {n: f"blocks.{layer}.{point}" for n, point in enumerate(there)}
    points = {n: HookPoint.parse(name) for n, name in names.items()}
    ids = texts()[0].ids
    whole = Text(ids=list(ids), reads=list(range(len(ids))), tokens=len(ids), read_token="")
    try:
        theirs = forward(network, whole, names, Counts())
    except (InputError, AttributeError) as error:  # one default configuration lacks what the model asks of it
        return str(error)
    reader = ResidualReader(model, placed(points, model.name, model.network, model.blocks), None)
    ours = reader.read(pad([Sequence(0, 0, ids, reads=tuple(range(len(ids))))], {0: 0})).residuals
    return "same" if all(torch.allclose(ours[n], theirs[n], rtol=1e-5, atol=1e-6) for n in names) else "differs"


class Survey(NamedTuple):
    """What became of all families, by name."""

    text: dict[str, Seen]
    inside: dict[str, Seen]
    """Of several modalities."""


def survey() -> Survey:
    """Look at all families; a minute or two."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of families in general
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Survey(
                {name: look(name) for name in sorted(families.NAMES)},
                {name: look_inside(name) for name in sorted(families.WHOLE)},
            )
    finally:
        logging.disable(disabled)
        transformers.utils.logging.enable_progress_bar()
