"""Loading a causal language model: truncated after the last layer needed, without its LM head."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from bluffscope.config.demo import model_place
from bluffscope.errors import InputError
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.hub import cached_commit, cached_snapshot, hub_or_cache
from bluffscope.host.weights_digest import file_hashes, weights_digest
from bluffscope.model.checkpoint import check_keys, kept_as_head, language_config, weight_files
from bluffscope.model.failures import model_errors
from bluffscope.model.folder import check_folder, check_links
from bluffscope.model.gguf import gguf_files, is_gguf
from bluffscope.model.hooks import find_blocks
from bluffscope.model.multimodal import Whole, taken_out
from bluffscope.model.names import check_weight_names
from bluffscope.model.quantize import Quantize, loading_options, quantize_to_int8
from bluffscope.model.rotary import forget_lengths
from bluffscope.model.silence import library_silence
from bluffscope.model.tokenizer_limits import check_converted, check_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_PARAMETERS_A_BYTE = 2
"""At most, of weights as they are published: 4 bits each."""
_FEW = 10_000_000
"""Parameters that take no memory worth mentioning: transformers says itself what is wrong with their weights."""


@dataclass(frozen=True)
class LanguageModel:
    """A truncated model with its tokenizer."""

    name: str
    network: nn.Module
    blocks: nn.ModuleList
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    full_layers: int
    """Blocks of the whole model; `len(blocks)` of them are loaded."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Name, revision, architecture, digest of the weights: for the manifest."""
    stored_dtype: torch.dtype | None = None
    """Of the weights in the file, as config.json says; they are converted on loading where it is another."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def context(self) -> int | None:
        """Most tokens of one text, or None where the model sets no limit."""
        return _context(self.config)


def _context(config: PretrainedConfig) -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None


def choose_device(asked: str) -> torch.device:
    """The device to run on; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        InputError: the device is not available.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        asked = next(name for name, is_there in there.items() if is_there)
    if not there[asked]:
        raise InputError(f"--device {asked}: not available here; use --device cpu or auto")
    if asked == "mps":
        logger.warning("MPS has known numerical faults in some torch versions: compare a few pairs with --device cpu")
    return torch.device(asked)


@own_settings()
def load_model(
    name: str,
    *,
    revision: str | None,
    blocks: int | None,
    device: torch.device,
    dtype: torch.dtype,
    head: bool = False,
    quantize: Quantize = "none",
) -> LanguageModel:
    """Load the first `blocks` blocks of a causal language model and its tokenizer.

    Args:
        name: hub id, a folder in Hugging Face layout, or a GGUF file.
        revision: branch, tag or commit on the hub.
        blocks: blocks needed, counted from the first; None for all.
        device: where to put it.
        dtype: of weights and activations.
        head: whether the LM head is loaded too; `network` is then the whole causal language model.
        quantize: how the weights of the linear layers are kept; `check_quantize` says what is possible.

    Raises:
        InputError: one line that says what is missing and what to do.
    """
    location = check_folder(name)
    with library_silence():
        given, config = _load_configs(name, location, revision)
        full_layers, stored = int(config.num_hidden_layers), config.dtype
        blocks = blocks_of(name, full_layers, blocks)
        if quantize != "none" and getattr(given, "quantization_config", None):
            raise InputError(f"--quantize {quantize}: {name} is quantised already; leave it out")
        with model_errors(name, "model"):
            whole = Whole.of(name, given) if taken_out(given) else None
        if whole is None:
            truncate(given, blocks)
        more = loading_options(quantize, device, dtype, head=head)
        tokenizer = _load_tokenizer(name, location, revision)
        with model_errors(name, "model", revision):
            check_weight_names(name, location, revision, given)
            auto = _loader(head) if whole is None else whole.loader(blocks, head=head)
            _refuse_larger_than_files(name, auto, location, given)
            loaded, info = _load_network(auto, location, revision, given, dtype, **more)
            if embedding := kept_as_head(given, info):
                more["key_mapping"] = {r"^(.*\.)?lm_head\.weight$": embedding}
                loaded, info = _load_network(auto, location, revision, given, dtype, **more)
            network = loaded if whole is None else whole.language_model(name, loaded, head=head)
            network.eval().requires_grad_(False)
            if quantize == "int8":
                quantize_to_int8(network.base_model, device)  # the LM head, if any, keeps its dtype
            network.to(device)
            forget_lengths(network)
    check_keys(name, info, blocks, whole)
    check_vocabulary(name, tokenizer, network)
    return LanguageModel(
        name=name,
        network=network,
        blocks=find_blocks(network, blocks),
        config=config,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        stored_dtype=stored if isinstance(stored, torch.dtype) else None,
        full_layers=full_layers,
        identity={
            "name": name,
            "revision": cached_commit(name, revision) or revision,
            "architecture": type(network).__name__,
            "layers": full_layers,
            "layers_loaded": blocks,
            "d_model": int(config.hidden_size),
            "weights": weights_digest(network.state_dict().items()),
            "files": gguf_files(name)
            if is_gguf(name)
            else file_hashes(weight_files(cached_snapshot(name, revision) or Path(location))),
        },
    )


