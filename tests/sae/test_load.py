"""SAEs as SAELens itself loads them, with what the manifest says of them."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from sae_lens import SAE

import tiny
from bluffscope.errors import InputError
from bluffscope.sae import find_saes, formats, load_coders
from bluffscope.sae import load as loading

X = torch.randn(7, tiny.D_MODEL, generator=torch.Generator().manual_seed(3))


def coders(folder, layers=(), dtype=torch.float32):
    return load_coders(find_saes(str(folder), layers), device="cpu", dtype=dtype)


def test_a_folder_gives_what_saelens_loads(tiny_saes):
    found = coders(tiny_saes)
    assert list(found) == [0, 1, 3]
    for layer, coder in found.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sae = SAE.load_from_disk(tiny_saes / f"layer_{layer}")
        assert torch.equal(coder.sae.encode(X), sae.encode(X))
        assert (coder.layer, coder.hook_name, coder.prepend_bos) == (layer, f"blocks.{layer}.hook_resid_post", True)
        assert (coder.d_in, coder.d_sae) == (tiny.D_MODEL, tiny.D_SAE)
        assert coder.identity["folder"] == str(tiny_saes / f"layer_{layer}")
        assert not any(parameter.requires_grad for parameter in coder.sae.parameters())


def test_an_archive_is_encoded_by_gemma_scope_s_formula(tmp_path):
    tiny.save_gemma_scope(tmp_path, (1,), l0=23)
    coder = coders(tmp_path, dtype=torch.float64)[1]
    weights = {name: tensor.double() for name, tensor in tiny.sae_weights(1).items()}
    pre = X.double() @ weights["W_enc"] + weights["b_enc"]
    expected = pre.relu() * (pre > weights["threshold"])
    torch.testing.assert_close(coder.sae.encode(X.double()), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(coder.sae.decode(expected), expected @ weights["W_dec"] + weights["b_dec"])
    assert coder.sae.W_dec.dtype == torch.float64
    assert coder.identity["published_l0"] == 23
    assert coder.identity["architecture"] == "jumprelu"


def test_saes_keep_the_order_of_the_layers_asked_for(tiny_saes):
    assert list(coders(tiny_saes, (3, 0))) == [3, 0]


@pytest.mark.parametrize(("said", "fed"), [(True, True), (False, False), (None, True)])
def test_bos_is_fed_unless_the_metadata_says_no(tmp_path, said, fed):
    file = tiny.save_sae(tmp_path, 0) / "cfg.json"
    config = json.loads(file.read_text())
    config["metadata"]["prepend_bos"] = said
    if said is None:
        del config["metadata"]["prepend_bos"]
    file.write_text(json.dumps(config))
    assert coders(tmp_path)[0].prepend_bos is fed


def test_a_config_of_saelens_before_version_6_is_read(tmp_path):
    file = tiny.save_sae(tmp_path, 0) / "cfg.json"
    old = {
        "architecture": "jumprelu",
        "d_in": 16,
        "d_sae": 48,
        "hook_point": "blocks.0.hook_resid_post",
        "apply_b_dec_to_input": False,
        "prepend_bos": False,
        "dtype": "float32",
        "normalize_activations": False,
    }
    before = coders(tmp_path)[0].sae.encode(X)
    file.write_text(json.dumps(old))
    coder = coders(tmp_path)[0]
    assert (coder.hook_name, coder.prepend_bos) == ("blocks.0.hook_resid_post", False)
    assert torch.equal(coder.sae.encode(X), before)


def trained_with(folder, **options):
    file = tiny.save_sae(folder, 0) / "cfg.json"
    config = json.loads(file.read_text())
    config["metadata"]["model_from_pretrained_kwargs"] = options
    file.write_text(json.dumps(config))
    return coders(folder)[0]


def test_centred_writing_weights_are_asked_for_and_what_changes_nothing_is_not(tmp_path):
    coder = trained_with(tmp_path, center_writing_weights=True, fold_ln=True, center_unembed=True, dtype="float32")
    assert coder.centred
    assert coder.identity["trained_on"]["processing"] == {"center_writing_weights": True}
    assert not trained_with(tmp_path / "without", center_writing_weights=False, fold_ln=False).centred


def test_a_model_that_was_changed_otherwise_for_training_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"layer 0: .*checkpoint_index=3, which cannot be applied here; give SAEs"):
        trained_with(tmp_path, checkpoint_index=3)


def test_how_the_model_was_processed_is_an_object_or_the_sae_is_refused(tmp_path):
    file = tiny.save_sae(tmp_path, 0) / "cfg.json"
    config = json.loads(file.read_text())
    config["metadata"]["model_from_pretrained_kwargs"] = ["fold_ln"]
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match="layer 0: model_from_pretrained_kwargs is not an object; copy or save the SA"):
        coders(tmp_path)


def test_while_saelens_loads_a_release_no_pickle_is_opened(tmp_path):
    before = torch.load
    refused = pytest.raises(InputError, match="^--sae old:0: its weights are a pickle, which can run code")
    with refused, loading.no_pickle("--sae old:0"):
        torch.load(tmp_path / "sae.pt")
    assert torch.load is before


def test_an_sae_that_memory_cannot_hold_is_said_to_be_so(tiny_saes, monkeypatch):
    def too_much(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(formats, "read_plain", too_much)
    with pytest.raises(InputError, match="layer 0: it needs more memory than is available; use a narrower"):
        coders(tiny_saes)


def test_a_published_l0_is_taken_from_metadata_release_or_path():
    path = {"path": "layer_12/width_16k/average_l0_82"}
    assert loading._published_l0({"l0": 70}, path) == 70
    assert loading._published_l0({}, path | {"published_l0": 75}) == 75
    assert loading._published_l0({}, path) == 82
    assert loading._published_l0({}, {"path": "x"}) is None
    assert loading.registered_l0("no/such", "x") is None
    assert loading.registered_l0("gemma-scope-2b-pt-res-canonical", "no such") is None


def test_the_registry_s_words_are_put_beside_a_release_s_sae():
    sae_id = "layer_12/width_16k/canonical"
    source = find_saes(f"gemma-scope-2b-pt-res-canonical:{sae_id}", (12,))
    assert loading._registered(source, sae_id) == {
        "release": "gemma-scope-2b-pt-res-canonical",
        "id": sae_id,
        "repository": "google/gemma-scope-2b-pt-res",
        "path": "layer_12/width_16k/average_l0_82",
        "published_l0": 82.0,
        "revision": None,
    }
    unknown = loading._registered(find_saes("someone/saes@v1:x", (0,)), "x")
    assert unknown == {
        "release": "someone/saes",
        "id": "x",
        "repository": "someone/saes",
        "path": "x",
        "published_l0": None,
        "revision": None,
    }


def test_two_saes_with_other_weights_have_other_digests(tmp_path):
    one = coders(tiny.save_saes(tmp_path / "one", (0,)))[0]
    same = coders(tiny.save_gemma_scope(tmp_path / "same", (0,)))[0]
    other = coders(tiny.save_saes(tmp_path / "other", (0,), seed=1))[0]
    assert one.identity["weights"] == same.identity["weights"] != other.identity["weights"]


def test_a_file_that_cannot_be_read_is_named(tiny_saes, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", "sae_weights.safetensors")

    monkeypatch.setattr(formats, "read_plain", refuse)
    with pytest.raises(InputError, match=r"layer 0: cannot be read \(.*Permission denied"):
        coders(tiny_saes)
