"""SAEs that cannot be loaded or do not fit the model: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tiny
from bluffscope.errors import InputError
from bluffscope.sae.load import no_pickle


@pytest.fixture
def saes_refused(refused, tiny_model, pairs_file, tmp_path):
    """Run with these SAEs; they must be refused with these words."""

    def check(saes: object, *says: str, flags: tuple[object, ...] = ()) -> str:
        command = ["analyze", "--model", tiny_model, "--data", pairs_file, "--out", tmp_path / "run"]
        return refused(*command, "--sae", saes, *flags, says=("--sae", *says))

    return check


@pytest.fixture
def saes(copied, tiny_saes):
    """A copy, to be damaged."""
    return copied(tiny_saes)


def configure(saes, **changes):
    file = saes / "layer_0" / "cfg.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def metadata(**changes):
    found = {"sae_lens_version": "6.54.0", "hook_name": "blocks.0.hook_resid_post", "prepend_bos": True} | changes
    return {key: value for key, value in found.items() if value is not None}


def test_a_layer_that_the_folder_lacks_is_refused(saes_refused, tiny_saes):
    saes_refused(tiny_saes, "no SAE for layer 2; the folder has layers 0 1 3", flags=("--layers", 2))


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
def test_a_file_of_which_only_the_link_is_left_is_named_with_its_folder(saes_refused, saes, file):
    (saes / "layer_0" / file).unlink()
    (saes / "layer_0" / file).symlink_to("../blobs/gone")
    says = f"{file} in {saes}/layer_0 is a link to a file that is gone (../blobs/gone); remove the link and download it"
    saes_refused(saes, says, flags=("--layers", 0))


@pytest.mark.parametrize("width", [24, 8])
def test_saes_of_another_width_are_refused(saes_refused, tmp_path, width):
    saes = tiny.save_saes(tmp_path / "other", (0, 1), d_in=width)
    saes_refused(saes, f"layer 0: it reads {width} dimensions", "has 16; give SAEs that were trained on this model")


@pytest.mark.parametrize("point", ["attn.hook_q", "mlp.hook_post", "ln2.hook_normalized", "hook_embed"])
def test_saes_of_a_hook_point_that_is_not_read_are_refused(saes_refused, tmp_path, point):
    saes = tiny.save_saes(tmp_path / "other", (0, 1), point=point)
    saes_refused(saes, "layer 0", f"blocks.0.{point}", "choose a residual-stream SAE")


def test_transcoders_are_refused_even_where_they_read_the_residual_stream(saes_refused, saes):
    configure(saes, metadata=metadata(hook_name_out="blocks.0.hook_mlp_out"))
    saes_refused(saes, "layer 0: a transcoder, which reconstructs blocks.0.hook_mlp_out")
    configure(saes, metadata=metadata(), architecture="jumprelu_transcoder", d_out=16)
    saes_refused(saes, "layer 0: a transcoder")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a":\n ', "cfg.json is not valid JSON (line 2); save the SAE again"),
        (b"", "cfg.json is not valid JSON"),
        (b"[]", "cfg.json or its metadata is not a JSON object"),
        (b"{}", "missing 2 required positional arguments: 'd_in' and 'd_sae'"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_a_cfg_that_is_none_is_refused(saes_refused, saes, text, says):
    (saes / "layer_0" / "cfg.json").write_bytes(text)
    saes_refused(saes, "layer 0", says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metadata": None}, "names no hook_name; add the one it was trained on to cfg.json"),
        ({"metadata": metadata(hook_name=None)}, 'such as "blocks.0.hook_resid_post"'),
        ({"metadata": metadata(hook_name=3)}, "names no hook_name"),
        ({"metadata": "none"}, "its metadata is not a JSON object"),
        ({"architecture": "spiking"}, "unknown architecture 'spiking'"),
        ({"d_sae": 50}, "size mismatch"),
        ({"d_sae": 10**13}, "size mismatch"),
        ({"d_sae": -4}, "negative dimension"),
        ({"d_in": "x"}, "not an SAE that this SAELens can load"),
        ({"d_in": None}, "missing 1 required positional argument: 'd_in'"),
    ],
    ids=str,
)
def test_a_cfg_that_does_not_describe_the_sae_is_refused(saes_refused, saes, changes, says):
    configure(saes, **changes)
    saes_refused(saes, "layer 0", says)


HUGE = json.dumps({"W_enc": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: struct.pack("<Q", 2**62) + data[8:],
        lambda data: struct.pack("<Q", len(HUGE)) + HUGE,
    ],
    ids=["truncated", "empty", "header of exabytes", "tensor of exabytes"],
)
def test_damaged_weights_are_refused(saes_refused, saes, damage):
    file = saes / "layer_0" / "sae_weights.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    saes_refused(saes, "layer 0: the weights file is damaged", "copy or save it again")


def test_weights_that_are_missing_or_not_finite_are_refused(saes_refused, saes):
    weights = tiny.sae_weights(0)
    broken = weights | {"W_enc": weights["W_enc"].masked_fill(torch.eye(16, 48, dtype=torch.bool), float("nan"))}
    save_file(broken, saes / "layer_0" / "sae_weights.safetensors")
    saes_refused(saes, "layer 0: W_enc holds values that are not finite")
    del weights["threshold"]
    save_file(weights, saes / "layer_0" / "sae_weights.safetensors")
    saes_refused(saes, "layer 0", 'Missing key(s) in state_dict: "threshold"')


def test_a_feature_switched_off_by_an_infinite_threshold_is_no_fault(call, saes, tiny_flags):
    weights = tiny.sae_weights(0)
    weights["threshold"][3] = float("inf")
    save_file(weights, saes / "layer_0" / "sae_weights.safetensors")
    assert call("analyze", *tiny_flags[:2], "--sae", saes, *tiny_flags[4:]).code == 0


def test_pickled_saes_are_refused_with_the_conversion(saes_refused, saes, tmp_path):
    layer = saes / "layer_1"
    (layer / "sae_weights.safetensors").rename(layer / "sae_weights.pt")
    saes_refused(
        saes, "layer_1/sae_weights.pt is a pickle, which can run code", "save_model(DIR)", flags=("--layers", 1)
    )
    (tmp_path / "pickled" / "layer_0").mkdir(parents=True)
    (tmp_path / "pickled" / "layer_0" / "ae.pt").write_bytes(pickle.dumps({}))
    saes_refused(tmp_path / "pickled", "layer_0/ae.pt is a pickle", "refused; convert it where you trust it")


def test_an_incomplete_layer_is_refused_where_it_is_asked_for_and_else_left_out_aloud(
    call, saes_refused, saes, tiny_flags
):
    (saes / "layer_0" / "sae_weights.safetensors").unlink()
    saes_refused(saes, "layer_0 has no sae_weights.safetensors; copy it there", flags=("--layers", 0, 1))
    outcome = call("analyze", *tiny_flags[:2], "--sae", saes, *tiny_flags[4:])
    assert outcome.code == 0
    assert outcome.err.splitlines()[0] == (
        f"warning: --sae {saes}: left out: layer_0 has no sae_weights.safetensors; copy it there"
    )


@pytest.mark.parametrize("number", ["9" * 50, "\u0663", "12345"])
def test_a_folder_whose_number_no_layer_has_holds_no_sae(saes_refused, saes, number):
    for layer in (0, 1):
        shutil.rmtree(saes / f"layer_{layer}")
    (saes / "layer_3").rename(saes / f"layer_{number}")
    saes_refused(saes, f"no SAE in this folder; the names of layer_{number} give no layer: give one, as --sae FOLDER")


def test_folders_without_saes_are_refused(saes_refused, tmp_path, saes, pairs_file):
    (tmp_path / "empty").mkdir()
    saes_refused(tmp_path / "empty", "no SAE in this folder; expected layer_K/ with cfg.json")
    (tmp_path / "empty" / "layer_3").mkdir()
    saes_refused(tmp_path / "empty", "layer_3 holds no SAE; expected cfg.json")
    saes_refused(pairs_file, "no such folder")
    saes_refused("./nowhere", "no such folder; give a folder that holds layer_K/ or a SAELens release")


@pytest.mark.parametrize(
    ("spec", "flags", "says"),
    [
        ("gemma-scope-2b-pt-res-canonical", (), "say which layers, as --layers 5 12 20"),
        ("no-such-release", (0,), "neither a folder nor a SAELens release"),
        ("some/repository", (0,), "ORGANISATION/NAME:ID"),
        (":layer_{layer}", (0,), "it names no release"),
        ("gemma-scope-2b-pt-res-canonical", (77,), "no SAE for layer 77; its SAEs are layer_0/width_16k/canonical, "),
        ("gemma-scope-2b-pt-res", (5,), "several SAEs for layer 5: layer_5/width_16k/average_l0_143"),
        (
            "gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16/canonical",
            (5,),
            "no SAE layer_5/width_16/canonical; there are layer_5/width_16k/canonical",
        ),
        ("gemma-scope-2b-pt-res-canonical:{", (5,), "it has no SAE {; there are layer_0/width_16k/canonical"),
        ("some/repository:layer_{layer}", (0,), "layer 0: no such folder here, and not (wholly) in the Hugging Face"),
        ("gemma-scope-2b-pt-res-canonical", (5,), "while HF_HUB_OFFLINE forbids downloading it"),
    ],
    ids=str,
)
def test_releases_that_do_not_exist_fit_or_come_are_refused(saes_refused, spec, flags, says):
    saes_refused(spec, says, flags=("--layers", *flags) if flags else ())


# --- Gemma Scope's layout ------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    """The params.npz of layer 0 of a Gemma Scope folder, to be damaged."""
    tiny.save_gemma_scope(tmp_path / "scope", (0, 1))
    return tmp_path / "scope" / "layer_0" / "width_16k" / "average_l0_16" / "params.npz"


def arrays(**changes):
    found = {name: tensor.numpy() for name, tensor in tiny.sae_weights(0).items()} | changes
    return {name: array for name, array in found.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threshold": None}, "params.npz has no array threshold; expected W_enc, W_dec, b_enc, b_dec, threshold"),
        ({"threshold": np.array([{}], dtype=object)}, "threshold is a pickle, which can run code when opened"),
        ({"threshold": np.array(["a"] * 48)}, "threshold is 1-dimensional <U1; expected floating point numbers"),
        ({"b_enc": np.zeros(48, complex)}, "b_enc is 1-dimensional complex128"),
        ({"W_enc": np.zeros(3)}, "W_enc is 1-dimensional"),
        ({"W_dec": np.zeros((3, 4))}, "W_dec has shape (3, 4), which does not go with W_enc's 16 x 48"),
        ({"b_dec": np.full(16, np.nan, np.float32)}, "b_dec holds values that are not finite"),
        ({"scaling_factor": np.full(48, 2.0)}, "params.npz has an array scaling_factor, which is not applied here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_archive_with_the_wrong_arrays_is_refused(saes_refused, archive, tmp_path, changes, says):
    np.savez(archive, **arrays(**changes))
    saes_refused(tmp_path / "scope", "layer 0", says)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-300],
        lambda data: data[:300] + b"x" * 50 + data[350:],
        lambda data: b"",
        lambda data: b"PK",
        lambda data: pickle.dumps({}),
    ],
    ids=["truncated", "flipped bits", "empty", "garbage", "pickle"],
)
def test_a_damaged_archive_is_refused(saes_refused, archive, tmp_path, damage):
    archive.write_bytes(damage(archive.read_bytes()))
    saes_refused(tmp_path / "scope", "layer 0: the weights file is damaged", "copy or save it again")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((10**7, 10**7), "the weights file is damaged"),
        ((10**12, 10**12), "the weights file is damaged"),
        ((40_000, 40_000), "the weights file is damaged"),
        ((-1, 4), "the weights file is damaged"),
    ],
    ids=str,
)
def test_an_archive_that_claims_more_than_it_holds_is_refused(saes_refused, archive, tmp_path, shape, says):
    np.savez(archive, **arrays(W_enc=None))
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("W_enc.npy", member.getvalue())
    saes_refused(tmp_path / "scope", "layer 0", says)


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused_unread(saes_refused, archive, tmp_path):
    bomb = {"W_enc": np.zeros((2304, 16_384), np.float32), "W_dec": np.zeros((16_384, 2304), np.float32)}
    vectors = {name: np.zeros(16_384, np.float32) for name in ("b_enc", "threshold")}
    np.savez_compressed(archive, **bomb, **vectors, b_dec=np.zeros(2304, np.float32))
    assert archive.stat().st_size < 1 << 20
    saes_refused(tmp_path / "scope", "layer 0", "would unpack to 0.2 GB from 0.3 MB")


def test_a_release_whose_weights_are_a_pickle_is_refused_with_the_conversion_to_run(tmp_path):
    torch.save({"W": torch.zeros(1)}, tmp_path / "ae.pt")
    before = torch.load
    with pytest.raises(InputError, match="its weights are a pickle.*save_model"), no_pickle("--sae old-release:ae"):
        torch.load(tmp_path / "ae.pt")
    assert torch.load is before
