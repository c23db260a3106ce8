"""SAEs of a real model, poor and good, are no fault: health raises no error on what was trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bluffscope.api import config_from, run
from bluffscope.cli.main import main
from bluffscope.model.gguf import converted
from own_saes import explained, trained, wordnet_texts
from published import published_model

LAYERS = (6, 14, 23)
SOON = ("--layers", 14, "--architecture", "topk", "--k", 32, "--tokens", 20_000, "--steps", 300)
"""Options with which an SAE takes half a minute."""


@pytest.fixture(scope="module")
def model() -> Path:
    """SmolLM2-135M as a folder."""
    return converted(str(published_model()[0]))


@pytest.fixture(scope="module")
def texts() -> Path:
    """WordNet's definitions."""
    return wordnet_texts()


def errors(model, saes, out, **options):
    """What a run's health finds that is worse than a warning."""
    health = run(config_from(model=str(model), sae=str(saes), out=out, **options), draw=False).manifest["health"]
    found = [finding["message"] for finding in health["findings"] if finding["severity"] == "error"]
    assert (health["status"] == "healthy") == (not found)
    assert any(check["check"] == "hook point" for check in health["checks"])
    return found


@pytest.mark.thorough
@pytest.mark.process
@pytest.mark.parametrize("bos", [True, False])
def test_an_sae_that_was_trained_for_half_a_minute_is_healthy(model, texts, tmp_path, capsys, bos):
    saes = trained(model, texts, *SOON, *(() if bos else ("--no-bos",)))
    assert errors(model, saes, tmp_path / "run", limit=48) == []
    capsys.readouterr()
    code = main(["doctor", "--model", str(model), "--sae", str(saes)])
    assert code == 0, capsys.readouterr().out


@pytest.fixture(scope="module")
def activations(tmp_path_factory) -> Path:
    """Where the activations are that several SAEs are trained on."""
    return tmp_path_factory.mktemp("activations")


@pytest.mark.soak
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
@pytest.mark.parametrize(("quality", "k", "steps"), [(0.5, 8, 300), (0.7, 32, 300), (0.8, 96, 600)])
def test_no_quality_is_a_fault(model, texts, activations, tmp_path, quality, k, steps, architecture, bos):
    # BatchTopK is JumpReLU on disk; its threshold takes some hundred steps to settle
    options = ("--layers", *LAYERS, "--tokens", 20_000, "--architecture", architecture, "--k", k, "--steps", steps)
    alone = () if bos else ("--no-bos",)
    saes = trained(model, texts, *options, *alone, activations=activations / f"{bos}.pt")
    reached = explained(saes)
    assert reached.keys() == set(LAYERS)
    assert all(abs(found - quality) < 0.15 for found in reached.values()), reached
    assert errors(model, saes, tmp_path / "run") == []
