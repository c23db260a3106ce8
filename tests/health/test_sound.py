"""A sound set-up raises no alarm: the demo under every strategy, and tiny models with SAEs trained on them."""

from __future__ import annotations

import pytest
import torch

import tiny
import trained
from bluffscope.api import config_from, run
from bluffscope.health import diagnose
from bluffscope.sae.coder import Coder, _sparse
from bluffscope.sae.plain import PlainSae

FAMILIES = ("gemma2", "gpt2", "llama", "gpt_neox")


def alarms(out, **options):
    """What the gate of a run finds, and how many checks it made."""
    health = run(config_from(out=out, **options), draw=False).manifest["health"]
    assert health["status"] == ("unsound" if any(f["severity"] == "error" for f in health["findings"]) else "healthy")
    return [finding["message"] for finding in health["findings"]], len(health["checks"])


@pytest.mark.parametrize("position", ["last", "completion-mean"])
@pytest.mark.parametrize("strategy", ["packed", pytest.param("batched", marks=pytest.mark.thorough)])
def test_the_demo_is_healthy_however_it_is_measured(tmp_path, strategy, position):
    found, checks = alarms(tmp_path / "run", strategy=strategy, position=position)
    assert found == []
    assert checks > 40


@pytest.mark.thorough
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


def test_features_are_compared_with_saelens_s_own_before_a_run_and_with_a_dense_encode_in_it(tmp_path):
    config = config_from(limit=4, out=tmp_path / "run")
    manifest = run(config, draw=False).manifest
    before = {check.check for check in diagnose(config_from(limit=4)).checks}
    inside = {check["check"] for check in manifest["health"]["checks"]}
    assert ("features = SAELens" in before, "features = a dense encode" in before) == (True, False)
    assert ("features = SAELens" in inside, "features = a dense encode" in inside) == (False, True)


def test_a_reader_that_computes_other_features_than_saelens_is_found(monkeypatch):
    monkeypatch.setattr(PlainSae, "encode", lambda sae, x: 0 * torch.relu(x @ sae.W_enc))
    monkeypatch.setattr(Coder, "encode", lambda coder, x: _sparse(coder.sae.encode(x)))
    found = {check.check: check.severity for check in diagnose(config_from(limit=4, layers=(2,))).checks}
    assert found["features = SAELens"] == "error"


@pytest.mark.thorough
@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_with_saes_trained_on_them_are_healthy(tmp_path, family):
    model = tiny.save_model(tmp_path / family, family)
    saes = trained.save_trained(tmp_path / "saes", model, (0, 1, 2))
    found, _ = alarms(tmp_path / "run", model=str(model), sae=str(saes))
    assert found == []
