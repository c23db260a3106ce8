"""Features and reconstructions equal those of SAELens called alone, one residual at a time."""

from __future__ import annotations

import numpy as np
import pytest
import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig

from bluffscope.errors import InputError
from bluffscope.sae import Coder, coder, find_saes, load_coders
from made_saes import D_IN, D_SAE, KINDS, make, residuals

DENSE = ("matching_pursuit", "rescaled topk", "layer-normed", "norm-rescaled")
"""Those whose reconstruction is not a plain sum of decoder rows of this residual."""


def load(kind, folder, dtype=torch.float32, **options) -> tuple[Coder, sae_lens.SAE]:
    """Ours, and SAELens's own."""
    make(kind, folder, **options)
    ours = load_coders(find_saes(str(folder), ()), device="cpu", dtype=dtype)[0]
    theirs = sae_lens.SAE.load_from_disk(folder / "layer_0", dtype=str(dtype).removeprefix("torch."))
    return ours, theirs


def dense(features):
    """(read, d_sae), as SAELens gives features; checks the sparse form on the way."""
    filled = torch.zeros(len(features.counts), features.d_sae, dtype=features.values.dtype)
    assert features.indptr[0] == 0
    assert features.indptr[-1] == len(features.indices) == len(features.values)
    for read in range(len(filled)):
        here = slice(int(features.indptr[read]), int(features.indptr[read + 1]))
        assert (features.indices[here].diff() > 0).all(), "indices must ascend"
        assert (features.values[here] > 0).all()
        filled[read, features.indices[here]] = features.values[here]
    return filled


def alone(sae, x):
    """Features and reconstruction of each residual, one call for each."""
    with torch.no_grad():
        pairs = [(a := sae.encode(one[None]), sae.decode(a)) for one in x]
    return torch.cat([a for a, _ in pairs]), torch.cat([y for _, y in pairs])


def assert_relative(ours, theirs, tolerance=1e-5):
    """Each row within the tolerance of its length."""
    scale = theirs.norm(dim=1).clamp_min(1e-30)
    assert ((ours - theirs).norm(dim=1) / scale).max() <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_features_and_reconstructions_equal_those_of_saelens_one_residual_at_a_time(kind, dtype, tmp_path):
    ours, theirs = load(kind, tmp_path, dtype)
    x = residuals(dtype=dtype)
    features, reconstruction = ours.encode_decode(x)
    expected, decoded = alone(theirs, x)
    filled = dense(features)
    assert torch.equal(filled > 0, expected > 0)
    assert torch.equal(features.counts, (expected > 0).sum(1))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_relative(filled, expected, tolerance)
    assert_relative(reconstruction, decoded, tolerance)
    again = ours.encode(x)
    assert torch.equal(again.values, features.values)
    assert torch.equal(again.indices, features.indices)
    assert 0 < features.counts.double().mean() < D_SAE
    assert ours.affine == (kind not in DENSE)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_few_rows_change_nothing(kind, tmp_path, monkeypatch):
    """An SAE that normalises its input keeps that input's scale until it decodes: blocks must not mix."""
    ours, _ = load(kind, tmp_path)
    whole, decoded = ours.encode_decode(residuals())
    for cells in (3 * D_SAE, 1):  # three rows a block; and a dictionary wider than a block may be
        monkeypatch.setattr(coder, "_DENSE_CELLS", cells)
        blocked, redecoded = ours.encode_decode(residuals())
        assert torch.equal(blocked.indptr, whole.indptr)
        assert torch.equal(blocked.indices, whole.indices)
        assert_relative(dense(blocked), dense(whole))
        assert_relative(redecoded, decoded)
        assert blocked.d_sae == D_SAE


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "batchtopk", "layer-normed"])
def test_no_active_feature_leaves_empty_rows_and_the_bias(kind, tmp_path):
    ours, theirs = load(kind, tmp_path)
    x = residuals(5)
    for sae in (ours.sae, theirs):
        with torch.no_grad():
            sae.b_enc[:] = -1e6
            sae.b_enc[3] = 50.0  # one feature only, and none in the second half
            sae.W_enc[:, 3] = torch.nn.functional.one_hot(torch.tensor(0), D_IN) * 1e3
    if kind != "layer-normed":
        x[3:, 0] = -1.0
        x[:3, 0] = 1.0
    features, reconstruction = ours.encode_decode(x)
    expected, decoded = alone(theirs, x)
    assert torch.equal(features.counts, (expected > 0).sum(1))
    assert_relative(reconstruction, decoded)
    if kind != "layer-normed":
        assert features.counts.tolist() == [1, 1, 1, 0, 0]
        assert torch.equal(reconstruction[3:], ours.sae.b_dec.expand(2, -1))
    with torch.no_grad():
        ours.sae.b_enc[3] = -1e9
    silent, reconstruction = ours.encode_decode(x)
    assert silent.counts.tolist() == [0] * 5
    assert len(silent.indices) == len(silent.values) == 0
    assert reconstruction.isfinite().all()