class ModelTokenizer(NamedTuple):
    """A model's tokenizer, without the model."""

    tokenizer: PreTrainedTokenizerBase
    context: int | None
    """Most tokens of one text, or None where the model sets no limit."""


def load_tokenizer(name: str, revision: str | None, *, weights: bool = True) -> ModelTokenizer:
    """Load a causal language model's tokenizer and no weights.

    Args:
        name: hub id, a folder in Hugging Face layout, a GGUF file, or the embedded model's name.
        revision: branch, tag or commit on the hub.
        weights: whether a folder must have them too.

    Raises:
        InputError: one line that says what is missing and what to do.
    """
    name = model_place(name)
    location = check_folder(name, weights=weights)
    with hub_or_cache([name]), library_silence():
        _, config = _load_configs(name, location, revision)
        return ModelTokenizer(_load_tokenizer(name, location, revision), _context(config))


def check_model(name: str, revision: str | None, *, weights: bool = True) -> PretrainedConfig:
    """Refuse what is plainly no causal language model, or may not be downloaded, before gigabytes are loaded.

    Args:
        name: hub id, a folder in Hugging Face layout, or a GGUF file.
        revision: branch, tag or commit on the hub.
        weights: whether a folder must have them too.

    Returns:
        Its configuration.

    Raises:
        InputError: as `load_model`, as far as folder and config.json can tell.
    """
    location = check_folder(name, weights=weights)
    with library_silence():
        return _load_configs(name, location, revision)[1]


def _load_configs(name: str, location: str, revision: str | None) -> tuple[PretrainedConfig, PretrainedConfig]:
    """The configuration for transformers, and that of the language model for us."""
    from transformers import AutoConfig

    with model_errors(name, "config.json"):
        check_links(name, revision)
        given = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
        config = language_config(name, given)
    check_causal(name, config)
    return given, config


def _loader(head: bool) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM  # seconds-slow

    return AutoModelForCausalLM if head else AutoModel


def blocks_of(name: str, depth: int, asked: int | None) -> int:
    """How many blocks of a model are loaded: as many as are asked for, or all of them.

    Raises:
        InputError: it has fewer.
    """
    if asked is not None and asked > depth:
        raise InputError(
            f"layer {asked - 1}: {name} has {depth} layers, 0 to {depth - 1}; choose among them with --layers, or give "
            "SAEs that were trained on this model"
        )
    return depth if asked is None else asked


def check_causal(name: str, config: PretrainedConfig) -> None:
    """Refuse the configuration of what is no decoder-only transformer.

    Raises:
        InputError: it is none, or lacks what every transformer has.
    """
    if getattr(config, "is_encoder_decoder", False) or not getattr(config, "num_hidden_layers", None):
        raise InputError(
            f"--model {name}: {config.model_type} is not a causal language model; give a decoder-only model"
        )
    for key in ("hidden_size", "num_attention_heads", "num_hidden_layers"):
        value = getattr(config, key, None)
        if value is None:
            raise InputError(f"--model {name}: {config.model_type} has no {key}; give a transformer with attention")
        if not isinstance(value, int) or value < 1:
            raise InputError(f"--model {name}: config.json says {key} is {str(value)[:40]}; copy it again")


