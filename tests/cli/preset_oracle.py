"""Residuals and features of every preset by plain Hugging Face and SAELens, and residuals by TransformerLens.

Run as `python preset_oracle.py JOBS.json OUT.npz` in a process of its own, the cache in its environment. A job is a
preset's model, hook point and texts, and by layer the release and id of its SAE. Nothing of bluffscope is used.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer


def _installs_nothing(*command: Any, **options: Any) -> None:
    raise subprocess.CalledProcessError(1, command)


# For a processor that it cannot load, TransformerLens 3.9 installs torchvision, and with it another torch.
subprocess.check_call = _installs_nothing


def token_ids(tokenizer: Any, text: str) -> torch.Tensor:
    """(1, token) one BOS and the text."""
    return torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])


def plain_residuals(job: dict[str, Any]) -> dict[int, np.ndarray]:
    """By layer (text, d_model) at the last token: each text alone through the whole model in float32."""
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    # The entry K of hidden_states is what enters block K; the last is normed and not asked for.
    shift = 0 if job["point"] == "hook_resid_pre" else 1
    rows: dict[int, list[np.ndarray]] = {int(layer): [] for layer in job["saes"]}
    for text in job["texts"]:
        with torch.no_grad():
            states = model(token_ids(tokenizer, text), output_hidden_states=True).hidden_states
        for layer in rows:
            rows[layer].append(states[layer + shift][0, -1].numpy())
    return {layer: stacked(found, job) for layer, found in rows.items()}


def stacked(rows: list[np.ndarray], job: dict[str, Any]) -> np.ndarray:
    """(text, d_model); less its mean where the SAEs were trained on a model with centred writing weights."""
    residual = np.stack(rows)
    return residual - residual.mean(axis=1, keepdims=True) if job["centred"] else residual


def bridged_residuals(job: dict[str, Any]) -> dict[int, np.ndarray]:
    """The same, by TransformerLens's bridge and its hook points."""
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    bridge = TransformerBridge.boot_transformers(job["model"], device="cpu", dtype=torch.float32, tokenizer=tokenizer)
    rows: dict[int, list[np.ndarray]] = {int(layer): [] for layer in job["saes"]}
    for text in job["texts"]:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(token_ids(tokenizer, text), return_type=None)  # pyright: ignore
        for layer in rows:
            rows[layer].append(cache[f"blocks.{layer}.{job['point']}"][0, -1].float().numpy())
    return {layer: stacked(found, job) for layer, found in rows.items()}


def load_sae(release: str, sae_id: str) -> SAE[Any]:
    """By SAELens's loader; of Gemma Scope 2, whose loader needs a network, by its class and the file's tensors."""
    entry = get_pretrained_saes_directory()[release]
    if entry.conversion_func != "gemma_3":
        return SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    weights = load_file(hf_hub_download(entry.repo_id, f"{entry.saes_map[sae_id]}/params.safetensors"))
    weights = {name.replace("w_", "W_"): tensor.float() for name, tensor in weights.items()}
    d_in, d_sae = weights["W_enc"].shape
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    sae.load_state_dict(weights)
    return sae


def main(jobs: str, target: str) -> None:
    """Run every job and save `{preset}/{plain|bridge|features}/{layer}`, (text, d_model) or (text, d_sae)."""
    found: dict[str, np.ndarray] = {}
    with open(jobs, encoding="utf-8") as file:
        work = json.load(file)
    for name, job in work.items():  # all before any bridge: they patch transformers
        for layer, residual in plain_residuals(job).items():
            found[f"{name}/plain/{layer}"] = residual
            sae = load_sae(*job["saes"][str(layer)])
            with torch.no_grad():
                dense = sae.encode(torch.from_numpy(residual))
            found[f"{name}/features/{layer}"] = dense.numpy()
    for name, job in work.items():
        for layer, residual in bridged_residuals(job).items():
            found[f"{name}/bridge/{layer}"] = residual
    np.savez(target, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
