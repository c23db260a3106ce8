"""Which module of a block holds what its attention, or its MLP, adds to the residual stream: found by trying.

Families differ: a sublayer's output may contain the residual stream already (BLOOM), be multiplied before it is added
(Granite), or pass a norm first (Gemma 2, GLM-4). So one short text goes through the model, and of each block those two
modules are taken whose outputs, times one of the block's own factors, sum to the block's whole change. The attention's
output projection is the linear module that reads the width of all heads and whose output this is, or becomes in a norm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from bluffscope.errors import InputError
from bluffscope.host.float64_guard import computing_in
from bluffscope.model.failures import model_errors
from bluffscope.model.forward import PARITY_TOLERANCE
from bluffscope.model.hooks import HOOK_Z, RESIDUAL, HookPoint, Point

_TOKENS: Final = 8
_ROUNDINGS: Final = 4
"""How many roundings of its terms the sum may be off by."""


@dataclass(frozen=True)
class Sublayers:
    """What attention and MLP of one block add to the residual stream."""

    points: Mapping[Point, HookPoint]
    """Those that can be read."""
    reason: str = ""
    """Why the others cannot."""


def placed(
    points: Mapping[int, HookPoint], name: str, network: nn.Module, blocks: nn.ModuleList
) -> dict[int, HookPoint]:
    """The hook points, with the modules that hold them.

    Args:
        points: by layer.
        name: of the model, for messages.
        network: with or without its LM head.
        blocks: its transformer blocks.

    Raises:
        InputError: the blocks do not pass on one residual stream, or a sublayer cannot be read.
    """
    asked = {point.block for point in points.values() if point.point not in RESIDUAL}
    known = find_sublayers(name, network, blocks, asked)
    found = dict(points)
    for layer, point in points.items():
        if point.point in RESIDUAL:
            continue
        there = known[point.block]
        if point.point not in there.points:
            raise InputError(
                f"--model {name}, layer {layer}: blocks.{point.block}.{point.point} cannot be read: {there.reason}; "
                "choose SAEs that read the residual stream"
            )
        found[layer] = there.points[point.point].centred_where(point.centred)
    return found


@torch.inference_mode()
def find_sublayers(
    name: str, network: nn.Module, blocks: nn.ModuleList, asked: Collection[int]
) -> dict[int, Sublayers]:
    """What attention and MLP of the blocks `asked` add; every block must begin where the one before it ended.

    Two texts go through the model that differ in their last token: the others may not notice.

    Raises:
        InputError: the blocks do not pass on one residual stream of (row, token, d_model), or look ahead.
    """
    body: Any = network.base_model
    weight = body.get_input_embeddings().weight
    ids = [(number * 7919 + 11) % len(weight) for number in range(_TOKENS + 1)]
    inputs = torch.tensor([ids[:-1], [*ids[:-2], ids[-1]]], device=weight.device)
    traces = [_Trace() for _ in blocks]
    handles = [
        handle
        for number, (block, trace) in enumerate(zip(blocks, traces, strict=True))
        for handle in trace.watch(block, parts=number in asked)
    ]
    try:
        with computing_in(weight.dtype), model_errors(name, "model"):  # some models fail only when they run
            body(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    _check_stream(name, blocks, traces, (2, _TOKENS, int(body.config.hidden_size)))
    widths = _head_widths(body.config)
    return {number: _sublayers(number, blocks[number], traces[number], widths) for number in asked}


@dataclass
class _Output:
    """What a module of the block returned."""

    path: str
    ended: int
    """When, as the number of calls begun before."""
    states: torch.Tensor
    """(row, token, d_model)"""
    given: torch.Tensor | None
    """(row, token, width) what it was given."""
    linear: bool
    """Whether it is one matrix, perhaps with a bias."""


class _Sum(NamedTuple):
    """Two outputs whose sum, times a factor, may be a block's change."""

    first: _Output
    second: _Output
    scale: float
    error: float
    """What is missing, over the size of the terms, at the worst token."""


