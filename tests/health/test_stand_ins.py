"""Stand-ins for SAEs raise no error on the real models that they were made of: trained briefly, or not at all."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

import trained
from bluffscope.api import config_from, run
from bluffscope.model import load_model
from bluffscope.model.gguf import converted
from own_saes import TOOLS
from published import published_model

ROOT = TOOLS.parent
STORIES = ROOT.parent / "shared" / "testdata" / "TinyStories-656K"
TOKENS = 4000


@dataclass(frozen=True)
class Real:
    """A real model that is small enough to make stand-ins of."""

    layers: tuple[int, ...]
    components: int
    """Enough for seven tenths of the variance."""

    def folder(self) -> Path:
        """The model; the test is skipped where it cannot be had."""
        if self is STORY:
            if not STORIES.is_dir():
                pytest.skip("no TinyStories-656K beside the checkout")
            return STORIES
        return converted(str(published_model()[0]))


STORY = Real((0, 1), 32)
SMOLLM2 = Real((6, 14, 23), 96)
REALS = (pytest.param(STORY, id="story"), pytest.param(SMOLLM2, id="smollm2-135m", marks=pytest.mark.thorough))


@cache
def activations(real: Real, *, bos: bool) -> dict[int, torch.Tensor]:
    """Residuals (token, d_model) by layer over the project's own pages, first tokens and sinks left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        tool = importlib.import_module("train_saes")
    cpu = torch.device("cpu")
    model = load_model(str(real.folder()), revision=None, blocks=max(real.layers) + 1, device=cpu, dtype=torch.float32)
    texts = [text for page in sorted((ROOT / "docs").glob("*.md")) for text in tool.read_texts(page)]
    sequences = tool.encoded(model, texts, bos=bos, tokens=TOKENS, seed=0)
    rows = tool.residuals(model, sequences, real.layers)
    return {layer: tool.without_sinks(rows[layer], layer) for layer in real.layers}


def errors(real: Real, saes: Path, out: Path) -> list[str]:
    """What a run's health finds that is worse than a warning."""
    config = config_from(model=str(real.folder()), sae=str(saes), limit=48, out=out)
    health = run(config, draw=False).manifest["health"]
    assert sum(check["check"] == "explained variance" for check in health["checks"]) == len(real.layers)
    found = [finding["message"] for finding in health["findings"] if finding["severity"] == "error"]
    assert (health["status"] == "healthy") == (not found)
    return found


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    "real", [pytest.param(STORY, id="story"), pytest.param(SMOLLM2, id="smollm2-135m", marks=pytest.mark.thorough)]
)
def test_principal_components_are_no_fault(tmp_path, real, bos):
    for layer, x in activations(real, bos=bos).items():
        weights = trained.principal_components(x, real.components)
        hook_name = f"blocks.{layer}.hook_resid_post"
        trained.save_sae(tmp_path / f"saes/layer_{layer}", weights, hook_name, "", k=None, prepend_bos=bos)
    assert errors(real, tmp_path / "saes", tmp_path / "run") == []


@pytest.mark.thorough
def test_saes_that_were_trained_for_seconds_are_no_fault(tmp_path):
    for layer, x in activations(STORY, bos=True).items():
        weights = trained.train_topk(x[::2], d_sae=256, k=48)
        trained.save_sae(tmp_path / f"saes/layer_{layer}", weights, f"blocks.{layer}.hook_resid_post", "", k=48)
    assert errors(STORY, tmp_path / "saes", tmp_path / "run") == []
