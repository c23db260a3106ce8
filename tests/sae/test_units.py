"""Activations in Neuronpedia's units: its dashboards are made with decoder norms folded into the encoder."""

from __future__ import annotations

import pytest
import sae_lens
import torch

import made_saes as made
from bluffscope.sae import find_saes, load_coders


def both(kind, folder, scale=1.0):
    """Ours of a folder, and SAELens's with the decoder norms folded, as SAEDashboard loads it for Neuronpedia."""
    sae = sae_lens.SAE.load_from_disk(made.make(kind, folder) / "layer_0")
    if scale != 1:
        sae.fold_activation_norm_scaling_factor(scale)  # as SAELens does for Llama Scope when it is loaded
        sae.save_model(folder / "layer_0")
    folded = sae_lens.SAE.load_from_disk(folder / "layer_0", fold_W_dec_norm=True)
    return load_coders(find_saes(str(folder), ()), device="cpu", dtype=torch.float32)[0], folded


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated", "batchtopk", "norm-rescaled", "layer-normed"])
def test_an_activation_times_its_decoder_norm_is_neuronpedia_s(kind, scale, tmp_path):
    ours, folded = both(kind, tmp_path, scale)
    norms = ours.decoder.norm(dim=1)
    if kind != "batchtopk" or scale != 1:
        assert (norms - 1).abs().max() > 0.1
    x = made.residuals()
    with torch.no_grad():
        expected = folded.encode(x)
        decoded = folded.decode(expected)
        torch.testing.assert_close(ours.sae.encode(x) * norms, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.sae.decode(ours.sae.encode(x)), decoded, rtol=1e-4, atol=1e-4)
    assert (expected > 0).sum() > 0


def test_of_a_topk_sae_that_scales_by_decoder_norms_the_factor_is_in_the_activation_already(tmp_path):
    ours, folded = both("rescaled topk", tmp_path)
    assert (ours.decoder.norm(dim=1) - 1).abs().max() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(ours.sae.encode(made.residuals()), folded.encode(made.residuals()))


def test_other_topk_saes_are_not_folded_so_the_factor_is_1(tmp_path):
    with pytest.raises(NotImplementedError, match="Folding W_dec_norm is not safe for TopKSAEs"):
        both("topk", tmp_path)
