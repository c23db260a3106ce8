"""Causal language models that the caller holds in memory, measured without touching them.

What runs is a twin: modules, configuration, hooks and modes of its own around the caller's tensors. Whatever a run
sets, adds or interrupts, the caller's model computes what it computed before, and its weights are held once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from bluffscope.errors import InputError
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.weights_digest import weights_digest
from bluffscope.model.checkpoint import readable
from bluffscope.model.failures import model_errors
from bluffscope.model.hooks import find_blocks
from bluffscope.model.load import (
    LanguageModel,
    attentions,
    blocks_of,
    check_causal,
    check_vocabulary,
    truncate,
    try_tokenizer,
)
from bluffscope.model.multimodal import taken_out
from bluffscope.model.rotary import forget_lengths
from bluffscope.model.silence import library_silence

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_WRAPPED: Final = ("original_model", "_model", "local_model", "_module", "_orig_mod")
"""Where a TransformerBridge, nnsight's LanguageModel (of three generations) and torch.compile keep what they wrap."""
_INNER: Final = "_original_component"
"""Where a TransformerBridge keeps each module that one of its own stands in place of."""
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks")
_NOT_TAKEN: Final = ("_modules", "forward", "_hf_hook", "_old_forward", "_compiled_call_impl")
"""Attributes of a module that its twin does not take over: children are twins, the rest leads back to the caller's."""
_SMALL_BUFFER: Final = 1 << 20
"""Elements up to which buffers are copied: frequencies may be computed in place. Larger ones are quantised weights."""
_DTYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class GivenModel:
    """A model and tokenizer of the caller's, which nothing here changes."""

    network: Any
    """transformers' `PreTrainedModel`, whole or without its LM head."""
    tokenizer: PreTrainedTokenizerBase
    name: str
    """Hub id or folder that it was loaded from, else the name of its class."""
    wrapped: bool = False
    """Whether another library had wrapped it, and may have replaced its modules' `forward`."""

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> GivenModel:
        """What can be measured of an object.

        Args:
            model: a Hugging Face causal language model, or what TransformerLens, nnsight or torch.compile wrap around
                one.
            tokenizer: its tokenizer; None takes that of the wrapper.

        Raises:
            InputError: no such model, or no tokenizer.
        """
        network, name = _network_of(model)
        tokenizer = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
        if tokenizer is None:
            raise InputError(f"--model {name}: a model in memory comes without its tokenizer; give tokenizer=TOKENIZER")
        if not hasattr(tokenizer, "all_special_ids"):
            what = type(tokenizer).__name__
            raise InputError(f"--model {name}: tokenizer is a {what}; give a tokenizer of transformers")
        if getattr(model, "compatibility_mode", False):
            raise InputError(
                f"--model {name}: its bridge is in compatibility mode, which rewrites weights; boot it again without "
                "enable_compatibility_mode()"
            )
        return cls(network, tokenizer, name, wrapped=network is not model)

    @property
    def device(self) -> torch.device:
        """Where it is.

        Raises:
            InputError: in several places, or nowhere.
        """
        devices = {parameter.device for parameter in self.network.parameters()}
        if len(devices) != 1 or "meta" in {device.type for device in devices}:
            places = ", ".join(sorted(map(str, devices))) or "nowhere"
            raise InputError(
                f"--model {self.name}: its weights are on {places}; move it to one device: model.to(DEVICE)"
            )
        return devices.pop()

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights.

        Raises:
            InputError: one that is not measured in.
        """
        found = self.network.dtype
        if found not in _DTYPES:
            raise InputError(f"--model {self.name}: its weights are {found}; convert it to float32 or bfloat16")
        return found

    @property
    def depth(self) -> int:
        """Its blocks.

        Raises:
            InputError: its configuration names none.
        """
        config = readable(self.network.config.get_text_config(decoder=True))
        check_causal(self.name, config)
        return int(config.num_hidden_layers)

    @own_settings()
    def load(self, blocks: int | None, *, head: bool) -> LanguageModel:
        """The model as `load_model` would give it, around the caller's tensors.

        Args:
            blocks: blocks needed, counted from the first; None for all.
            head: whether the LM head is needed too.

        Raises:
            InputError: it is no causal language model, or its tokenizer is another's.
        """
        name = self.name
        with library_silence():
            with model_errors(name, "model"):
                whole = _twin_of(self.network, self.wrapped, name)
            with model_errors(name, "tokenizer"):
                tokenizer = copy.deepcopy(self.tokenizer)
                try_tokenizer(name, tokenizer)
            network = _as_needed(whole, head, name)
            config: PretrainedConfig = network.config
            full_layers = self.depth
            blocks = blocks_of(name, full_layers, blocks)
            _set_attention(network)
            _cut(network, full_layers, blocks)
            if not taken_out(config):
                truncate(config, blocks)
            network.eval().requires_grad_(False)
            forget_lengths(network)
        config = readable(config)
        check_vocabulary(name, tokenizer, network)
        return LanguageModel(
            name=name,
            network=network,
            blocks=find_blocks(network, blocks),
            config=config,
            tokenizer=tokenizer,
            device=self.device,
            dtype=self.dtype,
            stored_dtype=self.dtype,
            full_layers=full_layers,
            identity=_identity(network, name, full_layers, blocks),
        )


class GivenPlace(GivenModel):
    """The caller's model as it stands, to be hooked and not to be run by us: no twin, and no tokenizer is needed."""

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> GivenPlace:
        """What can be hooked of an object: as `GivenModel.of`, but for the tokenizer."""
        network, name = _network_of(model)
        return cls(network, tokenizer, name)

    def load(self, blocks: int | None, *, head: bool) -> LanguageModel:
        """The model itself, whole, with its identity."""
        del blocks, head
        name, full_layers, config = self.name, self.depth, readable(self.network.config.get_text_config(decoder=True))
        return LanguageModel(
            name=name,
            network=self.network,
            blocks=find_blocks(self.network, full_layers),
            config=config,
            tokenizer=self.tokenizer,
            device=self.device,
            dtype=self.dtype,
            full_layers=full_layers,
            identity=_identity(self.network, name, full_layers, full_layers),
        )


