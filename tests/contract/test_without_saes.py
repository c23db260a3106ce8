"""Runs without SAEs: what needs none is measured as ever, the rest is left out or refused in one line."""

from __future__ import annotations

import polars as pl
import pytest

import bluffscope
from bluffscope.api import config_from
from bluffscope.cli.main import main
from bluffscope.compare.strategies import verify
from bluffscope.config import ForecastOptions, ModelOptions
from bluffscope.config.presets import resolve
from bluffscope.errors import InputError
from bluffscope.health import diagnose
from bluffscope.metrics import ANALYSES
from bluffscope.runs.forecast import forecast
from bluffscope.table.reader import read_run

PAIRS = 6


def bare(out, **options):
    given = {"sae": "none", "logprob": True, "limit": PAIRS, "out": out, **options}
    return bluffscope.analyze(**given), read_run(out)


def test_of_saes_in_a_folder_a_slice_takes_those_that_are_there():
    with pytest.raises(InputError, match="--layers 3:5: it selects none of the layers"):
        bluffscope.analyze(layers=["3:5"], limit=2)
    assert bluffscope.analyze(layers="all", limit=2).equals(bluffscope.analyze(layers=[2, 5, 8], limit=2))


def test_a_run_without_saes_has_the_log_probabilities_and_residuals_of_one_with_them(tmp_path):
    table, run = bare(tmp_path / "run", layers=[2, 5, 8], keep_residuals=True)
    with_saes = bluffscope.analyze(limit=PAIRS, logprob=True, keep_residuals=True, out=tmp_path / "other")
    same = [name for name in table.columns if name in with_saes.columns and "logprob" in name]
    assert len(same) == 6
    for name in same:
        assert table[name].to_numpy() == pytest.approx(with_saes[name].to_numpy(), abs=1e-5)
    ours, theirs = (each.kept_residuals.collect() for each in (run, read_run(tmp_path / "other")))
    assert ours.drop("values").equals(theirs.drop("values"))
    assert ours["values"].explode().to_numpy() == pytest.approx(theirs["values"].explode().to_numpy(), abs=1e-4)


def test_layers_are_frozen_as_numbers_and_a_run_goes_on_with_slices(tmp_path):
    _, run = bare(tmp_path / "run", layers=[0, "4:9:2"])
    assert (run.config["model"]["layers"], run.config["model"]["sae"]) == ([0, 4, 6, 8], "none")
    assert run.manifest["saes"] == {}
    assert main(["analyze", "--resume", str(run.path), "--layers", "0", "4:9:2"]) == 0


def test_all_strategies_agree_without_saes(tmp_path):
    config = config_from(sae="none", layers=[2], logprob=True, limit=3, out=tmp_path / "run")
    assert all(phase.holds for phase in verify(config))


def test_the_health_gate_checks_what_needs_no_sae():
    found = diagnose(config_from(sae="none", layers=["::4"], limit=30, logprob=True))
    titles = {check.check for check in found.checks}
    assert found.sound
    assert {"read position", "packed = single", "finite values", "tokenizer = model", "BOS fed"} <= titles
    assert not {"explained variance", "L0", "hook point", "architecture", "trained on this model"} & titles


def test_a_forecast_without_saes_encodes_nothing():
    found = forecast(config_from(sae="none", layers="all", logprob=True, limit=20), ForecastOptions())
    assert (found.work.encode, found.work.geometry, found.work.noise, found.work.features) == (0, 0, 0, 0)
    assert found.here.memory > 0 and found.planned.shape.blocks == 10


def test_an_analysis_of_ones_own_may_look_at_residuals_but_not_at_features(tmp_path):
    norm = bluffscope.per_read("norm", lambda m, layer: m.states[layer].residual.norm(dim=1), unit="activation units")
    peak = bluffscope.per_read("peak", lambda m, layer: m.features(layer).max(), unit="activation units")
    table, _ = bare(tmp_path / "run", layers=[3], added=[norm])
    assert (table["l3_hall_norm"] > 0).all()
    with pytest.raises(InputError, match="layer 3 is measured without an SAE"):
        bare(tmp_path / "other", layers=[3], added=[peak])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [10]}, "--layers 10: bluffscope-demo has 10 layers, 0 to 9"),
        ({"layers": [1, "0:3"]}, "--layers: 1 is given twice"),
        ({"analyses": ANALYSES[2:3]}, "--sae none: Stability needs SAEs"),
    ],
)
def test_what_cannot_be_measured_without_saes_is_refused_in_one_line(tmp_path, options, says):
    with pytest.raises(InputError, match=says):
        bare(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_features_of_a_run_without_saes_are_refused_and_its_report_has_no_empty_section(tmp_path, capsys):
    out = tmp_path / "run"
    code = main(
        ["analyze", "--sae", "none", "--layers", "1", "--logprob", "--limit", "12", "--full", "--out", str(out)]
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "Without SAEs: left out are layer sensitivity" in said.out
    page = (out / "report.html").read_text("utf-8")
    assert 'id="features"' not in page and 'id="answer"' in page
    assert main(["features", str(out)]) == 2
    assert "measured without SAEs" in capsys.readouterr().err


def test_a_model_without_known_saes_is_told_how_to_go_without():
    with pytest.raises(InputError, match="--sae none"):
        resolve(ModelOptions(model="some/model"))
    assert resolve(ModelOptions(model="some/model", sae="none")).layers == ("all",)


def test_residual_detectors_are_trained_and_applied_without_saes(tmp_path, capsys):
    out, kept = tmp_path / "run", tmp_path / "detector"
    bare(out, layers=[6], limit=40, keep_residuals=True)
    train = ["detect", "train", str(out), "--on", "residual", "--allow-weak"]
    assert main([*train, "--out", str(kept)]) == 0, capsys.readouterr().err
    data = tmp_path / "texts.jsonl"
    pl.DataFrame({"prompt": ["The capital of France is"], "completion": ["Paris"]}).write_ndjson(data)
    assert main(["detect", "score", str(kept), "--data", str(data), "--out", str(tmp_path / "scores.jsonl")]) == 0
