"""SAEs trained on tiny models in a second or two, and saved as SAELens saves them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = 48
TOKENS = 24
K = 8
STEPS = 600


def residuals(model: Path, layers: tuple[int, ...]) -> dict[int, torch.Tensor]:
    """(token, d_model) after each of these blocks, of random texts behind a BOS, which is left out."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, len(tokenizer), (TEXTS, TOKENS), generator=generator)
    ids[:, 0] = tokenizer.bos_token_id
    with torch.no_grad():
        states = network(input_ids=ids, output_hidden_states=True).hidden_states
    return {layer: states[layer + 1][:, 1:].reshape(-1, states[0].shape[-1]) for layer in layers}


def train_topk(x: torch.Tensor, *, d_sae: int = 96, k: int = K) -> dict[str, torch.Tensor]:
    """A TopK SAE of these activations."""
    generator = torch.Generator().manual_seed(1)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, x.shape[1], generator=generator), dim=1)
    scale = float(x.norm(dim=1).mean())
    weights = {
        "W_enc": decoder.T.contiguous().clone(),
        "b_enc": torch.zeros(d_sae),
        "W_dec": decoder.clone() * 0.5,
        "b_dec": x.mean(dim=0).clone(),
    }
    for tensor in weights.values():
        tensor.requires_grad_(True)
    optimizer = torch.optim.Adam(weights.values(), lr=3e-3 * max(1.0, scale / 8))
    for _ in range(STEPS):
        hidden = torch.relu((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
        top = hidden.topk(k, dim=1)
        active = torch.zeros_like(hidden).scatter(1, top.indices, top.values)
        loss = (active @ weights["W_dec"] + weights["b_dec"] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in weights.items()}


def principal_components(x: torch.Tensor, n: int) -> dict[str, torch.Tensor]:
    """A ReLU SAE of the first n principal components of these activations, each with both signs."""
    mean = x.mean(dim=0)
    components = torch.linalg.svd(x - mean, full_matrices=False).Vh[:n]
    decoder = torch.cat([components, -components]).contiguous()
    return {"W_enc": decoder.T.contiguous(), "b_enc": torch.zeros(2 * n), "W_dec": decoder, "b_dec": mean}


def save_sae(
    folder: Path,
    weights: dict[str, torch.Tensor],
    hook_name: str,
    model_name: str,
    *,
    k: int | None = K,
    prepend_bos: bool = True,
) -> Path:
    """A TopK SAE in SAELens's layout; without k, a ReLU one."""
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "sae_weights.safetensors")
    d_in, d_sae = weights["W_enc"].shape
    architecture = "standard" if k is None else "topk"
    of_topk = {} if k is None else {"k": k, "rescale_acts_by_decoder_norm": False}
    config = {
        "architecture": architecture,
        **of_topk,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.0",
            "model_name": model_name,
            "hook_name": hook_name,
            "prepend_bos": prepend_bos,
            "training_architecture": architecture,
            **({} if k is None else {"training_architecture_details": {"k": k}, "l0": float(k)}),
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def save_trained(folder: Path, model: Path, layers: tuple[int, ...]) -> Path:
    """SAEs of these layers, trained on the model."""
    for layer, x in residuals(model, layers).items():
        save_sae(folder / f"layer_{layer}", train_topk(x), f"blocks.{layer}.hook_resid_post", model.name)
    return folder