def _load_tokenizer(name: str, location: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer, tried on a text: some fail only then."""
    from transformers import AutoTokenizer  # seconds-slow: only when a model is named

    with model_errors(name, "tokenizer", revision):
        check_tokenizer(name, location, revision)
        tokenizer = AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=False)
        try_tokenizer(name, tokenizer)
    return tokenizer


def try_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Use a tokenizer as a run does; whatever it raises is its own."""
    check_converted(name, tokenizer)
    ids: Any = tokenizer("A text.", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    tokenizer.decode(ids)
    _ = tokenizer.all_special_ids, tokenizer.get_vocab()


def truncate(config: PretrainedConfig, blocks: int) -> None:
    """Have the configuration describe the first blocks only."""
    for name in ("layer_types", "mlp_layer_types"):
        field = type(config).attribute_map.get(name, name)
        derived = isinstance(getattr(type(config), field, None), property)  # from the number of blocks (Jamba)
        if (kinds := getattr(config, name, None)) and not derived:
            setattr(config, name, list(kinds)[:blocks])
    if (scale := getattr(config, "scale_depth", None)) is not None:  # MiniCPM3 divides it by the root of the depth
        config.scale_depth = scale * math.sqrt(blocks / config.num_hidden_layers)
    config.num_hidden_layers = blocks


def _refuse_larger_than_files(name: str, auto: Any, location: str, config: PretrainedConfig) -> None:
    """Refuse a config.json that claims far more than its weights hold: the rest would be made up in memory."""
    if not Path(location).is_dir():
        return
    with torch.device("meta"):  # shapes without memory
        claimed = auto.from_config(copy.deepcopy(config)).num_parameters()
    held = sum(file.stat().st_size for file in Path(location).glob("*.safetensors"))
    if claimed > held * _PARAMETERS_A_BYTE + _FEW:
        raise InputError(
            f"--model {name}: the weights have other shapes than config.json says: it claims {claimed:,} parameters, "
            f"their files have {held:,} bytes; copy both from one place"
        )


def _load_network(
    auto: Any, location: str, revision: str | None, config: PretrainedConfig, dtype: torch.dtype, **more: Any
) -> Any:
    """Load with SDPA attention where the model has it (Gemma 2 caps its scores and has eager only)."""
    options = {
        "revision": revision,
        "config": config,
        "dtype": dtype,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
        **more,
    }
    for attention in attentions(config.get_text_config()):
        try:
            return auto.from_pretrained(location, attn_implementation=attention, **options)
        except ValueError as error:
            if attention == "eager" or "scaled_dot_product_attention" not in str(error):
                raise
    raise AssertionError("unreachable")


def attentions(config: PretrainedConfig) -> tuple[str, ...]:
    """The implementations that take our masks, in the order in which they are tried."""
    return ("eager",) if getattr(config, "attn_logit_softcapping", None) is not None else ("sdpa", "eager")


def check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, network: nn.Module) -> None:
    """Refuse a tokenizer whose ids the model does not embed; special tokens but BOS are never fed."""
    rows = network.get_input_embeddings().weight.shape[0]  # pyright: ignore
    added = {token for token, what in tokenizer.added_tokens_decoder.items() if what.special}
    special = {*tokenizer.all_special_ids, *added} - {tokenizer.bos_token_id}  # pyright: ignore
    ids = [token for token in tokenizer.get_vocab().values() if token not in special]
    if not ids:
        raise InputError(f"--model {name}: its tokenizer has no vocabulary; copy the model's tokenizer.json there")
    if max(ids) >= rows:
        raise InputError(
            f"--model {name}: its tokenizer has ids up to {max(ids)} but the model embeds {rows}; "
            "the tokenizer belongs to another model"
        )
