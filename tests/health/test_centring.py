"""SAEs of models with centred writing weights read the residual that TransformerLens gives with those weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import tiny
from bluffscope.api import config_from, run
from bluffscope.model import HookPoint, ResidualReader, load_model
from bluffscope.model.hooks import ignores_mean
from bluffscope.pipeline.plan import pack
from bluffscope.records import Sequence

TEXT = [1, *range(40, 300, 17)]
_ORACLE = """
import sys, torch, numpy as np
sys.path[:0] = sys.argv[3:]
import lens_oracle
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoModelForCausalLM
import json
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
cfg = HookedTransformerConfig(**lens_oracle._shape(model.config), **lens_oracle._gpt2(model.config))
network = HookedTransformer(cfg, move_to_device=False)
weights = lens_oracle.convert_gpt2_weights(model, cfg)
network.load_and_process_state_dict(
    weights, fold_ln=False, center_writing_weights=True, center_unembed=False, fold_value_biases=False
)
found = lens_oracle._cached(network.eval(), json.loads(sys.stdin.read()))
np.savez(sys.argv[2], **{str(layer): x for layer, x in enumerate(found)})
"""


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("centred") / "gpt2", "gpt2")


@pytest.fixture(scope="module")
def lens(gpt2, tmp_path_factory):
    """The residual stream after each block, with centred writing weights, in a process of its own."""
    out = tmp_path_factory.mktemp("lens") / "out.npz"
    beside = os.path.join(os.path.dirname(os.path.dirname(__file__)), "model")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ORACLE, str(gpt2), str(out), beside],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        input=json.dumps(TEXT),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(out))


def read(folder, *, centred):
    model = load_model(str(folder), revision=None, blocks=4, device=torch.device("cpu"), dtype=torch.float32)
    points = {layer: HookPoint(layer, "hook_resid_post", centred) for layer in range(4)}
    views = [
        Sequence(item=0, view=view, ids=tuple(TEXT), reads=(0,) if view else tuple(range(len(TEXT))))
        for view in range(3)
    ]
    found = ResidualReader.create(model, points).read(pack(views, {0: 0}, 100)).residuals
    return {layer: states[: len(TEXT)].numpy() for layer, states in found.items()}


@pytest.mark.process
def test_what_is_read_equals_transformer_lens_with_centred_writing_weights(gpt2, lens):
    ours, raw = read(gpt2, centred=True), read(gpt2, centred=False)
    for layer in range(4):
        theirs = lens[str(layer)]
        apart = np.linalg.norm(ours[layer] - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        assert apart.max() < 1e-5
        without = np.linalg.norm(raw[layer] - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        assert without.max() > 1e-2


@pytest.mark.parametrize(
    ("family", "expected"), [("gpt2", True), ("gpt_neox", True), ("llama", False), ("gemma2", False)]
)
def test_only_layer_norm_ignores_the_mean(tmp_path, family, expected):
    folder = tiny.save_model(tmp_path / family, family)
    model = load_model(str(folder), revision=None, blocks=4, device=torch.device("cpu"), dtype=torch.float32)
    assert ignores_mean(model.network) is expected


def test_the_engine_and_the_reference_centre_alike(gpt2, tmp_path, pairs_file):
    saes = tiny.save_saes(tmp_path / "saes", (0, 2))
    for layer in (0, 2):
        file = saes / f"layer_{layer}" / "cfg.json"
        config = json.loads(file.read_text())
        config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
        file.write_text(json.dumps(config))

    def table(strategy):
        options = config_from(
            model=str(gpt2), sae=str(saes), data=str(pairs_file), strategy=strategy, out=tmp_path / strategy
        )
        return run(options, draw=False).metrics()

    ours, reference = table("packed"), table("sequential")
    for column in ("l0_fact_reconstruction_error", "l2_hall_reconstruction_error", "l2_prompt_relative_error"):
        np.testing.assert_allclose(ours[column].to_numpy(), reference[column].to_numpy(), rtol=1e-4)
