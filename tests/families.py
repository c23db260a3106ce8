"""A tiny random model of every decoder-only family that transformers can build from a configuration alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bluffscope.model import LanguageModel
from bluffscope.model.hooks import find_blocks

NAMES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LAYERS = 3
WINDOW = 6
_MOST_PARAMETERS = 2_000_000
_WIDTH = 16

# Under whatever name a family has them; those that its configuration lacks are left out.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), _WIDTH),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "ffn_hidden_size", "n_inner", "ffn_dim", "dff"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"), 128),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 8),
    **dict.fromkeys(("n_group", "topk_group", "bos_token_id"), 1),
    **dict.fromkeys(("sliding_window", "window_size", "local_attention", "attention_window_size"), WINDOW),
    **dict.fromkeys(("residual_multiplier", "scale_depth"), 0.22),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "mamba_n_heads", "mamba_num_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_state", "mamba_chunk_size"), 8),
    **dict.fromkeys(("chunk_size", "ssm_state_size", "mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_d_ssm",), 32),
    "vocab_size": 320,
    "head_dim": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# What else a family needs, or what would otherwise hide how it differs.
_ALSO: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"n_head": 4, "num_attention_heads": 4, "rotary_dim": 4},
    "falcon": {"head_dim": None, "new_decoder_architecture": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]], "num_layers": LAYERS},
    "gptj": {"rotary_dim": 4},
    "hyperclovax": {"use_post_norm": True},
    "hunyuan_v1_dense": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "longcat_flash", "youtu"), {"head_dim": None}),
    "zaya": {"num_experts_per_tok": 1},
}


def config_of(name: str) -> PretrainedConfig:
    """The family's configuration, made small."""
    make = CONFIG_MAPPING[name]
    base = make()
    sizes = {key: value for key, value in _SIZES.items() if getattr(base, key, None) is not None or key == "vocab_size"}
    config = make(**{key: value for key, value in (sizes | _ALSO.get(name, {})).items() if value is not None})
    if getattr(config, "is_encoder_decoder", False) or name == "trocr":
        raise ValueError("of an encoder-decoder")
    if config.get_text_config() is not config:
        raise ValueError("of several modalities")
    return config


def build(name: str) -> LanguageModel:
    """The family's model in float32, its weights large enough for masks and positions to matter; no tokenizer."""
    config = config_of(name)
    with torch.device("meta"):
        size = sum(
            parameter.numel() for parameter in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters()
        )
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size} parameters at the least")
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for weight in network.parameters():
        if weight.ndim > 1 and weight.is_floating_point():
            weight.normal_(0, 0.3)
    with torch.no_grad():
        network(torch.tensor([[3, 4, 5]]), use_cache=False)  # a configuration that does not run is none
    blocks = find_blocks(network, int(config.num_hidden_layers))
    tokenizer: Any = None
    return LanguageModel(name, network, blocks, config, tokenizer, torch.device("cpu"), torch.float32, len(blocks))
