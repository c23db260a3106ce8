"""What else a checkpoint holds than the model that is loaded, and under which names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bluffscope.errors import InputError
from bluffscope.model.names import INDEX

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|score|cls)\.")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
# Masks and frequencies that old checkpoints carry along; the model computes them.
_BUFFER = re.compile(r"\.(attn|attention)\.(bias|masked_bias)$|rotary_emb\.inv_freq$")

_INSIDE: Final = {"gemma3": "gemma3_text"}
"""Families of several modalities whose language model is loaded alone, and what that is called."""
_OTHER_MODALITIES = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\.")


def language_config(name: str, config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of a checkpoint's language model: itself, or a part of it where there are several modalities.

    Raises:
        InputError: of several modalities, and none that is known to hold a language model that can be loaded alone.
    """
    text = config.get_text_config()
    if text is config:
        return config
    if _INSIDE.get(config.model_type) != text.model_type:
        raise InputError(f"--model {name}: a model of several modalities ({config.model_type}); give its text model")
    if text.dtype is None:
        text.dtype = config.dtype  # published files say it once, for all parts
    if quantised := getattr(config, "quantization_config", None):
        text.quantization_config = quantised
    return text


def renamed_weights(config: PretrainedConfig, *, head: bool) -> dict[str, str]:
    """The `key_mapping` of transformers, from names in the file to the language model's; empty where they are the same.

    Args:
        config: of the language model.
        head: whether it is loaded as a causal language model, whose names have one part more.
    """
    if config.model_type not in _INSIDE.values():
        return {}
    body = "model." if head else ""
    return {
        r"^language_model\.lm_head\.": "lm_head.",
        # as published, `language_model.model.`; as transformers 5 saves it, `model.language_model.`
        r"^(language_model\.model|model\.language_model)\.": body,
    }


def kept_as_head(config: PretrainedConfig, info: dict[str, Any]) -> str | None:
    """The embedding that the checkpoint keeps only under the name of the LM head it is tied to; else None."""
    missing = set(info["missing_keys"])
    if not getattr(config, "tie_word_embeddings", False) or "lm_head.weight" not in info["unexpected_keys"]:
        return None
    return next((key for key in missing if re.search(r"(^|\.)(embed_tokens|embed_in|wte)\.weight$", key)), None)


def check_keys(name: str, config: PretrainedConfig, info: dict[str, Any], blocks: int) -> None:
    """Insist that every weight came from the file, and that only later layers, head and other modalities were left out.

    Args:
        name: of the model, for messages.
        config: of the language model.
        info: transformers' report of the loading.
        blocks: blocks that were loaded.

    Raises:
        InputError: a weight that is missing, or one without a place.
    """
    unfit = "config.json and the weights do not belong together; copy both from one place"
    if keys := sorted(map(str, info.get("missing_keys") or ())):
        raise InputError(f"--model {name}: {len(keys)} weights are missing, first {keys[0]}: {unfit}")
    modalities = config.model_type in _INSIDE.values()
    for key in sorted(info.get("unexpected_keys") or ()):
        match = _LAYER.search(key)
        later = match is not None and int(match[1]) >= blocks
        other = modalities and _OTHER_MODALITIES.search(key)
        if not (later or other or _HEAD.search(key) or _BUFFER.search(key)):
            raise InputError(f"--model {name}: weight {key} has no place in the model: {unfit}")


def weight_files(folder: Path) -> dict[str, Path]:
    """The files that a model's weights are read from, by name: those of the index, or the single one."""
    index, single = folder / INDEX, folder / "model.safetensors"
    if index.is_file() and not single.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
        return {str(file): folder / file for file in sorted(set(weight_map.values()))}
    if single.is_file():
        return {single.name: single}
    return {path.name: path for path in sorted(folder.glob("*.safetensors"))}
