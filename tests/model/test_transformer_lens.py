"""Residuals equal TransformerLens 3.9's `blocks.k.hook_resid_post`, within 1e-5 relative."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from bluffscope.model import HookPoint, ResidualReader, load_model
from bluffscope.pipeline.plan import pack
from bluffscope.records import VIEWS, Sequence

STORIES = Path(__file__).resolve().parents[3] / "shared" / "testdata" / "TinyStories-656K"
NAMES = [*tiny.ARCHITECTURES, "stories"]
OWN = ("llama", "gemma2", "gpt2", "stories")
"""Those that TransformerLens computes by its own attention and MLP as well."""
TEXT = [1, *range(40, 300, 17)]  # a BOS and sixteen ids, longer than the sliding windows


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tiny.save_model(tmp_path_factory.mktemp("lens") / name, name) for name in tiny.ARCHITECTURES}
    return made | ({"stories": STORIES} if STORIES.is_dir() else {})


@pytest.fixture(scope="module")
def lens(folders, tmp_path_factory):
    """Every residual of the text, by model, way and layer; one process for all."""
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "jobs.json").write_text(json.dumps({name: [str(path), TEXT] for name, path in folders.items()}))
    script = Path(__file__).with_name("lens_oracle.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "jobs.json"), str(folder / "out.npz")],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / "out.npz"))


def test_the_version_is_the_one_that_was_compared():
    assert version("transformer-lens").startswith("3.")


@pytest.mark.parametrize("name", NAMES)
def test_every_residual_of_a_packed_text_equals_that_of_transformer_lens(folders, lens, name):
    if name not in folders:
        pytest.skip("no TinyStories-656K beside the checkout")
    blocks = 2 if name == "stories" else tiny.LAYERS
    model = load_model(
        str(folders[name]), revision=None, blocks=blocks, device=torch.device("cpu"), dtype=torch.float32
    )
    points = {layer: HookPoint(layer, "hook_resid_post") for layer in range(blocks)}
    reader = ResidualReader.create(model, points)
    assert reader.packs
    reads = tuple(range(len(TEXT)))
    texts = [TEXT, [*TEXT[:5], 9, 10, 11, *TEXT[8:]], [*TEXT[:9], 12]]  # two more branches share the row
    views = [
        Sequence(item=0, view=VIEWS.index(view), ids=tuple(ids), reads=reads if view == "prompt" else (0,))
        for view, ids in zip(VIEWS, texts, strict=True)
    ]
    batch = pack(views, {0: 0}, 100)
    residuals = reader.read(batch).residuals
    for layer in range(blocks):
        ours = residuals[layer][: len(TEXT)].numpy()
        for way in ("bridge", *(("hooked",) if name in OWN else ())):
            theirs = lens[f"{name}/{way}/{layer}"]
            apart = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)  # (token,)
            assert apart.max() < 1e-5, f"{way}, layer {layer}, token {apart.argmax()}: {apart.max():.2g}"


def test_the_model_that_a_bridge_wraps_is_measured_as_its_folder_is(folders):
    script = Path(__file__).with_name("bridges.py")
    names = [str(folders[name]) for name in ("gemma2", "qwen3", "gpt_neox", "gpt2")]
    done = subprocess.run(
        [sys.executable, str(script), *names],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
