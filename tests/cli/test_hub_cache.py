"""The gemma-2-2b preset by its real names, out of a populated Hugging Face cache and without a network."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

import hub_cache
import tiny
from hub_cache import GEMMA_2_2B, GEMMA_SCOPE_2B

LAYERS = (5, 12, 20)
NARROW = ("--allow-unsound", "--full", "--no-logprob", "--no-keep-residuals")
PUBLISHED_L0 = {"5": 68, "12": 82, "20": 71}
ARCHIVE = "layer_12/width_16k/average_l0_82/params.npz"
SHARD = "model-00002-of-00005.safetensors"

# The hub's constants are read at import, so the runs have a process of their own; each has a file out of the way.
SCRIPT = """
import contextlib, io, json, pathlib, sys, bluffscope.api.closing
from bluffscope.cli.main import main
bluffscope.api.closing._report = lambda *_: None
for file, name, arguments in json.loads(sys.argv[1]):
    away = pathlib.Path(file).rename(pathlib.Path(file).with_name(name)) if file else None
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    if away:
        away.rename(file)
    print(json.dumps([code, out.getvalue(), err.getvalue(), "sae_lens" in sys.modules]), flush=True)
"""

PROBLEM = (
    "not (wholly) in the Hugging Face cache, while HF_HUB_OFFLINE forbids downloading it; unset that, or give a folder"
)
MISSING = {
    "config.json": (GEMMA_2_2B, f"--model {GEMMA_2_2B}: no such folder here, and"),
    "tokenizer.json": (GEMMA_2_2B, f"--model {GEMMA_2_2B}: no such folder here, and"),
    "model.safetensors.index.json": (GEMMA_2_2B, f"--model {GEMMA_2_2B}: no such folder here, and"),
    SHARD: (GEMMA_2_2B, f"--model {GEMMA_2_2B}: no such folder here, and"),
    ARCHIVE: (GEMMA_SCOPE_2B, "--sae gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16k/canonical, layer 12:"),
}
DANGLING = ("config.json", "tokenizer.json", SHARD, ARCHIVE)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache that holds the preset's two repositories."""
    return tmp_path_factory.mktemp("hub") / "home"


@pytest.fixture(scope="module")
def commits(home):
    return hub_cache.add_gemma_2_2b(home, home.parent / "scratch", LAYERS)


@pytest.fixture(scope="module")
def outcomes(home, commits):
    """Exit code, stdout and stderr of every run, by name; one process for all."""
    data = ["--data", str(tiny.write_pairs(home.parent / "pairs.jsonl", tiny.PAIRS))]
    model, scope = (str(hub_cache.snapshot(home, name)) for name in (GEMMA_2_2B, GEMMA_SCOPE_2B))
    sources = {
        "preset": ["--preset", "gemma-2-2b"],
        "commit": ["--preset", "gemma-2-2b", "--revision", commits[GEMMA_2_2B], "--layers", "12"],
        "folders": ["--model", model, "--sae", scope],
        "other revision": ["--preset", "gemma-2-2b", "--revision", "0" * 40],
    }
    runs = {name: ("", "", flags) for name, flags in sources.items()}
    one_layer = ["--preset", "gemma-2-2b", "--layers", "12"]
    for file, (repository, _) in MISSING.items():
        runs[file] = (str(hub_cache.snapshot(home, repository) / file), "away", one_layer)
    for file in DANGLING:
        link = hub_cache.snapshot(home, MISSING[file][0]) / file
        runs[f"{file} dangling"] = (str(link.resolve()), "away", one_layer)
    runs["pickle"] = (f"{model}/model.safetensors.index.json", "pytorch_model.bin", one_layer)
    given = [
        (
            file,
            away,
            ["analyze", *flags, *data, *NARROW, "--out", str(home.parent / name.replace("/", "-"))],
        )
        for name, (file, away, flags) in runs.items()
    ]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=240,
        env=hub_cache.offline(home),
        cwd=home.parent,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return dict(zip(runs, map(json.loads, process.stdout.splitlines()), strict=True))


@pytest.fixture
def manifest(outcomes, home):
    return json.loads((home.parent / "preset" / "manifest.json").read_text())


def test_the_preset_runs_from_the_cache_and_says_nothing_of_a_network(outcomes, home):
    code, out, err, saelens = outcomes["preset"]
    assert not saelens, "Gemma Scope is read without SAELens"
    assert code == 0, err
    assert out.startswith("Summary of 5 pairs")
    assert err.startswith("Progress: ")
    assert len(err.splitlines()) == 1, err
    table = pl.read_parquet(home.parent / "preset" / "metrics.parquet")
    assert table["pair_id"].to_list() == [pair["id"] for pair in tiny.PAIRS]
    for layer in LAYERS:
        assert table[f"l{layer}_fact_l0_norm"].min() > 4
        assert table[f"l{layer}_fact_l0_norm"].max() <= hub_cache.ACTIVE


