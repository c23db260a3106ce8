"""The first blocks of a language model, taken out of a larger architecture: several modalities, or blocks that share.

transformers builds the whole architecture without memory. Where its configuration of the text sits, there is the
language model; everything that is not on the way to its first blocks is taken out before weights are read. Names of
weights, as published or as saved since, are then transformers' own affair, and every weight of the file has a known
place. The configuration stays whole too, so that nothing that a model derives from its depth changes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from bluffscope.errors import InputError
from bluffscope.model.hooks import find_blocks

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FAMILIES: Final = (
    "AutoModelForMultimodalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
)
"""Where transformers lists the architectures that write text from other modalities; the first that knows one counts."""
_INSTEAD: Final = "give a causal language model"


@dataclass(frozen=True)
class Whole:
    """An architecture of several modalities, and where its language model is."""

    architecture: Any
    """Its class."""
    body: str
    """Path of the language model without its LM head."""
    network: str | None
    """Path of the module with body and LM head, "" for the architecture itself; None where there is no LM head."""
    head: str | None
    """Path of the LM head."""
    blocks: str
    """Path of its list of blocks."""
    names: frozenset[str]
    """Of all weights, untruncated."""
    others: tuple[str, ...]
    """Beginnings of the names of what other modalities hold, also buffers that the architecture does not save."""

    @classmethod
    def of(cls, name: str, config: PretrainedConfig) -> Whole:
        """Take the architecture of a configuration apart, without its weights.

        Raises:
            InputError: it holds no causal language model.
        """
        from transformers import PreTrainedModel

        architecture = architecture_of(name, config)
        with torch.device("meta"):
            whole = architecture._from_config(copy.deepcopy(config))
        text = whole.config.get_text_config()
        models = ((path, module) for path, module in whole.named_modules() if isinstance(module, PreTrainedModel))
        outer = next((path for path, module in models if module.config is text), None)
        if outer is None:
            raise InputError(f"--model {name}: {architecture.__name__} has no language model of its own; {_INSTEAD}")
        body = f"{outer}{_body_in(whole.get_submodule(outer))}".removeprefix(".")
        network, head = _head_of(whole, body)
        found = find_blocks(whole.get_submodule(body), int(text.num_hidden_layers))
        blocks = next(path for path, module in whole.named_modules() if module is found)
        others = tuple(f"{path}." for path in _beside(whole, {body, head or body}))
        return cls(architecture, body, network, head, blocks, frozenset(whole.state_dict()), others)

    def loader(self, count: int, *, head: bool) -> Any:
        """A class whose `from_pretrained` loads the language model alone, in the place that it has in the whole.

        Args:
            count: blocks needed, counted from the first.
            head: whether the LM head is loaded too.
        """
        whole = self.architecture
        kept = {self.body, *([self.head] if head and self.head else [])}

        def init(network: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            whole.__init__(network, config, *args, **kwargs)
            _prune(network, kept, self.blocks, count)

        def from_config(kind: Any, config: Any) -> Any:
            return kind._from_config(config)

        return _derived(whole, __init__=init, from_config=classmethod(from_config))

    def language_model(self, name: str, loaded: Any, *, head: bool) -> Any:
        """What was loaded, as a model of text: `base_model` is the language model without its LM head.

        Raises:
            InputError: it has no LM head, and one is needed.
        """
        if not head:
            return loaded.get_submodule(self.body)
        if self.network is None:
            raise InputError(
                f"--model {name}: {self.architecture.__name__} has no LM head, which log-probabilities and the "
                "strategies of the reference need; leave them out"
            )
        network = loaded.get_submodule(self.network)
        inside = self.body[len(self.network) :].removeprefix(".")
        if network.base_model is not network.get_submodule(inside):
            network.__class__ = _derived(type(network), base_model=property(lambda own: own.get_submodule(inside)))
        return network

    def took_out(self, weight: str, count: int) -> bool:
        """Whether a weight that was left over belongs to what was taken out: other modalities, later blocks, the head.

        Args:
            weight: its name, with or without the prefix that tells the architecture from its base model.
            count: blocks that were loaded.
        """
        prefix = f"{self.architecture.base_model_prefix}."
        return any(
            name in self.names or name.startswith(self.others) or self._block(name) >= count
            for name in (weight, prefix + weight, weight.removeprefix(prefix))
        )

    def _block(self, weight: str) -> int:
        """Number of the block that a weight belongs to; -1 where it belongs to none.

        Renaming what has its name already can leave something between the body's name and that of the list.
        """
        blocks = self.blocks[len(self.body) :].removeprefix(".")
        inside = re.match(rf"{re.escape(self.body)}\.(?:.+\.)?{re.escape(blocks)}\.(\d+)\.", weight)
        return int(inside[1]) if inside else -1


def taken_out(config: PretrainedConfig) -> bool:
    """Whether a model's first blocks are loaded by taking them out, and not by a shorter configuration.

    So of several modalities, and where a shorter configuration describes another model: blocks at the end that use keys
    and values of earlier ones, one table of embeddings for all blocks, blocks that differ one by one.
    """
    shared = any(getattr(config, name, None) for name in ("num_kv_shared_layers", "hidden_size_per_layer_input"))
    return config.get_text_config() is not config or shared or getattr(config, "is_heterogeneous", False)


def architecture_of(name: str, config: PretrainedConfig) -> Any:
    """The class of a whole model that writes text.

    Raises:
        InputError: there is none.
    """
    import transformers

    alone = config.get_text_config() is config
    for family in ("AutoModelForCausalLM",) if alone else _FAMILIES:
        known = getattr(transformers, family)._model_mapping
        if type(config) in known:
            return known[type(config)]
    raise InputError(
        f"--model {name}: a model of several modalities ({config.model_type}) without a causal language model that "
        f"could be loaded alone; {_INSTEAD}"
    )


def _body_in(module: Any) -> str:
    """Path from a language model to its part without the LM head: itself, unless it has one."""
    if module.get_output_embeddings() is None:
        return ""
    # Llama 4 calls its body otherwise than its prefix says
    return next(
        f".{name}" for name in (module.base_model_prefix, "model") if isinstance(getattr(module, name, None), nn.Module)
    )


def _head_of(whole: Any, body: str) -> tuple[str | None, str | None]:
    """Paths of the innermost module around the body that has an LM head, and of that head."""
    for path in reversed(list(_above(body))):
        module = whole.get_submodule(path)
        head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
        if isinstance(head, nn.Linear):
            return path, next(name for name, found in whole.named_modules() if found is head)
    return None, None


def _above(path: str) -> Iterator[str]:
    """Paths of all modules that a module is in, the outermost first."""
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(len(parts)))


def _beside(network: Any, kept: set[str]) -> Iterator[str]:
    """Paths of the outermost modules that neither are kept, nor in what is kept, nor around it."""
    around = {path for keep in kept for path in _above(keep)}
    for path in sorted(around):
        for name, _ in network.get_submodule(path).named_children():
            inside = f"{path}.{name}".removeprefix(".")
            if inside not in kept | around:
                yield inside


class _TakenOut(nn.Module):
    """Stands where a part of the architecture was; some ask it where it is before they see that they do not need it."""

    device = torch.device("cpu")
    dtype = torch.float32


def _prune(network: Any, kept: set[str], blocks: str, count: int) -> None:
    """Take out all modules and weights that neither are kept, nor in what is kept, and the blocks that are too many."""
    del network.get_submodule(blocks)[count:]
    for path in list(_beside(network, kept)):
        network.set_submodule(path, _TakenOut())
    for path in {path for keep in kept for path in _above(keep)}:
        module = network.get_submodule(path)
        module._parameters.update(dict.fromkeys(module._parameters))
        module._is_hf_initialized = True  # or transformers would fill what is not there
    there = set(network.state_dict())
    tied = network.all_tied_weights_keys
    network.all_tied_weights_keys = {name: of for name, of in tied.items() if name in there and of in there}


def _derived(kind: Any, **attributes: Any) -> Any:
    """A class that transformers takes for the one that it is derived from."""
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **attributes})
