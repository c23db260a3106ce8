"""SAEs read without SAELens give its numbers, and what is not known to the last field is left to it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product

import pytest
import sae_lens
import torch
from safetensors.torch import load_file, save_file

import made_saes as made
from bluffscope.sae import find_saes, load_coders
from bluffscope.sae.find import registry
from bluffscope.sae.plain import PlainSae, read_plain

TOLERANCE = 1e-6
OPTIONS = {
    "apply_b_dec_to_input": (True, False),
    "normalize_activations": (
        *("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm"),
        "covariance_whitening",
    ),
}
ARCHITECTURES = ("standard", "jumprelu", "topk", "rescaled topk", "gated", "batchtopk")


def read(folder, dtype=torch.float32):
    said = json.loads((folder / "cfg.json").read_text())
    return read_plain(said, folder / "sae_weights.safetensors", "cpu", dtype)


def configure(folder, **changes):
    said = json.loads((folder / "cfg.json").read_text()) | changes
    (folder / "cfg.json").write_text(json.dumps({name: value for name, value in said.items() if value is not ...}))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("saved", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_with_every_option_encodes_and_decodes_as_saelens_does(kind, saved, dtype, tmp_path):
    folder = made.make(kind, tmp_path, dtype=saved) / "layer_0"
    x = made.residuals(dtype=getattr(torch, dtype))
    for changes in product(*OPTIONS.values()):
        configure(folder, **dict(zip(OPTIONS, changes, strict=True)))
        ours, theirs = read(folder, x.dtype), sae_lens.SAE.load_from_disk(folder, dtype=dtype)
        assert isinstance(ours, PlainSae), changes
        with torch.no_grad():
            features, expected = ours.encode(x), theirs.encode(x)
            assert 0 < (expected > 0).sum() < expected.numel()
            assert torch.equal(features > 0, expected > 0)
            torch.testing.assert_close(features, expected, rtol=TOLERANCE, atol=TOLERANCE)
            torch.testing.assert_close(ours.decode(features), theirs.decode(expected), rtol=TOLERANCE, atol=TOLERANCE)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_fields_that_a_cfg_leaves_out_have_the_defaults_of_saelens(tmp_path):
    folder = made.make("topk", tmp_path, d_sae=200) / "layer_0"
    configure(
        folder, **dict.fromkeys((*OPTIONS, "reshape_activations", "k", "rescale_acts_by_decoder_norm", "device"), ...)
    )
    ours, theirs = read(folder), sae_lens.SAE.load_from_disk(folder)
    assert ours is not None
    assert torch.equal(ours.encode(made.residuals()), theirs.encode(made.residuals()))


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "matching_pursuit"},
        {"architecture": "abstopk"},
        {"architecture": "batchtopk"},
        {"architecture": ...},
        {"scale_of_the_future": 2.0},
        {"k": 7},
        {"reshape_activations": "of the future"},
        {"normalize_activations": "of the future"},
        {"normalize_activations": None},
        {"apply_b_dec_to_input": "false"},
        {"apply_b_dec_to_input": 1},
        {"d_in": ...},
        {"d_in": 12.0},
        {"d_sae": 41},
        {"d_sae": -40},
        {"metadata": ...},
        {"metadata": {"hook_name": "blocks.0.hook_resid_post"}},
        {"metadata": {"sae_lens_version": "5.9.0"}},
        {"metadata": {"sae_lens_version": "7.0.0"}},
        {"metadata": {"sae_lens_version": "6.0.0a1"}},
        {"sae_lens_version": "3.0.0"},
    ],
    ids=str,
)
def test_a_cfg_with_anything_unknown_is_left_to_saelens(changes, tmp_path):
    folder = made.make("jumprelu", tmp_path) / "layer_0"
    assert read(folder) is not None
    configure(folder, **changes)
    assert read(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights | {"scaling_factor": torch.ones(made.D_SAE)},
        lambda weights: weights | {"W_skip": torch.ones(2, 2)},
        lambda weights: {("log_" if name == "threshold" else "") + name: value for name, value in weights.items()},
        lambda weights: weights | {"b_enc": torch.zeros(3)},
        lambda weights: weights | {"b_enc": torch.zeros(made.D_SAE, dtype=torch.int32)},
    ],
    ids=["scaling factor", "unknown", "log threshold", "shape", "integers"],
)
def test_weights_with_anything_unknown_are_left_to_saelens(change, tmp_path):
    folder = made.make("jumprelu", tmp_path) / "layer_0"
    file = folder / "sae_weights.safetensors"
    save_file(change(load_file(file)), file)
    assert read(folder) is None


def test_an_sae_that_is_saved_is_read_by_saelens(tmp_path):
    for kind in ARCHITECTURES:
        folder = made.make(kind, tmp_path / kind) / "layer_0"
        ours = read(folder)
        ours.save_model(tmp_path / kind / "again")
        theirs = sae_lens.SAE.load_from_disk(tmp_path / kind / "again")
        assert theirs.cfg.to_dict() == sae_lens.SAE.load_from_disk(folder).cfg.to_dict()
        assert torch.equal(ours.encode(made.residuals()), theirs.encode(made.residuals()))


@pytest.mark.process
def test_usual_saes_and_the_table_of_releases_need_no_import_of_saelens(tmp_path):
    made.make("standard", tmp_path)
    script = (
        "import sys, torch; from bluffscope.sae import find_saes, load_coders;"
        "coders = load_coders(find_saes(sys.argv[1], ()), device='cpu', dtype=torch.float32);"
        "coders[0].encode_decode(torch.ones(1, 12)); find_saes('gpt2-small-res-jb', (3,));"
        "sys.exit('sae_lens' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=120).returncode == 0


def test_others_are_loaded_by_saelens(tmp_path):
    folder = made.make("matching_pursuit", tmp_path)
    coder = load_coders(find_saes(str(folder), ()), device="cpu", dtype=torch.float32)[0]
    assert type(coder.sae) is sae_lens.MatchingPursuitSAE


def test_the_table_of_releases_is_saelens_s():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    theirs = get_pretrained_saes_directory()
    assert registry().keys() == theirs.keys()
    for name, ours in registry().items():
        assert (ours.repo_id, ours.saes_map) == (theirs[name].repo_id, theirs[name].saes_map)
        assert (ours.expected_l0, ours.config_overrides) == (
            theirs[name].expected_l0,
            theirs[name].config_overrides or {},
        )
