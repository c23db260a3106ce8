"""SAEs in memory: read as from their files, and left as they were."""

from __future__ import annotations

import pytest
import sae_lens
import torch

import made_saes as made
import tiny
from bluffscope.errors import InputError
from bluffscope.sae import find_saes, load_coders
from bluffscope.sae.given import coders_given


def weights(sae):
    """Every parameter as it is."""
    parts = sae.named_parameters()
    return {name: (id(part), part.dtype, part.requires_grad, part.tolist()) for name, part in parts}


@pytest.mark.parametrize("kind", [*made.CLASSES, "batchtopk"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_sae_object_gives_the_features_of_its_files_bit_for_bit_and_stays_as_it_is(kind, dtype, tmp_path):
    folder = made.make(kind, tmp_path)
    sae = sae_lens.SAE.load_from_disk(folder / "layer_0", device="cpu")
    sae.train()
    sae.W_dec.grad = torch.ones_like(sae.W_dec)
    x = torch.randn(made.READS, made.D_IN, dtype=dtype, generator=torch.Generator().manual_seed(1))
    held = weights(sae)
    attributes = sorted(vars(sae))
    ours = coders_given({0: sae}, (), device="cpu", dtype=dtype)[0]
    named = load_coders(find_saes(str(folder), ()), device="cpu", dtype=dtype)[0]
    for found, expected in zip(ours.encode_decode(x), named.encode_decode(x), strict=True):
        if isinstance(found, torch.Tensor):
            assert torch.equal(found, expected)
        else:
            assert torch.equal(found.values, expected.values)
            assert torch.equal(found.indices, expected.indices)
    assert ours.identity["weights"] == named.identity["weights"]
    assert ours.identity["in_memory"] and "folder" not in ours.identity
    assert weights(sae) == held
    assert sorted(vars(sae)) == attributes
    assert sae.training and bool((sae.W_dec.grad == 1).all())
    if dtype is torch.float32 and kind == "jumprelu":
        assert ours.sae.W_dec.data_ptr() == sae.W_dec.data_ptr()  # held once


def test_folders_and_files_may_stand_for_saes(tmp_path):
    saes = tiny.save_saes(tmp_path / "saelens", (0,))
    scope = tiny.save_gemma_scope(tmp_path / "scope", (1,))
    archive = next(scope.rglob("params.npz"))
    given = {0: saes / "layer_0", 1: str(archive), 2: scope / "layer_1"}
    coders = coders_given(given, (2, 0), device="cpu", dtype=torch.float32)
    assert list(coders) == [2, 0]
    assert coders_given(given, (), device="cpu", dtype=torch.float32)[1].hook_name == "blocks.1.hook_resid_post"


def test_an_sae_in_training_and_a_folder_without_one_are_refused(tmp_path):
    config = sae_lens.StandardTrainingSAEConfig(d_in=4, d_sae=8)
    with pytest.raises(InputError, match="a StandardTrainingSAE is in training; give what its save_inference"):
        coders_given({0: sae_lens.StandardTrainingSAE(config)}, (), device="cpu", dtype=torch.float32)
    with pytest.raises(InputError, match="holds no SAE; expected cfg.json"):
        coders_given({0: tmp_path}, (), device="cpu", dtype=torch.float32)
