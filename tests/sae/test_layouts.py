"""Folders of SAEs as people have them: which SAE of a layer is found, and that it is read as its makers read it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import load_file, save_file

import made_saes as made
import tiny
from bluffscope.errors import InputError
from bluffscope.sae import find_saes, load_coders, read_sae_configs
from bluffscope.sae.plain import PlainSae

TOLERANCE = 1e-6
HOOKS = ("hook_resid_post", "hook_resid_pre", "hook_mlp_out", "hook_attn_out")


def load(folder, layers=(), dtype=torch.float32):
    """Each layer's SAE; what its configuration says without its weights must be the same."""
    source = find_saes(str(folder), layers)
    coders, stated = load_coders(source, device="cpu", dtype=dtype), read_sae_configs(source)
    for layer, coder in coders.items():
        assert (coder.d_in, coder.d_sae, coder.hook_name) == stated[layer][:3]
        assert coder.identity["published_l0"] == stated[layer].l0
    return coders


def refused(folder, says, layers=()):
    with pytest.raises(InputError, match=says) as caught:
        load(folder, layers)
    assert str(caught.value).startswith(f"--sae {folder}")
    assert "\n" not in str(caught.value)


def assert_same(coder, encode, decode, dtype=torch.float32):
    """Features, their sparse form, and reconstructions within 1e-6 of what others make of the same file."""
    x = made.residuals(dtype=dtype)
    with torch.no_grad():
        expected = encode(x)
        assert 0 < (expected > 0).sum() < expected.numel()
        torch.testing.assert_close(coder.sae.encode(x), expected, rtol=TOLERANCE, atol=TOLERANCE)
        features, reconstruction = coder.encode_decode(x)
        assert torch.equal(features.counts, (expected > 0).sum(1))
        torch.testing.assert_close(reconstruction, decode(expected), rtol=10 * TOLERANCE, atol=10 * TOLERANCE)


def save(folder, hook_name, architecture="jumprelu", seed=0):
    """An SAE that SAELens saves under this name."""
    made.make(architecture, folder / "made")
    target = shutil.move(folder / "made" / "layer_0", folder / hook_name)
    shutil.rmtree(folder / "made")
    file = Path(target) / "cfg.json"
    said = json.loads(file.read_text())
    said["metadata"]["hook_name"] = hook_name
    file.write_text(json.dumps(said))
    return target


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "gated", "matching_pursuit"])
@pytest.mark.parametrize("hook", HOOKS)
def test_folders_named_by_hook_point_are_read_as_saelens_reads_them(hook, architecture, tmp_path):
    for layer in (0, 11):
        save(tmp_path, f"blocks.{layer}.{hook}", architecture)
    coders = load(tmp_path)
    assert list(coders) == [0, 11]
    theirs = sae_lens.SAE.load_from_disk(tmp_path / f"blocks.11.{hook}")
    assert_same(coders[11], theirs.encode, theirs.decode)
    assert coders[11].hook_name == f"blocks.11.{hook}"


def test_several_hook_points_of_a_layer_are_refused_unless_one_is_given(tmp_path):
    for name in ("blocks.5.hook_resid_post", "blocks.5.hook_mlp_out", "blocks.6.hook_mlp_out"):
        save(tmp_path, name)
    says = "several SAEs for layer 5: blocks.5.hook_mlp_out, blocks.5.hook_resid_post; give one, as --sae FOLDER/blocks"
    refused(tmp_path, says)
    assert load(tmp_path, (6,))[6].hook_name == "blocks.6.hook_mlp_out"
    assert load(tmp_path / "blocks.5.hook_resid_post")[5].hook_name == "blocks.5.hook_resid_post"
    refused(tmp_path / "blocks.5.hook_resid_post", "no SAE for layer 6; the folder has layers 5", (6,))


def test_two_namings_of_one_layer_are_refused(tmp_path):
    save(tmp_path, "blocks.5.hook_resid_post")
    tiny.save_sae(tmp_path, 5)
    refused(tmp_path, "several SAEs for layer 5: blocks.5.hook_resid_post, layer_5")


