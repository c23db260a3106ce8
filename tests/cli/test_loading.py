"""Models and SAEs as people have them: eight architectures, both layouts, every hook point, odd paths and dtypes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import measuring
import tiny
from compare import assert_same


def table(folder):
    return pl.read_parquet(folder / "metrics.parquet")


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def analyzed(call, tiny_model, tiny_saes, pairs_file, tmp_path):
    """Run with these in place of the tiny model and SAEs; gives the folder. Nothing but progress may be said."""
    count = iter(range(100))

    def run(*flags: object, model: object = tiny_model, saes: object = tiny_saes, says: str = "Progress: ") -> object:
        out = tmp_path / f"run{next(count)}"
        outcome = call("analyze", "--model", model, "--sae", saes, "--data", pairs_file, "--out", out, *flags)
        assert outcome.code == 0, outcome.err
        assert outcome.err.splitlines()[0].startswith(says), outcome.err
        assert outcome.err.count("\n") == (1 if says == "Progress: " else 2), outcome.err
        return out

    return run


def test_every_architecture_runs_by_folder(analyzed, any_model):
    out = analyzed(model=any_model)
    found = manifest(out)
    assert found["strategy"] == "packed"
    assert found["model"]["architecture"].lower().startswith(any_model.name.replace("_", ""))
    assert found["model"]["layers_loaded"] == 4
    assert table(out).height == 5
    assert table(out)["prompt_read_token"].to_list()[0] == " is"


@pytest.mark.parametrize("point", ["hook_resid_pre", "hook_mlp_out", "hook_attn_out"])
def test_saes_of_every_hook_point_give_the_reference_s_table(analyzed, any_model, tmp_path, point):
    saes = tiny.save_saes(tmp_path / "saes", point=point)
    out = analyzed("--dtype", "float64", model=any_model, saes=saes)
    pairs = measuring.as_pairs(tiny.PAIRS)
    expected = measuring.load_oracle(any_model, saes).rows(pairs)
    assert_same(table(out), expected, "float64")
    assert manifest(out)["saes"]["1"]["hook_name"] == f"blocks.1.{point}"


def test_gemma_scope_s_layout_gives_the_same_table_as_saelens_folders(analyzed, tmp_path):
    scope = tiny.save_gemma_scope(tmp_path / "scope", l0=17)
    saelens, gemma = analyzed(), analyzed(saes=scope)
    assert_frame_equal(table(gemma), table(saelens), check_exact=True)
    said = manifest(gemma)["saes"]["3"]
    assert said["file"].endswith("layer_3/width_16k/average_l0_17/params.npz")
    assert said["published_l0"] == 17
    assert said["weights"] == manifest(saelens)["saes"]["3"]["weights"]


def test_the_canonical_sae_of_a_gemma_scope_folder_is_taken(analyzed, tmp_path):
    scope = tmp_path / "scope"
    for l0, seed in ((18, 5), (90, 0), (309, 6)):
        tiny.save_gemma_scope(tmp_path / f"seed{l0}", (0,), seed=seed, l0=l0)
        shutil.copytree(tmp_path / f"seed{l0}", scope, dirs_exist_ok=True)
    wide = tiny.save_gemma_scope(tmp_path / "wide", (0,), seed=7, l0=100)
    shutil.copytree(wide / "layer_0" / "width_16k", scope / "layer_0" / "width_65k")
    out = analyzed(saes=scope)
    assert manifest(out)["saes"]["0"]["published_l0"] == 90
    assert_frame_equal(table(out), table(analyzed("--layers", 0)), check_exact=True)


def test_layers_are_measured_in_the_order_given_and_no_later_block_is_loaded(analyzed):
    out = analyzed("--layers", 1, 0)
    assert [name for name in table(out).columns if name.endswith("fact_gini")] == ["l1_fact_gini", "l0_fact_gini"]
    assert manifest(out)["model"]["layers_loaded"] == 2
    assert manifest(out)["model"]["layers"] == 4


def test_saes_trained_without_bos_are_fed_none(analyzed, copied, tiny_model, tiny_saes):
    saes = copied(tiny_saes)
    for file in saes.glob("layer_*/cfg.json"):
        file.write_text(file.read_text().replace('"prepend_bos": true', '"prepend_bos": false'))
    out = analyzed("--dtype", "float64", saes=saes)
    oracle = measuring.load_oracle(tiny_model, saes)
    pairs = measuring.as_pairs(tiny.PAIRS)
    assert_same(table(out), oracle.rows(pairs, prepend_bos=False), "float64")
    fed = analyzed("--dtype", "float64")
    assert table(fed)["prompt_tokens"].to_list() == table(out)["prompt_tokens"].to_list()
    error = "l3_fact_reconstruction_error"
    assert table(fed)[error][0] != pytest.approx(table(out)[error][0])


def test_saes_that_disagree_about_bos_are_refused(refused, copied, tiny_saes, tiny_flags):
    saes = copied(tiny_saes)
    file = saes / "layer_1" / "cfg.json"
    file.write_text(file.read_text().replace('"prepend_bos": true', '"prepend_bos": false'))
    says = "some of the SAEs were trained with a BOS and some without"
    refused("analyze", *tiny_flags[:2], "--sae", saes, *tiny_flags[4:], says=says)


def test_a_tokenizer_without_bos_is_warned_of(analyzed, copied, tiny_model):
    model = copied(tiny_model)
    for file in model.glob("*token*"):
        file.unlink()
    tiny.save_tokenizer(model, bos=False)
    said = f"warning: the SAEs were trained with a BOS in front, but {model} has none: none is fed"
    out = analyzed(model=model, says=said)
    (entry,) = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert (entry["level"], entry["message"]) == ("warning", said.removeprefix("warning: "))


def test_an_sae_that_reads_another_block_than_its_folder_says_is_warned_of(analyzed, copied, tiny_saes):
    saes = copied(tiny_saes)
    file = saes / "layer_3" / "cfg.json"
    file.write_text(file.read_text().replace("blocks.3.", "blocks.2."))
    out = analyzed(saes=saes, says="warning: the SAE given for layer 3 reads blocks.2.hook_resid_post")
    assert manifest(out)["model"]["layers_loaded"] == 3


@pytest.mark.parametrize(("dtype", "close"), [("bfloat16", 0.2), ("float16", 0.03), ("float64", 1e-5)])
def test_other_dtypes_run_and_their_residuals_stay_near_float32(analyzed, dtype, close):
    out = analyzed("--dtype", dtype, "--keep-residuals")
    assert manifest(out)["dtype"] == dtype
    assert table(out).height == 5
    ours, exact = residuals(out), residuals(analyzed("--keep-residuals"))
    difference = np.linalg.norm(ours - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < difference.max() < close


def residuals(folder):
    frame = pl.read_parquet(folder / "residuals.parquet").sort("pair_id", "view", "layer")
    return np.array(frame["values"].to_list())


def test_relative_paths_spaces_and_the_home_folder_are_understood(
    analyzed, tiny_model, tiny_saes, tmp_path, monkeypatch
):
    home = tmp_path / "home of mine"
    shutil.copytree(tiny_model, home / "my model")
    shutil.copytree(tiny_saes, home / "my saes")
    expected = table(analyzed())
    for model, saes in [
        (home / "my model", home / "my saes"),
        ("~/my model", "~/my saes"),
        ("../home of mine/my model", "../home of mine/my saes"),
    ]:
        monkeypatch.setenv("HOME", str(home))
        assert_frame_equal(table(analyzed(model=model, saes=saes)), expected, check_exact=True)
    monkeypatch.chdir(home)
    assert_frame_equal(table(analyzed(model="my model", saes="my saes")), expected, check_exact=True)


def test_an_output_folder_in_the_home_folder_is_made_there(call, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert call("analyze", *tiny_flags[:-1], "~/runs/x").code == 0
    assert (tmp_path / "home" / "runs" / "x" / "metrics.parquet").exists()
    assert not (tmp_path / "cwd" / "~").exists()


def test_residuals_are_kept_where_asked_for(analyzed):
    out = analyzed("--keep-residuals")
    residuals = pl.read_parquet(out / "residuals.parquet")
    assert residuals.height == 5 * 3 * 3
    assert set(residuals["values"].list.len()) == {16}