def _network_of(model: Any) -> tuple[Any, str]:
    """The model of transformers in an object, and its name.

    Raises:
        InputError: there is none.
    """
    network = _unwrapped(model)
    if not isinstance(network, nn.Module) or not hasattr(network, "base_model") or not hasattr(network, "config"):
        raise InputError(f"--model: {_not_a_model(model)}")
    return network, str(getattr(network, "name_or_path", "") or type(network).__name__)


def _identity(network: Any, name: str, layers: int, loaded: int) -> dict[str, Any]:
    config = readable(network.config.get_text_config(decoder=True))
    return {
        "name": name,
        "in_memory": True,
        "revision": getattr(config, "_commit_hash", None),
        "architecture": type(network).__name__,
        "layers": layers,
        "layers_loaded": loaded,
        "d_model": int(config.hidden_size),
        "weights": weights_digest(network.state_dict().items()),
        "files": {},
    }


def _unwrapped(model: Any) -> Any:
    """The innermost module that wrappers hold."""
    while True:
        held = (_held(model, name) for name in _WRAPPED)
        inner = next((found for found in held if isinstance(found, nn.Module)), None)
        if inner is None or inner is model:
            return model
        model = inner


def _held(model: Any, name: str) -> Any:
    """What a wrapper itself keeps under a name: wrappers that are modules hand unknown names on to what they wrap."""
    if isinstance(model, nn.Module):
        return vars(model).get(name, vars(model)["_modules"].get(name))
    return getattr(model, name, None)


