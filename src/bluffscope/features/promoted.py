"""The tokens that features promote, read from the files of SAEs and model: nothing is loaded, and torch is not needed.

`bluffscope.features.logit_lens` asks the loaded model and takes any family; this takes those whose final norm is known
by the family's name, so that a report can show the tokens at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bluffscope.config.demo import model_place
from bluffscope.features.tensor_files import StoredTensor, stored_tensors
from bluffscope.host.hub import cached_snapshot
from bluffscope.table.reader import Run

TOKENS: Final = 5
MOST_HEAD_BYTES: Final = 3 << 30
"""Of the LM head: a larger one takes more seconds than a page may."""

_NORMS: Final = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "weight + 1"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "smollm3"), "weight"),
    **dict.fromkeys(("gpt2", "gpt_neox"), "centred"),
}
"""How the final norm of a family stores its gain; "centred" is a LayerNorm, which takes the mean off first."""
_FINAL: Final = ("norm.weight", "ln_f.weight", "final_layer_norm.weight")
_HEADS: Final = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_BLOCK: Final = 16_384
"""Tokens whose logits are computed at a time."""

_log = logging.getLogger(__name__)


def promoted_in_files(
    run: Run, features: Mapping[int, Sequence[int]], count: int = TOKENS
) -> dict[tuple[int, int], list[str]]:
    """The tokens whose logits each feature raises most, the most raised first.

    Args:
        run: a finished run.
        features: indices by layer.
        count: tokens of each feature.

    Returns:
        Tokens as text by layer and feature; none of a layer whose SAE lies elsewhere, reads no residual stream or has
        another layout than SAELens's, and none at all where the model's files have gone or changed, are too large, or
        are of a family whose final norm is not known here.
    """
    found: dict[tuple[int, int], list[str]] = {}
    try:
        folder = _model_folder(run)
        if folder is None:
            return found
        gain, head, centred = _behind_the_last_block(run, folder)
        decoders = {layer: _decoder(run, layer) for layer in features}
        wanted = [(layer, feature) for layer, chosen in features.items() if decoders[layer] for feature in chosen]
        if not wanted:
            return found
        rows = [decoder.rows(list(features[layer])) for layer, decoder in decoders.items() if decoder]
        directions = np.concatenate(rows)
        if directions.shape[1] != len(gain):
            return found
        directions = directions - directions.mean(axis=1, keepdims=True) if centred else directions
        best = _best(directions * gain, head, count)
        names = _tokens(folder, sorted(set(best.ravel().tolist())))
        return {place: [names[token] for token in tokens] for place, tokens in zip(wanted, best.tolist(), strict=True)}
    # Whatever a foreign file holds: a page without tokens is still a page.
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _log.debug("no promoted tokens: %s", error)
        return found


def _model_folder(run: Run) -> Path | None:
    """Where the run's model lies, if its files are still of the size that they had."""
    identity: dict[str, Any] = run.manifest.get("model") or {}
    name = str(run.config["model"]["model"])
    place = Path(model_place(name)).expanduser()
    folder = place if place.is_dir() else cached_snapshot(name, identity.get("revision"))
    files: dict[str, Any] = identity.get("files") or {}
    if folder is None or not files or identity.get("in_memory"):
        return None
    same = all(Path(file).name == file and (folder / file).stat().st_size == files[file]["bytes"] for file in files)
    return folder if same else None


def _behind_the_last_block(run: Run, folder: Path) -> tuple[np.ndarray, StoredTensor, bool]:
    """(d_model,) the final norm's gain, the (vocabulary, d_model) LM head, and whether the norm takes the mean off.

    Raises:
        ValueError: they are not known of this family, or not found in the files.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    how = _NORMS.get(config.get("model_type"))
    tensors = stored_tensors(folder / file for file in run.manifest["model"]["files"])
    likely = (_EMBEDDINGS, _HEADS) if config.get("tie_word_embeddings") else (_HEADS, _EMBEDDINGS)
    norm, head = _one(tensors, _FINAL), _one(tensors, likely[0]) or _one(tensors, likely[1])
    if how is None or norm is None or head is None or head.bytes > MOST_HEAD_BYTES:
        raise ValueError(f"the way from residuals to logits is not known of {config.get('model_type')}")
    return norm.rows() + (how == "weight + 1"), head, how == "centred"


def _one(tensors: Mapping[str, StoredTensor], names: Sequence[str]) -> StoredTensor | None:
    """The tensor of one of these names outside the blocks, whatever stands before it."""
    fitting = [name for name in tensors if name.split(".", 1)[-1] in names or name in names]
    return tensors[fitting[0]] if len(fitting) == 1 else None


def _decoder(run: Run, layer: int) -> StoredTensor | None:
    """(d_sae, d_model) the decoder of an SAE of the residual stream, where it lies in a folder of SAELens's layout."""
    identity: dict[str, Any] = (run.manifest.get("saes") or {}).get(str(layer)) or {}
    path = Path(str(identity.get("folder"))) / "sae_weights.safetensors"
    known = (identity.get("files") or {}).get(path.name) or {}
    if "hook_resid" not in str(identity.get("hook_name")) or not path.is_file():
        return None
    if path.stat().st_size != known.get("bytes"):
        return None
    decoder = stored_tensors([path]).get("W_dec")
    return decoder if decoder and decoder.shape == (identity["d_sae"], identity["d_in"]) else None


def _best(directions: np.ndarray, head: StoredTensor, count: int) -> np.ndarray:
    """(feature, count) the tokens with the largest logits, the largest first."""
    tokens = np.empty((len(directions), 0), dtype=np.int64)
    logits = np.empty((len(directions), 0), dtype=np.float32)
    for first, weights in head.blocks(_BLOCK):
        logits = np.concatenate([logits, directions @ weights.T], axis=1)
        tokens = np.concatenate([tokens, np.tile(np.arange(first, first + len(weights)), (len(directions), 1))], axis=1)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
        logits, tokens = np.take_along_axis(logits, order, 1), np.take_along_axis(tokens, order, 1)
    return tokens


def _tokens(folder: Path, ids: Sequence[int]) -> dict[int, str]:
    """Tokens as text; a vocabulary piece where it is only a part of a character."""
    from tokenizers import Tokenizer  # only where there is a model's folder: reports do without one

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names: dict[int, str] = {}
    for token in ids:
        text = tokenizer.decode([token], skip_special_tokens=False)
        part = not text or "\N{REPLACEMENT CHARACTER}" in text
        names[token] = (tokenizer.id_to_token(token) or str(token)) if part else text
    return names
