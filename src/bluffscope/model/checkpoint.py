"""What else a checkpoint holds than the model that is loaded, and under which names."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluffscope.errors import InputError
from bluffscope.model.multimodal import Whole, architecture_of
from bluffscope.model.names import INDEX

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|score|cls)\.")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
# Masks and frequencies that old checkpoints carry along; the model computes them.
_BUFFER = re.compile(r"\.(attn|attention)\.(bias|masked_bias)$|rotary_emb\.inv_freq$")


def language_config(name: str, config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of a checkpoint's language model, to be read: of several modalities, that of the text.

    Raises:
        InputError: of several modalities, and without a language model that could be loaded alone.
    """
    if getattr(config, "is_encoder_decoder", False):
        return config
    if config.get_text_config() is not config:
        architecture_of(name, config)
    text = readable(config.get_text_config())
    if text.dtype is None:
        text.dtype = config.dtype  # published files say it once, for all parts
    return text


def readable(config: PretrainedConfig) -> PretrainedConfig:
    """A copy that can be asked for what differs between blocks, too: it has what holds where nothing else is said."""
    found = copy.deepcopy(config)
    if getattr(found, "is_heterogeneous", False):
        found.per_layer_config = None
    return found


def kept_as_head(config: PretrainedConfig, info: dict[str, Any]) -> str | None:
    """The embedding that the checkpoint keeps only under the name of the LM head it is tied to; else None."""
    missing = set(info["missing_keys"])
    if not getattr(config, "tie_word_embeddings", False) or "lm_head.weight" not in info["unexpected_keys"]:
        return None
    return next((key for key in missing if re.search(r"(^|\.)(embed_tokens|embed_in|wte)\.weight$", key)), None)


def check_keys(name: str, info: dict[str, Any], blocks: int, whole: Whole | None = None) -> None:
    """Insist that every weight came from the file, and that only later layers, head and other modalities were left out.

    Args:
        name: of the model, for messages.
        info: transformers' report of the loading.
        blocks: blocks that were loaded.
        whole: the architecture that the model was taken out of; None where it is all there is.

    Raises:
        InputError: a weight that is missing, or one without a place.
    """
    unfit = "config.json and the weights do not belong together; copy both from one place"
    if keys := sorted(map(str, info.get("missing_keys") or ())):
        raise InputError(f"--model {name}: {len(keys)} weights are missing, first {keys[0]}: {unfit}")
    for key in sorted(info.get("unexpected_keys") or ()):
        match = _LAYER.search(key)
        later = match is not None and int(match[1]) >= blocks
        known = later or bool(_HEAD.search(key)) if whole is None else whole.took_out(key, blocks)
        if not known and not _BUFFER.search(key):
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
