"""A tiny random model of every decoder-only family that transformers can build from a configuration alone.

Also of every family of several modalities that writes text: the whole model, of which Bluffscope loads the text's part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from bluffscope.model import LanguageModel
from bluffscope.model.hooks import find_blocks

NAMES = tuple(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WHOLE = {
    **modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
}
"""Classes by family; some families among them have one modality, or an encoder."""
LAYERS = 3
WINDOW = 6
_MOST_PARAMETERS = 2_000_000
_MOST_OF_A_WHOLE = 20_000_000
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
# Of the parts that read pictures and sound.
_OTHER_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "embed_dim", "d_model", "output_dim", "out_hidden_size", "projection_dim"), _WIDTH),
    **dict.fromkeys(("mm_hidden_size", "width"), _WIDTH),
    **dict.fromkeys(("depth", "num_layers", "encoder_layers", "num_hidden_layers", "vision_layers"), 2),
    **dict.fromkeys(("num_heads", "num_attention_heads", "encoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "mlp_dim"), 32),
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
    **dict.fromkeys(
        ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "paddleocr_vl_text"),
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    ),
    **dict.fromkeys(
        ("glm4v_text", "glm4v_moe_text", "glm_ocr_text"),
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
                "mrope_section": [2, 1, 1],
            }
        },
    ),
    **dict.fromkeys(
        ("gemma4_text", "gemma4_unified_text"),
        {
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "global_head_dim": 16,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 320,
            "num_kv_shared_layers": 1,
        },
    ),
    "gemma3n_text": {
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "num_kv_shared_layers": 1,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 320,
        "laurel_rank": 4,
        "activation_sparsity_pattern": 0.0,
    },
    "step3p5": {"sliding_window": WINDOW},
}


def config_of(name: str) -> PretrainedConfig:
    """The family's configuration, made small."""
    make = CONFIG_MAPPING[name]
    config = make(**_small(make()))
    if getattr(config, "is_encoder_decoder", False) or name == "trocr":
        raise ValueError("of an encoder-decoder")
    if config.get_text_config() is not config:
        raise ValueError("of several modalities")
    return config


def _small(base: PretrainedConfig, also: dict[str, Any] | None = None) -> dict[str, Any]:
    sizes = {key: value for key, value in _SIZES.items() if key == "vocab_size" or _has(base, key)}
    made = sizes | (also or {}) | _ALSO.get(base.model_type, {})
    return {key: value for key, value in made.items() if value is not None}


def _has(base: PretrainedConfig, key: str) -> bool:
    try:
        return getattr(base, key, None) is not None
    except RuntimeError:  # it differs from block to block
        return True


def build(name: str) -> LanguageModel:
    """The family's model in float32, its weights large enough for masks and positions to matter; no tokenizer."""
    config = config_of(name)
    network = _materialised(AutoModelForCausalLM.from_config, config, lambda network: network)
    with torch.no_grad():
        network(torch.tensor([[3, 4, 5]]), use_cache=False)  # a configuration that does not run is none
    blocks = find_blocks(network, int(config.num_hidden_layers))
    tokenizer: Any = None
    return LanguageModel(name, network, blocks, config, tokenizer, torch.device("cpu"), torch.float32, len(blocks))


def _materialised(
    make: Callable[[Any], Any], config: Any, text: Callable[[Any], Any], most: int = _MOST_PARAMETERS
) -> Any:
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in make(copy.deepcopy(config)).parameters())
    if size > most:
        raise ValueError(f"{size} parameters at the least")
    torch.manual_seed(0)
    network = make(copy.deepcopy(config)).eval().requires_grad_(False)
    for weight in text(network).parameters():
        if weight.ndim > 1 and weight.is_floating_point():
            weight.normal_(0, 0.3)
    return network


class WholeModel(NamedTuple):
    """A model of several modalities."""

    network: Any
    text: Any
    """Its language model, as a module of it."""


def build_whole(name: str) -> WholeModel:
    """The family's model of several modalities; the language model's weights are as large as `build` makes them."""
    if name not in CONFIG_MAPPING:
        raise ValueError("no configuration of its own")
    base = CONFIG_MAPPING[name]()
    if getattr(base, "is_encoder_decoder", False):
        raise ValueError("of an encoder-decoder")
    if base.get_text_config() is base:
        raise ValueError("of one modality")
    if any(getattr(getattr(base, key, None), "model_type", "") == "timm_wrapper" for key in base.sub_configs):
        raise ValueError("needs timm")
    config = CONFIG_MAPPING[name](**_small_parts(base, base.get_text_config()))
    kind = WHOLE[name]
    make = getattr(transformers, kind if isinstance(kind, str) else kind[0])._from_config
    network = _materialised(make, config, _text_of, _MOST_OF_A_WHOLE)
    return WholeModel(network, _text_of(network))


def _text_of(network: Any) -> Any:
    text = network.config.get_text_config()
    models = (module for module in network.modules() if isinstance(module, PreTrainedModel))
    return next(module for module in models if module.config is text)


def _small_parts(base: PretrainedConfig, text: PretrainedConfig) -> dict[str, Any]:
    """Of a configuration of several parts, each made small."""
    made: dict[str, Any] = {}
    for key in base.sub_configs:
        part = getattr(base, key, None)
        if not isinstance(part, PretrainedConfig):
            continue
        if part is text:
            made[key] = _small(part)
        else:
            sizes = {**_SIZES, **_OTHER_SIZES}
            numbers = {name: size for name, size in sizes.items() if type(getattr(part, name, None)) is type(size)}
            made[key] = {**numbers, **_small_parts(part, text)}
        made[key]["model_type"] = part.model_type
    return made