def test_a_folder_that_is_one_sae_itself_stands_for_its_layer(tmp_path, monkeypatch):
    saes = tiny.save_saes(tmp_path / "saes", (1, 3))
    scope = tiny.save_gemma_scope(tmp_path / "scope", (4,), l0=23) / "layer_4"
    shutil.copytree(saes / "layer_3", tmp_path / "my sae")
    assert find_saes(str(saes / "layer_1"), ()).places == {1: saes / "layer_1"}
    assert find_saes(str(tmp_path / "my sae"), ()).layers == (3,)  # its cfg.json names the block
    for folder in (scope, scope / "width_16k" / "average_l0_23"):
        assert find_saes(str(folder), ()).places == {4: scope / "width_16k" / "average_l0_23" / "params.npz"}
    monkeypatch.chdir(saes / "layer_3")
    assert find_saes(".", (3,)).layers == (3,)
    file = tmp_path / "my sae" / "cfg.json"
    file.write_text(file.read_text().replace("blocks.3", "blocks.x"))
    refused(tmp_path / "my sae", "itself one SAE, but nothing says of which layer; name its folder layer_K")


@pytest.mark.parametrize("normalize_decoder", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparsify_is_read_by_its_own_formula(normalize_decoder, dtype, tmp_path):
    """TopK of relu(W_enc (x - b_dec) + b_enc), whatever `normalize_decoder`; in SAELens's terms an ordinary TopK."""
    made.save_sparsify(tmp_path / "layers.3", normalize_decoder=normalize_decoder)
    (tmp_path / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m"}))
    weights = {name: tensor.to(dtype) for name, tensor in made.sparsify_weights().items()}

    def encode(x):
        pre = ((x - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"]).relu()
        values, places = pre.topk(7)
        return torch.zeros_like(pre).scatter(-1, places, values)

    coder = load(tmp_path, dtype=dtype)[3]
    assert_same(coder, encode, lambda acts: acts @ weights["W_dec"] + weights["b_dec"], dtype)
    assert (coder.hook_name, coder.prepend_bos) == ("blocks.3.hook_resid_post", True)
    assert coder.identity["trained_on"]["model_name"] == "EleutherAI/pythia-70m"
    metadata = SAEMetadata(hook_name="blocks.3.hook_resid_post")
    theirs = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=made.D_IN, d_sae=made.D_SAE, k=7, metadata=metadata))
    renamed = {"W_enc": weights["encoder.weight"].T, "b_enc": weights["encoder.bias"]}
    theirs.load_state_dict(renamed | {name: weights[name] for name in ("W_dec", "b_dec")})
    assert_same(coder, theirs.to(dtype=dtype).encode, theirs.decode, dtype)


def test_saelens_reads_a_sparsify_file_only_with_w_dec_the_other_way_round(tmp_path):
    """And then as we read the true file, where `normalize_decoder` is false. A later SAELens may do better."""
    made.save_sparsify(tmp_path / "layers.3", normalize_decoder=False)
    with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
        sae_lens.SAE.load_from_disk(tmp_path / "layers.3", converter=loaders.sparsify_disk_loader, dtype="float32")
    turned = shutil.copytree(tmp_path / "layers.3", tmp_path / "turned" / "layers.3") / "sae.safetensors"
    weights = load_file(turned)
    save_file(weights | {"W_dec": weights["W_dec"].T.contiguous()}, turned)
    theirs = sae_lens.SAE.load_from_disk(turned.parent, converter=loaders.sparsify_disk_loader, dtype="float32")
    assert_same(load(tmp_path, (3,))[3], theirs.encode, theirs.decode)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transcode": True}, "layer 3: transcode: a transcoder; give SAEs that read and reconstruct one place each"),
        ({"skip_connection": True}, "layer 3: skip_connection: a transcoder with a skip connection; give SAEs that"),
        ({"activation": "groupmax"}, "layer 3: activation groupmax is not read; give SAEs with activation topk"),
        ({"signed": True}, "layer 3: signed: its features can be negative; give SAEs whose features are 0 or more"),
        ({"of_the_future": 2}, "layer 3: cfg.json has of_the_future, which is not known here; give SAEs without it"),
        ({"k": None}, "layer 3: cfg.json states no k; copy or save the SAE again"),
        ({"k": 0}, "layer 3: cfg.json states no k"),
    ],
    ids=str,
)
def test_sparsify_s_other_kinds_are_refused_by_name(changes, says, tmp_path):
    made.save_sparsify(tmp_path / "layers.3", **changes)
    refused(tmp_path, says)


