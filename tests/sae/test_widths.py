"""What SAEs say of themselves before their weights are loaded, and the run that is planned from it."""

from __future__ import annotations

import pytest

import tiny
from bluffscope.config import ModelOptions
from bluffscope.config.demo import sae_dir
from bluffscope.config.presets import PRESETS
from bluffscope.errors import InputError
from bluffscope.pipeline.batch_size import plan_run
from bluffscope.sae import find_saes, read_sae_configs


def test_gemma_scope_archives_tell_their_sizes_by_the_header_of_w_enc(tmp_path):
    saes = tiny.save_gemma_scope(tmp_path / "scope", (1, 3), l0=23)
    found = read_sae_configs(find_saes(str(saes), (3, 1)))
    assert list(found) == [3, 1]
    assert found[1] == (tiny.D_MODEL, tiny.D_SAE, "blocks.1.hook_resid_post", 23.0)


def test_the_demos_saes_are_as_its_preset_says():
    demo, found = PRESETS["demo"], read_sae_configs(find_saes(str(sae_dir()), ()))
    assert tuple(found) == demo.layers
    width = demo.architecture.hidden_size
    assert {(sae.d_in, sae.d_sae) for sae in found.values()} == {(width, demo.d_sae)}


def test_a_run_is_planned_on_saes_of_either_layout(tiny_model, tmp_path):
    saes = tiny.save_gemma_scope(tmp_path / "scope", (1,), l0=23)
    (sae,) = (shape := plan_run(ModelOptions(model=str(tiny_model), sae=str(saes), device="cpu")).shape).saes
    assert (shape.blocks, sae.d_in, sae.d_sae, sae.l0) == (2, tiny.D_MODEL, tiny.D_SAE, 23.0)
    demo = plan_run(ModelOptions(device="cpu")).shape
    assert (demo.blocks, [sae.d_sae for sae in demo.saes]) == (1 + max(PRESETS["demo"].layers), [2048] * 3)


def test_an_archive_whose_header_is_none_is_refused_in_one_line(tmp_path):
    file = next(tiny.save_gemma_scope(tmp_path / "scope", (1,)).rglob("params.npz"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"layer 1: the weights file is damaged"):
        read_sae_configs(find_saes(str(tmp_path / "scope"), ()))
