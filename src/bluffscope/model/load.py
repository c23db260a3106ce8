"""Loading a causal language model: truncated after the last layer needed, without its LM head."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bluffscope.errors import InputError
from bluffscope.identity import weights_digest
from bluffscope.model.hooks import find_blocks

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|score|cls)\.")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


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

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def context(self) -> int | None:
        """Most tokens of one text, or None where the model sets no limit."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return int(limit) if limit else None


def choose_device(asked: str) -> torch.device:
    """The device to run on; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        InputError: the device asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        asked = next(name for name, is_there in there.items() if is_there)
    if not there[asked]:
        raise InputError(f"--device {asked}: not available here; use --device cpu or auto")
    if asked == "mps":
        logger.warning("MPS has known numerical faults in some torch versions: compare a few pairs with --device cpu")
    return torch.device(asked)


def load_model(
    name: str, *, revision: str | None, blocks: int, device: torch.device, dtype: torch.dtype
) -> LanguageModel:
    """Load the first `blocks` blocks of a causal language model and its tokenizer.

    Args:
        name: hub id, or a folder in Hugging Face layout.
        revision: branch, tag or commit on the hub.
        blocks: blocks needed, counted from the first.
        device: where to put it.
        dtype: of weights and activations.

    Raises:
        InputError: one line that says what is missing and what to do.
    """
    _check_folder(name)
    from transformers import AutoModel, AutoTokenizer  # seconds-slow: only when a model is loaded

    with _library_silence():
        config = _load_config(name, revision)
        full_layers = int(config.num_hidden_layers)
        if blocks > full_layers:
            raise InputError(
                f"--layers {blocks - 1}: {name} has {full_layers} layers; give layers from 0 to {full_layers - 1}"
            )
        _truncate(config, blocks)
        with _as_input_error(name, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        with _as_input_error(name, "model"):
            network, info = _load_network(AutoModel, name, revision, config, dtype)
    _check_keys(name, info, blocks)
    network.eval().requires_grad_(False)
    network.to(device)
    _check_vocabulary(name, tokenizer, network)
    return LanguageModel(
        name=name,
        network=network,
        blocks=find_blocks(network, blocks),
        config=config,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        full_layers=full_layers,
        identity={
            "name": name,
            "revision": getattr(config, "_commit_hash", None) or revision,
            "architecture": type(network).__name__,
            "layers": full_layers,
            "layers_loaded": blocks,
            "d_model": int(config.hidden_size),
            "weights": weights_digest(network.state_dict().items()),
        },
    )


def _load_config(name: str, revision: str | None) -> PretrainedConfig:
    from transformers import AutoConfig

    with _as_input_error(name, "config.json"):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    text = config.get_text_config()
    if text is not config:
        raise InputError(f"{name}: a model of several modalities ({config.model_type}); give its text model")
    if getattr(config, "is_encoder_decoder", False) or not getattr(config, "num_hidden_layers", None):
        raise InputError(f"{name}: {config.model_type} is not a causal language model; give a decoder-only model")
    return config


def _truncate(config: PretrainedConfig, blocks: int) -> None:
    """Have the configuration describe the first blocks only."""
    for name in ("layer_types", "mlp_layer_types"):
        if kinds := getattr(config, name, None):
            setattr(config, name, list(kinds)[:blocks])
    config.num_hidden_layers = blocks


def _load_network(auto: Any, name: str, revision: str | None, config: PretrainedConfig, dtype: torch.dtype) -> Any:
    """Load with SDPA attention where the model has it: Gemma 2 caps its scores and has eager only."""
    options = {
        "revision": revision,
        "config": config,
        "dtype": dtype,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    for attention in ("eager",) if capped else ("sdpa", "eager"):
        try:
            return auto.from_pretrained(name, attn_implementation=attention, **options)
        except ValueError as error:
            if attention == "eager" or "scaled_dot_product_attention" not in str(error):
                raise
    raise AssertionError("unreachable")


def _check_folder(name: str) -> None:
    """Refuse folders without the files needed before any seconds-slow import."""
    path = Path(name).expanduser()
    if not path.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise InputError(f"--model {name}: no such folder; give a folder in Hugging Face layout or a hub id")
        return
    if not path.is_dir():
        raise InputError(f"--model {name}: a file; give the folder that holds config.json")
    if not (path / "config.json").is_file():
        raise InputError(f"--model {name}: no config.json in this folder; give a folder in Hugging Face layout")
    if not any(path.glob("*.safetensors")):
        pickles = [file for file in sorted(path.iterdir()) if file.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        if pickles:
            raise InputError(
                f"--model {name}: {pickles[0].name} is a pickle, which can run code when opened and is refused; "
                "load it where you trust it and call model.save_pretrained(DIR), which writes safetensors"
            )
        raise InputError(f"--model {name}: no *.safetensors in this folder; copy the weights there")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise InputError(f"--model {name}: no tokenizer in this folder; copy the model's tokenizer.json there")


def _check_keys(name: str, info: dict[str, Any], blocks: int) -> None:
    """Insist that every weight came from the file, and that only later layers and the head were left out."""
    for what in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, info.get(what) or ())):
            raise InputError(
                f"{name}: {len(keys)} weights {what.split('_')[0]}, first {keys[0]}; the folder's config.json and "
                "weights do not belong together"
            )
    for key in sorted(info.get("unexpected_keys") or ()):
        match = _LAYER.search(key)
        if not (_HEAD.search(key) or (match and int(match[1]) >= blocks)):
            raise InputError(f"{name}: weight {key} has no place in the model; config.json and weights do not match")


def _check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, network: nn.Module) -> None:
    rows = network.get_input_embeddings().weight.shape[0]  # pyright: ignore
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise InputError(
            f"{name}: its tokenizer has ids up to {highest} but the model embeds {rows}; "
            "the tokenizer belongs to another model"
        )


@contextlib.contextmanager
def _as_input_error(name: str, what: str) -> Generator[None, None, None]:
    """Turn the libraries' many ways of failing into one line that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(f"--model {name}: the weights are damaged ({_line(error)}); copy them again") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        text = str(error).lower()
        if "gated" in text or "401" in text or "403" in text or "authentication" in text:
            hint = "accept the licence on the model's page, then set HF_TOKEN (or run `hf auth login`)"
        elif Path(name).expanduser().exists():
            hint = "check the files in the folder"
        else:
            hint = "check the name and the network, or give a folder (HF_TOKEN for gated models)"
        raise InputError(f"--model {name}: cannot load the {what} ({_line(error)}); {hint}") from error


def _line(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def _library_silence() -> Generator[None, None, None]:
    """Mute transformers' load report and bars; what matters in them is checked by `_check_keys`."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
