"""Every preset's repositories as the hub holds them, tiny: config.json with the published keys, weights with the
published names, SAEs in the format of each release. They load by their real names, with nothing patched.

Only Gemma Scope's loader fixes the widths by name: there hidden size and SAE width are the real ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import hub_cache
import tiny
from bluffscope.config.presets import PRESETS

_GEMMA_2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 1,
    "cache_implementation": "hybrid",
    "eos_token_id": 2,
    "final_logit_softcapping": 30.0,
    "head_dim": 8,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "intermediate_size": 32,
    "max_position_embeddings": tiny.CONTEXT,
    "model_type": "gemma2",
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 8,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": tiny.WINDOW,
    "torch_dtype": "float32",
    "transformers_version": "4.42.4",
    "use_cache": True,
    "vocab_size": tiny.VOCABULARY,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma-2-2b": {**_GEMMA_2, "hidden_size": 2304, "num_hidden_layers": 26},
    "gemma-2-9b": {**_GEMMA_2, "hidden_size": 3584, "num_hidden_layers": 42},
    "gemma-3-4b": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255,
        "bos_token_id": 1,
        "eoi_token_index": 256,
        "eos_token_id": 2,
        "image_token_index": 257,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 4,
        "model_type": "gemma3",
        "pad_token_id": 0,
        "text_config": {
            # Published are the sizes of these six alone; all else is as transformers has it for the family.
            "hidden_size": tiny.D_MODEL,
            "intermediate_size": 32,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": tiny.WINDOW,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "vocab_size": tiny.VOCABULARY,
            "max_position_embeddings": tiny.CONTEXT,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {
            "hidden_size": 16,
            "image_size": 28,
            "intermediate_size": 16,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "patch_size": 14,
            "vision_use_head": False,
        },
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": tiny.D_MODEL,
        "initializer_range": 0.02,
        "intermediate_size": 32,
        "max_position_embeddings": tiny.CONTEXT,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 1,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.0.dev0",
        "use_cache": True,
        "vocab_size": tiny.VOCABULARY,
    },
    "gpt2-small": {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 1,
        "embd_pdrop": 0.1,
        "eos_token_id": 1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": tiny.CONTEXT,
        "n_embd": tiny.D_MODEL,
        "n_head": 2,
        "n_layer": 12,
        "n_positions": tiny.CONTEXT,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": tiny.VOCABULARY,
    },
}
"""By preset: config.json with the keys of the published file, and tiny numbers."""

LLAMA_NORM = 2.0
"""What Llama Scope's SAEs multiply: sqrt(d_model) over this norm is what the threshold is scaled by."""


def add_preset(home: Path, scratch: Path, name: str) -> dict[str, str]:
    """Put a preset's model and SAEs into a cache.

    Args:
        home: what HF_HOME is to be.
        scratch: where files are made.
        name: of the preset.

    Returns:
        The commit of each repository.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    preset = PRESETS[name]
    release, _, template = preset.sae.partition(":")
    entry = get_pretrained_saes_directory()[release]
    paths = {layer: entry.saes_map[template.format(layer=layer)] for layer in preset.layers}
    saes = scratch / "saes" / name
    {
        "gemma_2": save_gemma_scope,
        "gemma_3": save_gemma_scope_2,
        "llama_scope": save_llama_scope,
        None: save_res_jb,
    }[entry.conversion_func](saes, paths)
    return {
        preset.model: hub_cache.add_repository(home, preset.model, save_model(scratch / "models" / name, name)),
        entry.repo_id: hub_cache.add_repository(home, entry.repo_id, saes),
    }


def save_model(folder: Path, name: str) -> Path:
    """A random model of a preset's architecture: files, names and keys as published."""
    folder.mkdir(parents=True)
    published = json.dumps(CONFIGS[name], indent=2)
    (folder / "config.json").write_text(published)
    torch.manual_seed(len(name))
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if parameter.ndim > 1:  # large weights make positions, masks and depth matter
                parameter.normal_(0, 1.0 if "embed" in key or "wte" in key else 0.3)
            elif "norm" in key:
                parameter.normal_(0, 0.1)
    if CONFIGS[name].get("torch_dtype") == "bfloat16":
        network.bfloat16()
    network.save_pretrained(folder, max_shard_size="20KB" if name.startswith("llama") else "5GB")
    (folder / "config.json").write_text(published)
    if name == "gpt2-small":
        _as_gpt2_is_published(folder / "model.safetensors")
    save_tokenizer(folder, bos_is_eos=name == "gpt2-small")
    return folder


