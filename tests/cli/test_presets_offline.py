"""Every preset by its real names out of a populated cache: it runs, and measures what others measure by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hub_cache
import preset_cache
import tiny
from bluffscope.config.presets import PRESETS
from bluffscope.model import HookPoint
from bluffscope.sae.find import registry

NAMES = [name for name, preset in PRESETS.items() if preset.sae not in ("none", preset.model)]
"""Those whose SAEs are a release on the hub."""
LIMIT = 3
VIEWS = ("prompt", "fact", "hall")
CENTRES = "centred" in {field.name for field in fields(HookPoint)}
"""Whether what SAEs read is centred where they ask for centred writing weights; else a warning says that it is not."""

# The hub's constants are read at import, so the runs have a process of their own.
SCRIPT = """
import contextlib, io, json, sys, bluffscope.api.closing
from bluffscope.cli.main import main
bluffscope.api.closing._report = lambda *_: None
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def python(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env=hub_cache.offline(home),
        cwd=home.parent,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("presets") / "home"


@pytest.fixture(scope="module")
def commits(home):
    """A cache that holds every preset; the commit of every repository."""
    found = {}
    for name in NAMES:
        found |= preset_cache.add_preset(home, home.parent / "scratch", name)
    return found


@pytest.fixture(scope="module")
def outcomes(home, commits):
    """Exit code, stdout and stderr of each preset's run; one process for all."""
    data = [
        "--data",
        str(tiny.write_pairs(home.parent / "pairs.jsonl", tiny.PAIRS)),
        "--limit",
        str(LIMIT),
        "--allow-unsound",
        "--full",
        "--no-logprob",
    ]
    runs = [
        ["analyze", "--preset", name, *data, "--keep-residuals", "--out", str(home.parent / name)] for name in NAMES
    ]
    lines = python(["-c", SCRIPT, json.dumps(runs)], home).stdout.splitlines()
    return dict(zip(NAMES, map(json.loads, lines), strict=True))


@pytest.fixture(scope="module")
def oracle(home, commits):
    """Residuals and features by hand."""
    pairs = tiny.PAIRS[:LIMIT]
    texts = [
        text
        for pair in pairs
        for text in (
            pair["prompt"],
            f"{pair['prompt']} {pair['fact']}",
            f"{pair['prompt']} {pair['hallucination']}",
        )
    ]
    jobs = {}
    for name in NAMES:
        preset = PRESETS[name]
        release, _, template = preset.sae.partition(":")
        saes = {layer: (release, template.format(layer=layer)) for layer in preset.layers}
        asked = registry()[release].config_overrides.get("model_from_pretrained_kwargs", {})
        jobs[name] = {
            "model": preset.model,
            "point": preset.point,
            "texts": texts,
            "saes": saes,
            "centred": CENTRES and asked.get("center_writing_weights", False),
        }
    (home.parent / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("preset_oracle.py")
    python([str(script), str(home.parent / "jobs.json"), str(home.parent / "oracle.npz")], home)
    return dict(np.load(home.parent / "oracle.npz"))


@pytest.mark.parametrize("name", NAMES)
def test_the_preset_runs_from_a_cache(outcomes, home, commits, name):
    code, out, err = outcomes[name]
    assert code == 0, err
    assert out.startswith(f"Summary of {LIMIT} pairs")
    manifest = json.loads((home.parent / name / "manifest.json").read_text())
    preset = PRESETS[name]
    model = manifest["model"]
    assert (model["name"], model["revision"]) == (preset.model, commits[preset.model])
    assert (model["layers"], model["layers_loaded"]) == (
        preset.architecture.num_hidden_layers,
        1 + max(preset.layers),
    )
    assert [int(layer) for layer in manifest["saes"]] == list(preset.layers)
    for (layer, sae), l0 in zip(manifest["saes"].items(), preset.l0, strict=True):
        assert sae["hook_name"] == f"blocks.{layer}.{preset.point}"
        assert sae["revision"] == commits[sae["repository"]]
        assert sae["published_l0"] == l0
        snapshot = hub_cache.snapshot(home, sae["repository"])
        assert sae["files"]
        for file, said in sae["files"].items():
            blob = (snapshot / file).resolve()
            assert said == {"bytes": blob.stat().st_size, "sha256": blob.name}
    snapshot = hub_cache.snapshot(home, preset.model)
    assert set(model["files"]) == {path.name for path in snapshot.glob("*.safetensors")}
    for file, said in model["files"].items():
        assert said["sha256"] == (snapshot / file).resolve().name


@pytest.mark.parametrize("way", ["plain", "bridge"])
@pytest.mark.parametrize("name", NAMES)
def test_residuals_are_those_of_hugging_face_and_transformer_lens(outcomes, oracle, home, name, way):
    table = pl.read_parquet(home.parent / name / "residuals.parquet")
    for layer in PRESETS[name].layers:
        theirs = oracle[f"{name}/{way}/{layer}"]
        ours = np.array(values(table, layer))
        apart = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)  # (text,)
        assert apart.max() < 1e-5, f"layer {layer}, text {apart.argmax()}: {apart.max():.2g}"


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_saelens_on_plain_residuals(outcomes, oracle, home, name):
    table = pl.read_parquet(home.parent / name / "features.parquet")
    for layer in PRESETS[name].layers:
        theirs = oracle[f"{name}/features/{layer}"]
        for text, (pair, view) in enumerate((pair["id"], view) for pair in tiny.PAIRS[:LIMIT] for view in VIEWS):
            rows = table.filter(pair_id=pair, view=view, layer=layer)
            ours = np.zeros(theirs.shape[1])
            ours[rows["feature"].to_numpy()] = rows["activation"].to_numpy()
            assert set(np.flatnonzero(ours)) == set(np.flatnonzero(theirs[text] > 0))
            assert 2 < len(rows) < theirs.shape[1] - 2  # neither none nor all: a shifted layer would show
            norm = np.linalg.norm(theirs[text])
            assert np.linalg.norm(ours - theirs[text]) < 1e-5 * norm, f"layer {layer}, {pair}, {view}"


def values(table: pl.DataFrame, layer: int) -> list[list[float]]:
    """The residuals of a layer, text by text in the order of the pairs."""
    found = []
    for pair in tiny.PAIRS[:LIMIT]:
        for view in VIEWS:
            (row,) = table.filter(pair_id=pair["id"], view=view, layer=layer)["values"].to_list()
            found.append(row)
    return found
