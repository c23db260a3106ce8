"""A sound set-up raises no alarm: the demo under every strategy, and tiny models with SAEs trained on them."""

from __future__ import annotations

import pytest

import tiny
import trained
from bluffscope.api import config_from, run

FAMILIES = ("gemma2", "gpt2", "llama", "gpt_neox")


def alarms(out, **options):
    """What the gate of a run finds, and how many checks it made."""
    health = run(config_from(out=out, **options), draw=False).manifest["health"]
    assert health["status"] == ("unsound" if any(f["severity"] == "error" for f in health["findings"]) else "healthy")
    return [finding["message"] for finding in health["findings"]], len(health["checks"])


@pytest.mark.parametrize("position", ["last", "completion-mean"])
@pytest.mark.parametrize("strategy", ["packed", "batched"])
def test_the_demo_is_healthy_however_it_is_measured(tmp_path, strategy, position):
    found, checks = alarms(tmp_path / "run", strategy=strategy, position=position)
    assert found == []
    assert checks > 40


@pytest.mark.parametrize("strategy", ["sequential", "separate"])
def test_the_demo_is_healthy_under_the_strategies_of_the_reference(tmp_path, strategy):
    found, checks = alarms(tmp_path / "run", strategy=strategy, limit=12)
    assert found == []
    assert checks > 20


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_alone_is_no_alarm(tmp_path, dtype):
    found, _ = alarms(tmp_path / "run", dtype=dtype, limit=40)
    assert found == []


@pytest.mark.parametrize("limit", [1, 3])
def test_few_pairs_are_no_alarm(tmp_path, limit):
    found, _ = alarms(tmp_path / "run", limit=limit)
    assert found == []


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_with_saes_trained_on_them_are_healthy(tmp_path, family):
    model = tiny.save_model(tmp_path / family, family)
    saes = trained.save_trained(tmp_path / "saes", model, (0, 1, 2))
    found, _ = alarms(tmp_path / "run", model=str(model), sae=str(saes))
    assert found == []