def _as_gpt2_is_published(file: Path) -> None:
    """Without the name of the body, and with the causal masks that no model reads any more."""
    weights = {key.removeprefix("transformer."): value for key, value in load_file(file).items()}
    mask = torch.ones(tiny.CONTEXT, tiny.CONTEXT).tril()[None, None]
    masks = {f"h.{block}.attn.bias": mask.clone() for block in range(12)}
    save_file({**weights, **masks}, file, metadata={"format": "pt"})


def save_tokenizer(folder: Path, *, bos_is_eos: bool) -> None:
    """The tiny models' tokenizer; GPT-2 has one special token for all purposes."""
    tiny.save_tokenizer(folder)
    if bos_is_eos:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>").save_pretrained(
            folder
        )


def save_gemma_scope(folder: Path, paths: dict[int, str]) -> None:
    """Gemma Scope: an archive of JumpReLU weights; the same for each layer, since they are of full width."""
    d_in = {"2b": 2304, "9b": 3584}[folder.name[-2:]]
    first, *others = paths.values()
    hub_cache.save_gemma_scope(folder, {0: first}, d_in=d_in, d_sae=hub_cache.WIDTH_16K)
    for path in others:
        shutil.copytree(folder / first, folder / path)


def save_gemma_scope_2(folder: Path, paths: dict[int, str]) -> None:
    """Gemma Scope 2: config.json and params.safetensors, names in small letters."""
    for layer, path in paths.items():
        (folder / path).mkdir(parents=True)
        config = {
            "architecture": "jump_relu",
            "hf_hook_point_in": f"model.layers.{layer}.output",
            "hf_hook_point_out": f"model.layers.{layer}.output",
            "l0": 100,
            "model_name": "gemma-v3-4b-pt",
            "type": "sae",
            "width": tiny.D_SAE,
        }
        (folder / path / "config.json").write_text(json.dumps(config))
        weights = tiny.sae_weights(layer)
        renamed = {name.replace("W_", "w_"): tensor for name, tensor in weights.items()}
        save_file(renamed, folder / path / "params.safetensors")


def save_llama_scope(folder: Path, paths: dict[int, str]) -> None:
    """Llama Scope: hyperparams.json and a checkpoint of two linear layers in bfloat16, for inputs of unit scale."""
    for layer, path in paths.items():
        (folder / path / "checkpoints").mkdir(parents=True)
        hyperparameters = {
            "hook_point_in": f"blocks.{layer}.hook_resid_post",
            "hook_point_out": f"blocks.{layer}.hook_resid_post",
            "d_model": tiny.D_MODEL,
            "d_sae": tiny.D_SAE,
            "act_fn": "jumprelu",
            "jump_relu_threshold": 0.4,
            "norm_activation": "dataset-wise",
            "sparsity_include_decoder_norm": True,
            "dataset_average_activation_norm": {"in": LLAMA_NORM, "out": LLAMA_NORM},
        }
        (folder / path / "hyperparams.json").write_text(json.dumps(hyperparameters))
        weights = tiny.sae_weights(layer)
        stored = {
            "encoder.weight": weights["W_enc"].T,
            "encoder.bias": weights["b_enc"],
            "decoder.weight": weights["W_dec"].T,
            "decoder.bias": weights["b_dec"],
        }
        stored = {name: tensor.contiguous().bfloat16() for name, tensor in stored.items()}
        save_file(stored, folder / path / "checkpoints" / "final.safetensors")


def save_res_jb(folder: Path, paths: dict[int, str]) -> None:
    """SAELens's format before version 6: a flat cfg.json, the training options in it, and the log of sparsities."""
    for layer, path in paths.items():
        (folder / path).mkdir(parents=True)
        config = {
            "model_name": "gpt2-small",
            "hook_point": f"blocks.{layer}.hook_resid_pre",
            "hook_point_layer": layer,
            "hook_point_head_index": None,
            "dataset_path": "Skylion007/openwebtext",
            "is_dataset_tokenized": False,
            "context_size": 128,
            "use_cached_activations": False,
            "d_in": tiny.D_MODEL,
            "d_sae": tiny.D_SAE,
            "expansion_factor": 3,
            "n_batches_in_buffer": 128,
            "total_training_tokens": 300000000,
            "dtype": "torch.float32",
            "device": "cpu",
            "seed": 42,
            "l1_coefficient": 8e-05,
            "lr": 0.0004,
            "train_batch_size": 4096,
        }
        (folder / path / "cfg.json").write_text(json.dumps(config))
        weights = tiny.sae_weights(layer)
        del weights["threshold"]
        save_file(weights, folder / path / "sae_weights.safetensors")
        save_file({"sparsity": torch.full((tiny.D_SAE,), -2.0)}, folder / path / "sparsity.safetensors")
