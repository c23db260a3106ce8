"""Residuals by TransformerLens, in a process of its own: its bridges patch transformers for the whole process.

Run as `python lens_oracle.py JOBS.json OUT.npz`. A job is a model's folder and token ids; two readings are made of
`blocks.k.hook_resid_post` at every position: by `TransformerBridge`, which hooks the Hugging Face modules, and where
TransformerLens has its own implementation of the architecture, by `HookedTransformer`, with raw weights (nothing
centred, nothing folded).
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.pretrained.weight_conversions import (
    convert_gemma_weights,
    convert_gpt2_weights,
    convert_llama_weights,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig


def bridged(folder: str, ids: list[int]) -> list[np.ndarray]:
    """(token, d_model) by layer, through the hooks of a bridge."""
    bridge = TransformerBridge.boot_transformers(
        folder, device="cpu", dtype=torch.float32, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    return _cached(bridge, ids)


def hooked(folder: str, ids: list[int]) -> list[np.ndarray] | None:
    """(token, d_model) by layer, by TransformerLens's own attention and MLP; None for an architecture it lacks."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    settings = {"llama": _llama, "gemma2": _gemma2, "gpt2": _gpt2}.get(model.config.model_type)
    if settings is None:
        return None
    convert = {"llama": convert_llama_weights, "gemma2": convert_gemma_weights, "gpt2": convert_gpt2_weights}
    config = HookedTransformerConfig(**_shape(model.config), **settings(model.config))
    network = HookedTransformer(config, move_to_device=False)
    weights = convert[model.config.model_type](model, config)
    missing, unexpected = network.load_state_dict(weights, strict=False)
    computed = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "b_U")  # buffers, and a bias of the unused head
    assert not unexpected, unexpected
    assert all(name.endswith(computed) for name in missing), missing
    return _cached(network.eval(), ids)


def _cached(network: torch.nn.Module, ids: list[int]) -> list[np.ndarray]:
    with torch.no_grad():
        _, cache = network.run_with_cache(torch.tensor([ids]), return_type=None)  # pyright: ignore
    layers = network.cfg.n_layers  # pyright: ignore
    return [cache[f"blocks.{layer}.hook_resid_post"][0].float().numpy() for layer in range(layers)]


def _shape(config: PretrainedConfig) -> dict[str, object]:
    return {
        "d_model": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "device": "cpu",
        "dtype": torch.float32,
        "default_prepend_bos": False,
    }


def _rotary(config: PretrainedConfig) -> dict[str, object]:
    return {
        "d_mlp": config.intermediate_size,
        "n_key_value_heads": config.num_key_value_heads,
        "eps": config.rms_norm_eps,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "rotary_base": config.rope_parameters["rope_theta"],
        "rotary_adjacent_pairs": False,
    }


def _llama(config: PretrainedConfig) -> dict[str, object]:
    return {**_rotary(config), "act_fn": "silu"}


def _gemma2(config: PretrainedConfig) -> dict[str, object]:
    kinds = {"sliding_attention": "local", "full_attention": "global"}
    return {
        **_rotary(config),
        "act_fn": "gelu_pytorch_tanh",
        "use_attn_scale": True,
        "attn_scale": config.query_pre_attn_scalar**0.5,
        "window_size": config.sliding_window,
        "use_local_attn": True,
        "attn_types": [kinds[kind] for kind in config.layer_types],
        "attn_scores_soft_cap": config.attn_logit_softcapping,
        "output_logits_soft_cap": config.final_logit_softcapping,
        "use_normalization_before_and_after": True,
    }


def _gpt2(config: PretrainedConfig) -> dict[str, object]:
    return {
        "d_mlp": 4 * config.hidden_size,
        "eps": config.layer_norm_epsilon,
        "act_fn": "gelu_new",
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def main(jobs: str, target: str) -> None:
    """Run every job and save its readings as `{name}/{bridge|hooked}/{layer}`."""
    found: dict[str, np.ndarray] = {}
    with open(jobs, encoding="utf-8") as file:
        work = json.load(file)
    for name, (folder, ids) in work.items():
        own = hooked(folder, ids)  # before any bridge: they patch transformers
        for layer, residual in enumerate(own or ()):
            found[f"{name}/hooked/{layer}"] = residual
    for name, (folder, ids) in work.items():
        for layer, residual in enumerate(bridged(folder, ids)):
            found[f"{name}/bridge/{layer}"] = residual
    np.savez(target, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
