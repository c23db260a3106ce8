"""The tool that trains SAEs of any small model: on a real pretrained one, and the analysis with what it gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import tiny
from bluffscope.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
STORIES = ROOT.parent / "shared" / "testdata" / "TinyStories-656K"
LAYERS = (0, 1)
PAIRS = [
    ("Once upon a time, there was a little girl named", "Lily.", "Tom."),
    ("Once upon a time, there was a", "big dog who liked to play", "cat"),
    ("The dog was very", "happy and ran to the park.", "sad."),
    ("The dog was very happy. He", "played with his friends all day long", "went home to his mom"),
    ("One day, Tim went to the park with his", "mom. They saw a big tree", "dad"),
]

pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason="no TinyStories-656K beside the checkout")


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """SAEs of both layers after a fifth of the tool's own steps on a tenth of its stories."""
    folder = tmp_path_factory.mktemp("story-saes")
    tool = [ROOT / "tools" / "train_saes.py", STORIES, "--layers", *LAYERS, "--out", folder]
    process = subprocess.run(
        [sys.executable, *map(str, tool), "--stories", "200", "--steps", "200"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert re.findall(r"^layer_\d: mean L0", process.stdout, re.MULTILINE) == ["layer_0: mean L0", "layer_1: mean L0"]
    return folder


def metadata(saes, layer):
    return json.loads((saes / f"layer_{layer}" / "cfg.json").read_text())["metadata"]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_saes_explain_stories_that_they_were_not_trained_on(saes, layer):
    cfg = json.loads((saes / f"layer_{layer}" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["d_in"], cfg["d_sae"]) == ("jumprelu", 128, 2048)
    found = metadata(saes, layer)
    assert (found["model_name"], found["hook_name"]) == (STORIES.name, f"blocks.{layer}.hook_resid_post")
    assert 10 < found["l0"] < 90
    assert found["explained_variance"] > 0.6


def test_a_real_model_is_analysed_with_its_own_saes(saes, tmp_path):
    pairs = [
        {"id": str(index), "prompt": prompt, "fact": fact, "hallucination": hallucination}
        for index, (prompt, fact, hallucination) in enumerate(PAIRS)
    ]
    data, run = tiny.write_pairs(tmp_path / "stories.jsonl", pairs), tmp_path / "run"
    given = ["--model", STORIES, "--sae", saes, "--data", data, "--out", run, "--position", "completion-mean"]
    assert main(["analyze", *map(str, given)]) == 0
    table = pl.read_parquet(run / "metrics.parquet")
    assert table.height == len(PAIRS)
    for layer in LAYERS:
        # as many features as on held-out stories, and most of the residual explained: the SAE reads its own hook point
        assert table[f"l{layer}_fact_l0_norm"].mean() == pytest.approx(metadata(saes, layer)["l0"], rel=0.5)
        assert table[f"l{layer}_fact_relative_error"].max() < 0.6
        assert table[f"l{layer}_fact_dimensionality"].null_count() == 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["health"]["status"], manifest["health"]["findings"]) == ("healthy", [])
    identity = manifest["saes"]
    assert [identity[str(layer)]["published_l0"] for layer in LAYERS] == [metadata(saes, k)["l0"] for k in LAYERS]