@pytest.mark.parametrize("name", ["layers.3.mlp", "h.3.attn", "layers.3.self_attn.o_proj"])
def test_sparsify_s_saes_of_a_module_inside_a_block_are_refused(name, tmp_path):
    made.save_sparsify(tmp_path / name)
    refused(tmp_path, f"layer 3: {name} reads the output of the module {name[name.index('.3.') + 3 :]}, which in some")


def test_sparsify_s_damaged_weights_are_refused(tmp_path):
    file = made.save_sparsify(tmp_path / "h.3") / "sae.safetensors"
    whole = load_file(file)
    for weights, says in (
        (whole | {"W_skip": torch.ones(2, 2)}, "has a tensor W_skip"),
        ({name: tensor for name, tensor in whole.items() if name != "b_dec"}, "has no tensor b_dec"),
        (whole | {"b_dec": torch.ones(3)}, r"b_dec has shape \(3,\), which does not go with the others"),
        (whole | {"encoder.weight": torch.ones(3)}, "its weights have no matrix encoder.weight"),
        (whole | {"W_dec": torch.ones(2, 3, 4)}, "W_dec is 2 x 3 x 4: a crosscoder, which reads several layers"),
    ):
        save_file(weights, file)
        refused(tmp_path, f"layer 3: .*{says}")
    file.write_bytes(file.read_bytes()[:-50])
    refused(tmp_path, "layer 3: the weights file is damaged")


def scope_2_of_saelens(root, folder, monkeypatch):
    """What SAELens's loader makes of a copy of a hub repository."""
    monkeypatch.setattr(
        loaders, "hf_hub_download", lambda repo_id, filename, subfolder="", **_: local(filename, subfolder)
    )
    monkeypatch.setattr(
        loaders,
        "get_safetensors_tensor_shapes",
        lambda _, name: {key: list(tensor.shape) for key, tensor in load_file(root / name).items()},
    )

    def local(filename, subfolder):
        if not (file := root / subfolder / filename).is_file():
            raise loaders.EntryNotFoundError(filename)
        return str(file)

    converter = loaders.gemma_3_sae_huggingface_loader
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the repository has releases
        return sae_lens.SAE.from_pretrained("google/gemma-scope-2-4b-pt", folder, converter=converter)


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize(
    ("kind", "read", "hook"),
    [
        ("resid_post", "output", "hook_resid_post"),
        ("resid_post_all", "output", "hook_resid_post"),
        ("mlp_out", "post_feedforward_layernorm.output", "hook_mlp_out"),
    ],
)
def test_gemma_scope_2_is_read_as_saelens_reads_it(kind, read, hook, with_config, tmp_path, monkeypatch):
    name = "layer_7_width_16k_l0_medium"
    made.save_scope_2(tmp_path / kind / name, read=f"model.layers.7.{read}" if with_config else None)
    theirs = scope_2_of_saelens(tmp_path, f"{kind}/{name}", monkeypatch)
    for folder in (tmp_path, tmp_path / kind, tmp_path / kind / name):
        coder = load(folder)[7]
        assert_same(coder, theirs.encode, theirs.decode)
        assert coder.hook_name == theirs.cfg.metadata.hook_name == f"blocks.7.{hook}"
        assert coder.identity["published_l0"] == (60 if with_config else None)
        if with_config:
            assert coder.identity["trained_on"]["model_name"] == theirs.cfg.metadata.model_name
        assert isinstance(coder.sae, PlainSae)