@dataclass
class _Trace:
    """One forward of a block: what went in and out, and the outputs of its modules in order."""

    before: torch.Tensor | None = None
    after: torch.Tensor | None = None
    calls: list[str] = field(default_factory=list)
    attention: int | None = None
    """When the first attention module was called, likewise."""
    outputs: list[_Output] = field(default_factory=list)

    def watch(self, block: nn.Module, *, parts: bool) -> list[torch.utils.hooks.RemovableHandle]:
        """Record the block's next forward; with `parts`, that of its modules too."""

        def enters(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.before = _states(args[0] if args else kwargs.get("hidden_states"))

        def leaves(_module: nn.Module, _args: Any, output: Any) -> None:
            self.after = _states(output)

        handles = [block.register_forward_pre_hook(enters, with_kwargs=True), block.register_forward_hook(leaves)]
        for path, module in block.named_modules() if parts else ():
            if module is not block:
                handles += [
                    module.register_forward_pre_hook(self._begins(path)),
                    module.register_forward_hook(self._ends(path)),
                ]
        return handles

    def _begins(self, path: str) -> Any:
        def begins(module: nn.Module, _args: Any) -> None:
            if self.attention is None and "Attention" in type(module).__name__:
                self.attention = len(self.calls)
            self.calls.append(path)

        return begins

    def _ends(self, path: str) -> Any:
        def ends(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            states = _states(output)
            if states is not None and self.before is not None and states.shape == self.before.shape:
                weight: Any = getattr(module, "weight", None)
                linear = weight is not None and weight.ndim == 2 and not [*module.children()]
                given = _states(args[0]) if args else None
                self.outputs.append(_Output(path, len(self.calls), states, given, linear))

        return ends

    def candidates(self) -> list[_Output]:
        """One output for each value: the last module's that returned it. Modules called more than once are none."""
        once = self._once()
        return [
            output
            for number, output in enumerate(once)
            if not any(torch.equal(output.states, later.states) for later in once[number + 1 :])
        ]

    def projection(self, part: _Output, widths: Collection[int]) -> _Output | None:
        """The linear module whose output is a sublayer's part, or what the norms before the part were given."""
        once, states = self._once(), part.states
        for _ in range(len(once)):
            same = [output for output in once if torch.equal(output.states, states)]
            for output in same:
                if output.linear and output.given is not None and output.given.shape[2] in widths:
                    return output
            before = [output.given for output in same if output.given is not None and not output.linear]
            if not before or before[0].shape != states.shape:
                break
            states = before[0]
        return None

    def _once(self) -> list[_Output]:
        """Outputs of modules that were called once."""
        return [output for output in self.outputs if self.calls.count(output.path) == 1]


def _states(output: Any) -> torch.Tensor | None:
    """A copy of (row, token, d_model) states; None where it is anything else."""
    states = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(states, torch.Tensor) or states.ndim != 3 or not states.is_floating_point():
        return None
    return states.to("cpu", copy=True)  # blocks may add in place; MPS has no float64


def _check_stream(name: str, blocks: nn.ModuleList, traces: list[_Trace], shape: tuple[int, int, int]) -> None:
    last: torch.Tensor | None = None
    for number, trace in enumerate(traces):
        what = f"--model {name}: {type(blocks[number]).__name__} {number}"
        if any(states is None or tuple(states.shape) != shape for states in (trace.before, trace.after)):
            raise InputError(f"{what} does not pass on a residual stream of {shape[2]} dimensions; not supported")
        assert trace.before is not None and trace.after is not None
        if last is not None and not torch.allclose(last, trace.before, rtol=0, atol=0, equal_nan=True):
            raise InputError(f"{what} does not begin where the block before it ended; this family is not supported")
        one, other = trace.after[:, :-1].double()  # (token, d_model), the last token left out
        if bool(((one - other).norm(dim=1) > PARITY_TOLERANCE[trace.after.dtype] * one.norm(dim=1)).any()):
            raise InputError(f"{what} looks at later tokens; give a causal (decoder-only) language model")
        last = trace.after


def _head_widths(config: Any) -> set[int]:
    """What the outputs of all heads together may be wide, by the model's configuration."""
    varies = getattr(config, "is_heterogeneous", False)  # then each block has a configuration of its own
    found: set[int] = set()
    for one in [config.per_layer_config[block] for block in range(config.num_hidden_layers)] if varies else [config]:
        heads = getattr(one, "num_attention_heads", None)
        if isinstance(heads, int) and heads > 0:
            stated = (getattr(one, name, None) for name in ("head_dim", "v_head_dim"))
            found |= {int(config.hidden_size) // heads * heads}
            found |= {heads * size for size in stated if isinstance(size, int)}
    return found


def _sublayers(number: int, block: nn.Module, trace: _Trace, widths: Collection[int]) -> Sublayers:
    """The pair of modules that accounts for the block's change, told apart by when its attention was called."""
    assert trace.before is not None and trace.after is not None  # `_check_stream`
    before, after = trace.before.double(), trace.after.double()
    change, size = after - before, before.norm(dim=2) + after.norm(dim=2)
    factors = {1.0, *(value for value in vars(block).values() if isinstance(value, float) and value)}
    best: _Sum | None = None
    for first, second in combinations(trace.candidates(), 2):
        one, other = first.states.double(), second.states.double()
        for scale in factors:
            terms = size + abs(scale) * (one.norm(dim=2) + other.norm(dim=2))
            error = float(((change - scale * (one + other)).norm(dim=2) / terms).max())
            if best is None or not best.error <= error:
                best = _Sum(first, second, scale, error)
    who = type(block).__name__
    if best is None or not best.error <= _ROUNDINGS * torch.finfo(trace.before.dtype).eps:
        off = f" ({best.first.path} and {best.second.path} come nearest, {best.error:.1%} off)" if best else ""
        return Sublayers({}, f"no two modules of {who} sum to what it adds to the residual stream{off}")
    attention, mlp, scale = None, best.second, best.scale
    if trace.attention is not None:
        ahead = best.first.ended > trace.attention
        attention, mlp = (best.first, best.second) if ahead else (best.second, best.first)
    points: dict[Point, HookPoint] = {"hook_mlp_out": HookPoint(number, "hook_mlp_out", part=mlp.path, scale=scale)}
    if attention is None:
        return Sublayers(points, f"{who} {number} has no attention")
    points["hook_attn_out"] = HookPoint(number, "hook_attn_out", part=attention.path, scale=scale)
    if (projection := trace.projection(attention, widths)) is None:
        return Sublayers(points, f"no module of {who} {number} projects what its heads give")
    assert projection.given is not None
    points[HOOK_Z] = HookPoint(number, HOOK_Z, part=projection.path, width=projection.given.shape[2])
    return Sublayers(points)