def test_half_precision_residuals_are_encoded_in_the_sae_s_own_precision(tmp_path):
    ours, theirs = load("jumprelu", tmp_path)
    x = residuals().bfloat16()
    features, reconstruction = ours.encode_decode(x)
    expected, decoded = alone(theirs, x.float())
    assert features.values.dtype == reconstruction.dtype == torch.float32
    assert_relative(dense(features), expected)
    assert_relative(reconstruction, decoded)


def test_a_wide_dictionary_is_encoded_in_blocks_of_bounded_size(tmp_path):
    ours, theirs = load("jumprelu", tmp_path, d_sae=1 << 16)
    ours.encode(residuals(1))
    seen = []
    enter = ours.sae.process_sae_in
    ours.sae.process_sae_in = lambda x: seen.append(len(x)) or enter(x)
    features, reconstruction = ours.encode_decode(residuals(600))
    assert seen == [256, 256, 88]
    expected, decoded = alone(theirs, residuals(600)[-3:])
    assert torch.equal(dense_rows(features, 597), expected > 0)
    assert_relative(reconstruction[-3:], decoded)


@pytest.mark.parametrize(("architecture", "straight"), [("jumprelu", True), ("standard", True), ("topk", False)])
def test_thresholds_are_taken_straight_only_where_they_give_the_same_bits(architecture, straight, tmp_path):
    ours, theirs = load(architecture, tmp_path)
    assert ours._thresholds == straight
    with torch.no_grad():
        assert torch.equal(dense(ours.encode(residuals(40))), theirs.encode(residuals(40)))


def test_an_sae_that_encodes_in_its_own_way_is_left_to_itself(tmp_path):
    ours, _ = load("jumprelu", tmp_path)
    encode = ours.sae.encode
    ours.sae.encode = lambda x: 2 * encode(x)
    assert not ours._thresholds
    assert torch.equal(dense(ours.encode(residuals(5))), 2 * encode(residuals(5)))


def dense_rows(features, first):
    """Which features are active, (read, d_sae) of the reads from `first`."""
    active = np.zeros((len(features.counts) - first, features.d_sae), dtype=bool)
    for row in range(len(active)):
        here = slice(int(features.indptr[first + row]), int(features.indptr[first + row + 1]))
        active[row, features.indices[here].numpy()] = True
    return torch.from_numpy(active)


def test_architectures_that_cannot_be_measured_residual_by_residual_are_refused(tmp_path):
    metadata = SAEMetadata(hook_name="blocks.0.hook_resid_post")
    shape = {"d_in": D_IN, "d_sae": D_SAE, "metadata": metadata}
    temporal = TemporalSAE(TemporalSAEConfig(**shape, n_heads=1, n_attn_layers=1, bottleneck_factor=1))
    signed = sae_lens.saes.abstopk_sae.AbsTopKSAE(sae_lens.saes.abstopk_sae.AbsTopKSAEConfig(**shape, k=5))
    for sae, reason in ((temporal, "whole text at once"), (signed, "can be negative")):
        folder = tmp_path / sae.cfg.architecture()
        sae.save_model(folder / "layer_0")
        with pytest.raises(InputError, match=reason):
            load_coders(find_saes(str(folder), ()), device="cpu", dtype=torch.float32)