@pytest.mark.parametrize(
    ("variants", "taken"),
    [
        ({"16k_l0_small": 20, "16k_l0_medium": 60, "16k_l0_big": 150, "65k_l0_big": 100}, "16k_l0_medium"),
        ({"16k_l0_small": 20, "16k_l0_medium": 60, "16k_l0_big": 110}, "16k_l0_big"),
        ({"16k_l0_small": None, "16k_l0_medium": None, "16k_l0_big": None}, "16k_l0_big"),
        ({"262k_l0_medium": 60, "65k_l0_small": 20, "1m_l0_big": 100}, "65k_l0_small"),
        ({"262k_l0_medium_seed_1": 60, "262k_l0_medium": 60}, "262k_l0_medium"),
    ],
    ids=str,
)
def test_of_several_gemma_scope_2_saes_the_16k_one_nearest_to_the_canonical_l0_is_taken(variants, taken, tmp_path):
    for name, l0 in variants.items():
        made.save_scope_2(tmp_path / "resid_post" / f"layer_7_width_{name}", l0=l0)
    assert find_saes(str(tmp_path), ()).places == {7: tmp_path / "resid_post" / f"layer_7_width_{taken}"}


def test_gemma_scope_2_s_choices_that_remain_are_named(tmp_path):
    for kind in ("resid_post", "mlp_out", "transcoder"):
        made.save_scope_2(tmp_path / kind / "layer_7_width_16k_l0_big", read=None)
    refused(
        tmp_path, "several SAEs for layer 7: mlp_out/layer_7_width_16k_l0_big, resid_post/layer_7_width_16k_l0_big;"
    )
    assert load(tmp_path / "mlp_out")[7].hook_name == "blocks.7.hook_mlp_out"
    made.save_scope_2(tmp_path / "resid_post_all" / "layer_8_width_16k_l0_big")
    made.save_scope_2(tmp_path / "resid_post" / "layer_8_width_16k_l0_big")
    refused(tmp_path, "several SAEs for layer 8: resid_post/layer_8.*, resid_post_all/layer_8", (8,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "crosscoder"}, "layer_7_width_16k_l0_big is a crosscoder; give SAEs that read and reconstruct one"),
        ({"architecture": "topk"}, "unknown architecture 'topk' in config.json"),
        (
            {"read": "model.layers.7.self_attn.output"},
            "it reads model.layers.7.self_attn.output; give SAEs of resid_po",
        ),
        ({"read": None}, "neither config.json nor the folder above says what it reads; give SAEs of resid_post"),
    ],
    ids=str,
)
def test_other_gemma_scope_2_files_are_refused(changes, says, tmp_path):
    made.save_scope_2(tmp_path / "layer_7_width_16k_l0_big", **changes)
    refused(tmp_path, f"layer 7: .*{says}")
    (tmp_path / "layer_7_width_16k_l0_big" / "config.json").write_text("{")
    refused(tmp_path, r"layer 7: config.json is not valid JSON \(line 1\); save the SAE again")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("transcoder", "transcoder is a transcoder, which reconstructs another place than it reads; give SAEs that"),
        ("crosscoder", "crosscoder is a crosscoder, which reads several layers at once; give SAEs that read"),
        ("layer_9_17_22_29_width_65k_l0_medium", "is a crosscoder, which reads several layers at once"),
        ("clt", "clt is a crosscoder, which reads several layers at once"),
    ],
)
def test_folders_of_other_dictionaries_are_refused_by_name(name, says, tmp_path):
    made.save_scope_2(tmp_path / name / "layer_7_width_16k_l0_big")
    refused(tmp_path, f"no SAE in this folder; {name}.*{says.removeprefix(name)}")
    if name != "layer_9_17_22_29_width_65k_l0_medium":
        refused(tmp_path / name, f"layer_7_width_16k_l0_big {says[says.index('is a') :]}")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda said, weights: (said | {"architecture": "CrossCoder"}, weights), "a crosscoder, which reads several"),
        (
            lambda said, weights: (said, weights | {"W_dec": torch.ones(48, 2, 16)}),
            "W_dec is 48 x 2 x 16: a cross",
        ),
        (
            lambda said, weights: (said | {"metadata": {"hook_name": ["blocks.1.hook_resid_post"] * 2}}, weights),
            "a crosscoder, which reads several layers or models at once; give SAEs",
        ),
    ],
    ids=["architecture", "stacked weights", "hook points"],
)
def test_crosscoders_in_an_sae_s_layout_are_refused_by_name(damage, says, tmp_path):
    folder = tiny.save_sae(tmp_path, 1)
    said, weights = damage(json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors"))
    (folder / "cfg.json").write_text(json.dumps(said))
    save_file(weights, folder / "sae_weights.safetensors")
    refused(tmp_path, f"layer 1: {says}")


@pytest.mark.parametrize(
    ("repository", "hook"),
    [
        ("gemma-scope-2b-pt-res", "hook_resid_post"),
        ("gemma-scope-9b-it-mlp", "hook_mlp_out"),
        ("saes", "hook_resid_post"),
    ],
)
def test_a_copy_of_a_gemma_scope_repository_reads_what_its_name_says(repository, hook, tmp_path):
    tiny.save_gemma_scope(tmp_path / repository, (1,))
    assert load(tmp_path / repository)[1].hook_name == f"blocks.1.{hook}"


def test_a_copy_of_gemma_scope_s_transcoders_is_refused(tmp_path):
    tiny.save_gemma_scope(tmp_path / "gemma-scope-2b-pt-transcoders", (1,))
    refused(tmp_path / "gemma-scope-2b-pt-transcoders", "layer 1: .*of Gemma Scope's transcoders; give SAEs that read")


@pytest.mark.thorough
@pytest.mark.parametrize("normalize", ["expected_average_only_in", "covariance_whitening", "none"])
@pytest.mark.parametrize("kind", made.TRAINED)
def test_training_checkpoints_are_read_as_saelens_exports_them(kind, normalize, tmp_path):
    trained = made.train(kind, tmp_path, normalize)
    final, half = tmp_path / "final_2560", next(tmp_path.glob("1*"))
    trained.save_inference_model(tmp_path / "export")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "export")
    coder = load(final)[2]
    assert_same(coder, theirs.encode, theirs.decode)
    assert coder.identity["trained_on"]["architecture"] == kind

    # Half way nothing is folded: the SAE in training reads scaled activations, and what it returns is scaled back.
    coder, training = load(half)[2], sae_lens.TrainingSAE.load_from_disk(half)
    scaler = ActivationScaler()
    scaler.load(half / "activation_scaler.json")
    assert (scaler.scaling_factor is None, scaler.whitening is None) == {
        "none": (True, True),
        "covariance_whitening": (True, False),
        "expected_average_only_in": (False, True),
    }[normalize]
    x = made.residuals(400)
    with torch.no_grad():
        expected = scaler.unscale(training.decode(training.encode(scaler.scale(x))))
        got = coder.sae.decode(coder.sae.encode(x))
    if "batchtopk" not in kind:  # those keep the k largest of a whole batch while they are trained, a threshold after
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    refused(tmp_path, "the names of .*final_2560 give no layer: give one, as --sae FOLDER/final_2560, or name each")


def test_a_checkpoint_without_the_factor_that_belongs_to_it_is_refused(tmp_path):
    made.train("standard", tmp_path)
    half = next(tmp_path.glob("1*"))
    (half / "activation_scaler.json").unlink()
    refused(half, "layer 2: a checkpoint without the activation_scaler.json .*save_inference_model")


def test_an_architecture_of_training_alone_is_refused_with_the_export(tmp_path):
    file = tiny.save_sae(tmp_path, 1) / "cfg.json"
    file.write_text(file.read_text().replace('"jumprelu"', '"batchtopk"'))
    refused(
        tmp_path, "layer 1: architecture batchtopk is of SAEs in training; give what SAELens's save_inference_model"
    )


def test_the_l0_of_archives_without_one_in_their_path_is_unknown(tmp_path):
    folder = tmp_path / "layer_1"
    folder.mkdir()
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tiny.sae_weights(1).items()})
    assert load(tmp_path)[1].identity["published_l0"] is None
