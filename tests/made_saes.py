"""Small SAEs of every architecture with random weights, saved as SAELens saves them."""

from __future__ import annotations

import sae_lens
import torch
from sae_lens.saes import batchtopk_sae
from sae_lens.saes.sae import SAEMetadata

D_IN, D_SAE, READS = 12, 40, 23
PLAIN = {"apply_b_dec_to_input": False}
CLASSES = {
    "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
    "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, PLAIN),
    "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": 7}),
    "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
    "matching_pursuit": (sae_lens.MatchingPursuitSAE, sae_lens.MatchingPursuitSAEConfig, {}),
    "rescaled topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": 7, "rescale_acts_by_decoder_norm": True}),
    "layer-normed": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    "norm-rescaled": (
        sae_lens.StandardSAE,
        sae_lens.StandardSAEConfig,
        {"normalize_activations": "constant_norm_rescale"},
    ),
}
KINDS = [*CLASSES, "batchtopk"]


def make(kind, folder, *, d_sae=D_SAE, dtype="float32"):
    """An SAE saved as SAELens saves it, with random weights that leave some features active."""
    torch.manual_seed(KINDS.index(kind))
    metadata = SAEMetadata(hook_name="blocks.0.hook_resid_post")
    shape = {"d_in": D_IN, "d_sae": d_sae, "dtype": dtype, "metadata": metadata}
    target = folder / "layer_0"
    if kind == "batchtopk":
        config = batchtopk_sae.BatchTopKTrainingSAEConfig(**shape, k=6)
        sae = batchtopk_sae.BatchTopKTrainingSAE(config)
        scramble(sae)
        sae.topk_threshold.fill_(1.0)
        sae.save_inference_model(target)
    else:
        build, configure, options = CLASSES[kind]
        sae = build(configure(**shape, **options))
        scramble(sae)
        sae.save_model(target)
    return folder


def scramble(sae):
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name == "threshold":
                parameter.uniform_(0.5, 2)
            elif name.startswith("b_") or name == "r_mag":
                parameter.normal_(0, 0.3)
            elif sae.cfg.architecture() == "matching_pursuit":
                parameter.copy_(torch.nn.functional.normalize(parameter, dim=1))
            else:
                parameter.normal_(0, 0.5)


def residuals(reads=READS, dtype=torch.float32):
    return (2 * torch.randn(reads, D_IN, generator=torch.Generator().manual_seed(9))).to(dtype)
