"""Tiny random models of eight architectures, tokenizers and SAEs, saved in the layouts users have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhimoeConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

D_MODEL = 16
D_SAE = 48
LAYERS = 4
VOCABULARY = 320
CONTEXT = 128
WINDOW = 6
"""Sliding windows are shorter than the texts, so that a wrong one shows."""

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": CONTEXT,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_PLAIN = {key: value for key, value in _COMMON.items() if key != "head_dim"}

ARCHITECTURES: dict[str, PretrainedConfig] = {
    "gemma2": Gemma2Config(**_COMMON, sliding_window=WINDOW, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(**_COMMON, sliding_window=WINDOW, query_pre_attn_scalar=8, sliding_window_pattern=2),
    "llama": LlamaConfig(**_PLAIN),
    "mistral": MistralConfig(**_COMMON, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**_PLAIN, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2),
    "qwen3": Qwen3Config(**_COMMON),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=D_MODEL, n_layer=LAYERS, n_head=2, n_positions=CONTEXT, bos_token_id=1
    ),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
    ),
}

BORDER = 24
"""Tokens of the original context of models whose rotary factors depend on the longest text of a forward."""
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": BORDER,
}
BY_LENGTH: dict[str, PretrainedConfig] = {
    "phi3": Phi3Config(**_PLAIN, original_max_position_embeddings=BORDER, rope_scaling=_LONGROPE),
    "phimoe": PhimoeConfig(
        **_PLAIN, num_local_experts=2, rope_parameters=_LONGROPE | {"short_mscale": 1.2, "long_mscale": 1.7}
    ),
    "gemma3": Gemma3TextConfig(
        **_COMMON,
        sliding_window=WINDOW,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": _LONGROPE,
        },
    ),
    "dynamic": LlamaConfig(
        **_PLAIN | {"max_position_embeddings": BORDER},
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    ),
}
"""Such models: LongRoPE in three shapes, and dynamic NTK, whose every length beyond the context has its own factors."""

_CORPUS = ["The capital of France is Paris", "The capital of Italy is Rome", "Water boils at one hundred degrees"] * 3


def save_tokenizer(folder: Path, *, bos: bool = True) -> None:
    """A byte-level BPE tokenizer of at most VOCABULARY pieces that takes any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    special = {"pad_token": "<pad>", "eos_token": "<eos>"} | ({"bos_token": "<bos>"} if bos else {})
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_model(
    folder: Path,
    architecture: str,
    *,
    seed: int = 0,
    scale: float = 0.3,
    shard_size: str = "5GB",
    **changes: object,
) -> Path:
    """A random model of the architecture, its configuration changed as given, with its tokenizer, in HF layout."""
    plain = ARCHITECTURES[architecture].to_dict()
    if "num_hidden_layers" in changes:
        plain.pop("layer_types", None)  # they are worked out anew
    config = type(ARCHITECTURES[architecture]).from_dict(plain | changes)
    return save_random(folder, config, seed=seed, scale=scale, shard_size=shard_size)


def save_random(
    folder: Path, config: PretrainedConfig, *, seed: int = 0, scale: float = 0.3, shard_size: str = "5GB"
) -> Path:
    """A random model of a configuration, with its tokenizer, in HF layout."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # large weights make positions, masks and depth matter
                parameter.normal_(0, scale if "embed" not in name and "wte" not in name else 1.0)
    model.save_pretrained(folder, max_shard_size=shard_size)
    save_tokenizer(folder)
    return folder


def sae_weights(seed: int, d_in: int = D_MODEL, d_sae: int = D_SAE) -> dict[str, torch.Tensor]:
    """Random JumpReLU weights whose mean L0 on unit-scale residuals is about a third of the features."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    return {
        "W_enc": decoder.T.contiguous() * 0.8,
        "W_dec": decoder,
        "b_enc": torch.randn(d_sae, generator=generator) * 0.1,
        "b_dec": torch.randn(d_in, generator=generator) * 0.1,
        "threshold": torch.rand(d_sae, generator=generator) * 0.5 + 0.05,
    }


def save_sae(
    folder: Path, layer: int, *, seed: int = 0, point: str = "hook_resid_post", d_in: int = D_MODEL, d_sae: int = D_SAE
) -> Path:
    """One SAE as SAELens saves it, in `folder/layer_K`."""
    from safetensors.torch import save_file

    target = folder / f"layer_{layer}"
    target.mkdir(parents=True)
    save_file(sae_weights(seed + layer, d_in, d_sae), target / "sae_weights.safetensors")
    config = {
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.0",
            "hook_name": f"blocks.{layer}.{point}",
            "prepend_bos": True,
            "model_name": "tiny",
        },
        "architecture": "jumprelu",
    }
    (target / "cfg.json").write_text(json.dumps(config))
    return target


def save_saes(folder: Path, layers: tuple[int, ...] = (0, 1, 3), **options: object) -> Path:
    """SAEs of several layers in SAELens layout."""
    for layer in layers:
        save_sae(folder, layer, **options)  # pyright: ignore[reportArgumentType]
    return folder


def save_gemma_scope(folder: Path, layers: tuple[int, ...] = (0, 1, 3), *, seed: int = 0, l0: int = 16) -> Path:
    """The same weights in Gemma Scope's layout."""
    for layer in layers:
        target = folder / f"layer_{layer}" / "width_16k" / f"average_l0_{l0}"
        target.mkdir(parents=True)
        np.savez(target / "params.npz", **{name: t.numpy() for name, t in sae_weights(seed + layer).items()})
    return folder


def write_pairs(path: Path, pairs: list[dict[str, object]]) -> Path:
    """Pairs as JSONL."""
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


PAIRS: list[dict[str, object]] = [
    {"id": "fr", "domain": "geo", "prompt": "The capital of France is", "fact": "Paris", "hallucination": "Rome"},
    {"id": "it", "domain": "geo", "prompt": "The capital of Italy is", "fact": "Rome", "hallucination": "Paris"},
    {"id": "w", "domain": "physics", "prompt": "Water boils at", "fact": "one hundred degrees", "hallucination": "ten"},
    {
        "id": "u",
        "domain": "physics",
        "prompt": "Ice is é",
        "fact": "cold \N{SNOWFLAKE}",
        "hallucination": "hot and dry",
    },
    {
        "id": "s",
        "domain": "geo",
        "prompt": "The capital of France is",
        "fact": "Paris, France",
        "hallucination": "Oslo",
    },
]
