"""Small SAEs of every architecture with random weights, saved as SAELens saves them."""

from __future__ import annotations

import json

import sae_lens
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes import batchtopk_sae
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file

import tiny

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


def sparsify_weights(d_sae=D_SAE, seed=0):
    """As EleutherAI's sparsify names and shapes them; decoder norms are not 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"encoder.weight": (d_sae, D_IN), "encoder.bias": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,)}
    return {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_sparsify(folder, **changes):
    """An SAE as sparsify 1.3 saves it; a change of None leaves the field out."""
    said = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": D_SAE, "k": 7}
    said |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_IN} | changes
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    save_file(sparsify_weights(), folder / "sae.safetensors")
    return folder


def save_scope_2(folder, *, read="model.layers.7.output", seed=0, d_in=D_IN, **changes):
    """An SAE as the hub has those of Gemma Scope 2; without config.json where `read` is None."""
    folder.mkdir(parents=True)
    weights = {name.replace("W_", "w_"): tensor for name, tensor in tiny.sae_weights(seed, d_in, D_SAE).items()}
    save_file(weights, folder / "params.safetensors")
    said = {"architecture": "jump_relu", "hf_hook_point_in": read, "hf_hook_point_out": read, "l0": 60}
    said |= {"model_name": "gemma-v3-4b-pt", "type": "sae", "width": D_SAE} | changes
    if read is not None:
        (folder / "config.json").write_text(json.dumps(said))
    return folder


TRAINED = {
    "standard": (sae_lens.StandardTrainingSAE, sae_lens.StandardTrainingSAEConfig, {}),
    "gated": (sae_lens.GatedTrainingSAE, sae_lens.GatedTrainingSAEConfig, {}),
    "jumprelu": (sae_lens.JumpReLUTrainingSAE, sae_lens.JumpReLUTrainingSAEConfig, {}),
    "topk": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig, {"k": 6}),
    "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig, {"k": 6}),
    "matryoshka_batchtopk": (
        sae_lens.MatryoshkaBatchTopKTrainingSAE,
        sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": 6, "matryoshka_widths": [10, D_SAE]},
    ),
}


def train(kind, folder, normalize="expected_average_only_in", hook_name="blocks.2.hook_resid_post"):
    """A few steps of SAELens's own trainer on random numbers, with a checkpoint half way and one at the end.

    Returns:
        The training SAE at the end.
    """
    torch.manual_seed(0)
    build, configure, options = TRAINED[kind]
    metadata = SAEMetadata(hook_name=hook_name, prepend_bos=True, model_name="tiny")
    sae = build(configure(d_in=D_IN, d_sae=D_SAE, normalize_activations=normalize, metadata=metadata, **options))
    mixing = torch.randn(D_IN, D_IN)
    batches = iter(lambda: 5 * torch.randn(64, D_IN) @ mixing + 2, None)
    config = SAETrainerConfig(
        total_training_samples=64 * 40,
        train_batch_size_samples=64,
        lr=0.01,
        lr_end=0.01,
        n_checkpoints=1,
        checkpoint_path=str(folder),
        save_final_checkpoint=True,
        n_batches_for_norm_estimate=10,
    )
    return sae_lens.SAETrainer(config, sae, batches).fit()