def test_the_manifest_names_model_and_saes_by_commit_release_id_and_published_l0(manifest, commits):
    model = manifest["model"]
    assert (model["name"], model["revision"]) == (GEMMA_2_2B, commits[GEMMA_2_2B])
    assert (model["layers"], model["layers_loaded"], model["d_model"]) == (26, 21, 2304)
    assert list(manifest["saes"]) == ["5", "12", "20"]
    for layer, sae in manifest["saes"].items():
        assert sae["release"] == "gemma-scope-2b-pt-res-canonical"
        assert sae["id"] == f"layer_{layer}/width_16k/canonical"
        assert sae["repository"] == GEMMA_SCOPE_2B
        assert sae["path"] == f"layer_{layer}/width_16k/average_l0_{PUBLISHED_L0[layer]}"
        assert sae["revision"] == commits[GEMMA_SCOPE_2B]
        assert sae["published_l0"] == PUBLISHED_L0[layer]
        assert sae["neuronpedia_id"] == f"gemma-2-2b/{layer}-gemmascope-res-16k"
        assert sae["hook_name"] == f"blocks.{layer}.hook_resid_post"
        assert (sae["architecture"], sae["d_in"], sae["d_sae"]) == ("jumprelu", 2304, 16384)
    assert len({sae["weights"] for sae in manifest["saes"].values()}) == 3


def test_a_release_gives_the_table_that_its_files_give_as_a_folder(outcomes, home):
    assert outcomes["folders"][0] == 0, outcomes["folders"]
    preset, folders = (pl.read_parquet(home.parent / run / "metrics.parquet") for run in ("preset", "folders"))
    assert_frame_equal(preset, folders, check_exact=True)


def test_a_commit_in_the_cache_can_be_asked_for_and_no_other(outcomes, home, commits):
    assert outcomes["commit"][0] == 0, outcomes["commit"]
    model = json.loads((home.parent / "commit" / "manifest.json").read_text())["model"]
    assert (model["revision"], model["layers_loaded"]) == (commits[GEMMA_2_2B], 13)
    code, out, err, _ = outcomes["other revision"]
    assert (code, out) == (2, "")
    assert err == f"bluffscope analyze: --model {GEMMA_2_2B}: no such folder here, and {PROBLEM}\n"


@pytest.mark.parametrize("file", MISSING)
def test_a_file_that_the_cache_lacks_is_one_clear_line(outcomes, home, file):
    code, out, err, _ = outcomes[file]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"bluffscope analyze: {MISSING[file][1]}")
    assert line.endswith(PROBLEM)
    assert not (home.parent / file.replace("/", "-")).exists()


@pytest.mark.parametrize("file", DANGLING)
def test_a_link_in_the_cache_whose_blob_is_gone_is_named_with_its_folder(outcomes, home, file):
    code, out, err, _ = outcomes[f"{file} dangling"]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    repository, begins = MISSING[file]
    link = hub_cache.snapshot(home, repository) / file
    assert line.startswith(f"bluffscope analyze: {begins.removesuffix(' no such folder here, and')}")
    assert f"{link.name} in {link.parent} is a link to a file that is gone (" in line
    assert line.endswith("remove the link and download it again, or copy the file there")


def test_a_cache_that_holds_the_weights_as_a_pickle_alone_is_refused_as_such(outcomes):
    code, out, err, _ = outcomes["pickle"]
    assert (code, out) == (2, "")
    assert f"--model {GEMMA_2_2B}: it has no safetensors weights, and pickles are refused; convert it" in err


def test_an_index_in_the_cache_that_names_a_pickle_is_refused(tmp_path, tiny_saes, pairs_file):
    folder = tiny.save_model(tmp_path / "made", "gemma2")
    names = dict.fromkeys(load_file(folder / "model.safetensors"), "weights.dat")
    (folder / "model.safetensors").rename(folder / "weights.dat")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    hub_cache.add_repository(tmp_path / "home", "somebody/model", folder)
    flags = ["--sae", str(tiny_saes), "--data", str(pairs_file), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "bluffscope", "analyze", "--model", "somebody/model", *flags]
    env = hub_cache.offline(tmp_path / "home")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "model.safetensors.index.json names 'weights.dat' as weights" in done.stderr
    assert not (tmp_path / "run").exists()
