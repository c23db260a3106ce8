"""One SAE for every layer, out of folders of either layout and SAELens's releases."""

from __future__ import annotations

import logging
import re
import sys

import numpy as np
import pytest

import tiny
from bluffscope.errors import InputError
from bluffscope.sae.find import find_saes, registry
from bluffscope.sae.layouts import CANONICAL_L0


def scope(folder, *paths):
    for path in paths:
        (folder / path).mkdir(parents=True)
        np.savez(folder / path / "params.npz", a=np.zeros(1))
    return folder


def test_all_layers_of_a_folder_are_taken_in_order_unless_some_are_named(tmp_path):
    tiny.save_saes(tmp_path, (10, 2, 1))
    (tmp_path / "layer_x").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert find_saes(str(tmp_path), ()).layers == (1, 2, 10)
    found = find_saes(str(tmp_path), (10, 1))
    assert found.layers == (10, 1)
    assert found.places == {10: tmp_path / "layer_10", 1: tmp_path / "layer_1"}


def test_both_layouts_can_stand_side_by_side(tmp_path):
    tiny.save_sae(tmp_path, 0)
    scope(tmp_path, "layer_1/width_16k/average_l0_80")
    found = find_saes(str(tmp_path), ())
    archive = tmp_path / "layer_1" / "width_16k" / "average_l0_80" / "params.npz"
    assert found.places == {0: tmp_path / "layer_0", 1: archive}


@pytest.mark.parametrize(
    ("paths", "taken"),
    [
        (["width_16k/average_l0_20", "width_16k/average_l0_90", "width_16k/average_l0_300"], 1),
        (["width_65k/average_l0_100", "width_16k/average_l0_5"], 1),
        (["width_1m/average_l0_100", "width_65k/average_l0_5", "width_131k/average_l0_99"], 1),
        (["width_16k/average_l0_99", "width_16k/other", "width_16k/average_l0_100/deeper"], 0),
    ],
)
def test_of_several_gemma_scope_saes_the_16k_one_nearest_to_the_canonical_l0_is_taken(tmp_path, paths, taken):
    scope(tmp_path / "layer_3", *paths)
    found = find_saes(str(tmp_path), ()).places[3]
    assert found == tmp_path / "layer_3" / paths[taken] / "params.npz"


@pytest.mark.parametrize("model", ["2b", "9b"])
def test_the_canonical_choice_is_the_one_that_saelens_s_table_makes(model):
    every = registry()[f"gemma-scope-{model}-pt-res"].saes_map.values()
    checked = 0
    for name, path in registry()[f"gemma-scope-{model}-pt-res-canonical"].saes_map.items():
        family, l0 = re.fullmatch(r"(.*/average_l0_)(\d+)", path).groups()
        others = [int(other.removeprefix(family)) for other in every if other.startswith(family)]
        assert int(l0) == min(others, key=lambda other: abs(other - CANONICAL_L0)), name
        checked += len(others) > 1
    assert checked > 20


def test_a_gemma_scope_release_needs_no_more_than_its_layers():
    found = find_saes("gemma-scope-2b-pt-res-canonical", (20, 5))
    assert found.places == {20: "layer_20/width_16k/canonical", 5: "layer_5/width_16k/canonical"}
    assert (found.release, found.repository) == ("gemma-scope-2b-pt-res-canonical", "google/gemma-scope-2b-pt-res")


@pytest.mark.parametrize(
    ("spec", "layer", "sae_id"),
    [
        ("gemma-scope-2b-pt-res-canonical:layer_{layer}/width_65k/canonical", 12, "layer_12/width_65k/canonical"),
        ("gpt2-small-res-jb", 7, "blocks.7.hook_resid_pre"),
        ("gpt2-small-res-jb:blocks.{layer}.hook_resid_pre", 1, "blocks.1.hook_resid_pre"),
        ("llama_scope_lxr_8x", 3, "l3r_8x"),
        ("llama_scope_lxr_8x", 13, "l13r_8x"),
        ("someone/some-saes:run/layer_{layer}", 4, "run/layer_4"),
    ],
)
def test_the_id_of_a_layer_is_found_in_releases_of_many_namings(spec, layer, sae_id):
    assert find_saes(spec, (layer,)).places == {layer: sae_id}


def test_layers_left_out_for_a_fault_are_named(tmp_path, caplog):
    tiny.save_saes(tmp_path, (0, 1))
    (tmp_path / "layer_0" / "cfg.json").unlink()
    with caplog.at_level(logging.WARNING, "bluffscope"):
        assert find_saes(str(tmp_path), ()).layers == (1,)
    assert caplog.messages == [f"--sae {tmp_path}: left out: layer_0 has no cfg.json; copy it there"]
    with pytest.raises(InputError, match=r"layer_0 has no cfg\.json"):
        find_saes(str(tmp_path), (0, 1))


def test_finding_saes_in_a_folder_imports_no_saelens(tmp_path, monkeypatch):
    tiny.save_saes(tmp_path)
    monkeypatch.setitem(sys.modules, "sae_lens", None)  # an import would raise
    assert find_saes(str(tmp_path), (1,)).layers == (1,)


@pytest.mark.parametrize("spec", ["o/saes:../../elsewhere", "o/saes:/etc/x", "o/saes@../../x:a", "o/saes:a/../b"])
def test_an_id_or_a_revision_that_leads_out_of_the_repository_is_refused(spec):
    with pytest.raises(InputError, match=r"names inside the release, without \.\. or a / in front"):
        find_saes(spec, (1,))