def _not_a_model(model: Any) -> str:
    """What is wrong with an object that holds no model of transformers, and what to do."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if "HookedTransformer" in kinds:
        return (
            "a HookedTransformer has weights of its own and no Hugging Face module; give the AutoModelForCausalLM that "
            "it was made of, or TransformerBridge.boot_transformers(NAME)"
        )
    return (
        f"expected a model of transformers, got {type(model).__name__}; give a causal language model (a "
        "PreTrainedModel), or its name or folder"
    )


def _twin_of(network: nn.Module, wrapped: bool, name: str) -> Any:
    """The same modules around the same tensors."""
    memo: dict[int, Any] = {}
    for path, module in network.named_modules():
        if "forward" in vars(module) and not (wrapped or hasattr(module, "_hf_hook")):
            raise InputError(
                f"--model {name}: forward of {path or 'the model'} was replaced, which cannot be followed; use "
                "register_forward_hook, or save the model and give its folder"
            )
        # A hook of the caller's stays what it is: it may be a method of anything.
        memo |= {id(hook): hook for kind in _HOOKS for hook in getattr(module, kind).values()}
    memo |= {id(tensor): _alias(tensor) for tensor in network.parameters()}
    memo |= {id(buffer): buffer for buffer in network.buffers() if buffer.numel() > _SMALL_BUFFER}
    return _twin(network, memo)


def _alias(parameter: nn.Parameter) -> nn.Parameter:
    """A parameter with the same memory; those of quantisers are what they are."""
    if type(parameter) is nn.Parameter and type(parameter.data) is torch.Tensor:
        return nn.Parameter(parameter.detach(), requires_grad=False)
    return parameter


def _twin(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A module of the same class and state; `memo` has what is not to be copied, as for `copy.deepcopy`."""
    if id(module) in memo:
        return memo[id(module)]
    inner = vars(module)["_modules"].get(_INNER)
    if inner is not None:
        memo[id(module)] = _twin(inner, memo)
        return memo[id(module)]
    twin = memo[id(module)] = type(module).__new__(type(module))
    children = {name: None if child is None else _twin(child, memo) for name, child in vars(module)["_modules"].items()}
    own = {name: value for name, value in vars(module).items() if name not in _NOT_TAKEN}
    vars(twin).update(copy.deepcopy(own, memo), _modules=children)
    return twin


def _as_needed(whole: Any, head: bool, name: str) -> Any:
    """The causal language model, or its body where the LM head is not needed."""
    body = whole.base_model
    if body is whole and whole.get_output_embeddings() is not None:
        body = getattr(whole, "model", whole)  # Llama 4 calls its body otherwise than its prefix says
    if body.config.get_text_config() is not body.config:
        raise InputError(
            f"--model {name}: a model of several modalities ({body.config.model_type}); give its language model alone: "
            "model.model.language_model"
        )
    if not head:
        return body
    if body is whole or whole.get_output_embeddings() is None:
        raise InputError(
            f"--model {name}: a {type(whole).__name__} has no LM head, which log-probabilities and the strategies "
            "of the reference need; give the model as AutoModelForCausalLM loads it"
        )
    return whole


def _set_attention(network: Any) -> None:
    """Have an implementation that takes float masks, as a model that is loaded by name has; and plain outputs."""
    config = network.config
    for option, value in (("output_hidden_states", False), ("output_attentions", False), ("return_dict", True)):
        setattr(config, option, value)
    if config._attn_implementation in ("sdpa", "eager"):
        return
    for attention in attentions(config):
        try:
            network.set_attn_implementation(attention)
        except ValueError as error:
            if attention == "eager" or "scaled_dot_product_attention" not in str(error):
                raise
        else:
            return


def _cut(network: nn.Module, layers: int, blocks: int) -> None:
    """Leave out the blocks behind those needed."""
    whole = find_blocks(network, layers)
    for parent, name in _places(network, whole):
        setattr(parent, name, nn.ModuleList(list(whole)[:blocks]))


def _places(network: nn.Module, module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Every parent that holds a module, and under which name."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child is module:
                yield parent, name
