"""Log-probabilities and residuals are there unless they are left out or do not fit, and a run says which do not."""

from __future__ import annotations

import json
import re
import signal

import polars as pl
import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

import bluffscope
import tiny
from bluffscope.api import config_from
from bluffscope.cli.analyze import Analyze
from bluffscope.cli.options import parse
from bluffscope.compare.runs import compare_all
from bluffscope.config import ForecastOptions, MeasureOptions
from bluffscope.errors import InputError, NoHeadError, RunStopped
from bluffscope.model import Head
from bluffscope.pipeline import build, by_default
from bluffscope.pipeline.by_default import RESIDUAL_BYTES, refuse_unfit, too_much
from bluffscope.pipeline.memory import GEMMA_2_2B
from bluffscope.runs.forecast import forecast
from bluffscope.runs.identity import result_options
from bluffscope.runs.run import run

LEFT_OUT = "log-probabilities left out: "


@pytest.fixture
def options(tiny_model, tiny_saes, pairs_file, tmp_path):
    given = {"model": str(tiny_model), "sae": str(tiny_saes), "data": str(pairs_file), "noise_draws": 1}
    return given | {"layers": (0,), "out": tmp_path / "run", "allow_unsound": True}


def done(options, **more):
    """A run, its table's columns and what it left out by default."""
    result = run(config_from(**options | more))
    found = bluffscope.read_run(result.path)
    return found, [hint for hint in found.manifest["hints"] if "left out" in hint]


def test_both_are_there_unless_they_are_left_out(options, tmp_path):
    found, left_out = done(options)
    assert left_out == []
    assert "logprob_fact" in found.metrics.columns and found.manifest["model"]["layers_loaded"] == tiny.LAYERS
    assert (found.config["measure"]["logprob"], found.config["output"]["keep_residuals"]) == ("on", "on")
    residuals = found.kept_residuals.collect()
    assert residuals.height == 3 * len(tiny.PAIRS) and residuals["values"].list.len().unique().to_list() == [16]
    bare, left_out = done(options, logprob=False, keep_residuals="off", out=tmp_path / "bare")
    assert left_out == []
    assert "logprob_fact" not in bare.metrics.columns and bare.manifest["model"]["layers_loaded"] == 1
    assert not (bare.path / "residuals.parquet").exists()
    (pair,) = compare_all([found, bare]).others
    assert pair.differences["measure.logprob"] == ("on", "off")


@pytest.mark.parametrize("strategy", ["packed", "sequential"])
def test_a_model_whose_logits_are_not_as_usual_has_none_and_the_run_says_so(options, strategy, monkeypatch, caplog):
    monkeypatch.setattr(Head, "_gives_the_logits_of", lambda *_: False)
    found, (said,) = done(options, strategy=strategy)
    assert said.startswith(f"{LEFT_OUT}--logprob: ") and "does more with its logits" in said
    assert said in caplog.text
    assert "logprob_fact" not in found.metrics.columns and found.config["measure"]["logprob"] == "off"
    if strategy == "packed":
        with pytest.raises(NoHeadError, match="does more with its logits"):
            done(options, logprob=True, out=found.path.with_name("other"))


def test_a_model_without_a_head_has_none(options, tiny_model, tmp_path):
    body, tokenizer = AutoModel.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    given = {**options, "model": body, "tokenizer": tokenizer}
    found = bluffscope.run(**given)
    assert "logprob_fact" not in found.metrics.columns
    assert any(hint.startswith(f"{LEFT_OUT}--model") for hint in found.manifest["hints"])


def test_a_checkpoint_without_its_head_has_none_and_one_that_lacks_more_is_refused(options, tmp_path):
    folder = tiny.save_model(tmp_path / "model", "gpt_neox")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "embed_out" not in name and "lm_head" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    found, (said,) = done(options, model=str(folder))
    assert "1 weights are missing" in said and "l0_fact_gini" in found.metrics.columns
    save_file({name: kept[name] for name in sorted(kept)[3:]}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="weights are missing"):
        done(options, model=str(folder), out=tmp_path / "other")


def test_a_model_that_does_not_fit_as_a_whole_is_measured_without_them(options, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "free_memory", lambda device: 200_000_000)
    found, (said,) = done(options)
    assert re.fullmatch(rf"{LEFT_OUT}the whole model needs about \d\.\d GB of memory, and 0\.2 GB are free", said)
    assert "logprob_fact" not in found.metrics.columns and found.manifest["model"]["layers_loaded"] == 1
    asked, left_out = done(options, logprob=True, out=tmp_path / "asked")  # on the user's own account
    assert "logprob_fact" in asked.metrics.columns and left_out == []


def test_the_whole_model_is_what_has_to_fit():
    measure = MeasureOptions(trajectory="off")
    shape, needed = GEMMA_2_2B["float32"], 12_000_000_000
    refuse_unfit(shape, "cpu", measure, None, 2 * needed)
    with pytest.raises(NoHeadError, match=r"the whole model needs about \d\d\.\d GB of memory, and 6\.0 GB are free"):
        refuse_unfit(shape, "cpu", measure, None, needed / 2)


def test_residuals_that_take_too_much_are_not_kept_and_the_run_says_so(options, monkeypatch, tmp_path):
    assert too_much(RESIDUAL_BYTES, None) is None
    assert too_much(RESIDUAL_BYTES + 1, None) == "they would take 1.0 GB, more than 1.0 GB"
    assert too_much(10_000_000, 1_000_000_000) is None
    assert too_much(10_000_000, 30_000_000) == "they would take 10.0 MB, and 30.0 MB are free on the disk"
    monkeypatch.setattr(by_default, "RESIDUAL_BYTES", 900)
    found, (said,) = done(options)  # 5 pairs of 3 texts, 16 numbers of 4 bytes each
    assert said == "residuals left out: they would take 960 bytes, more than 900 bytes; --keep-residuals keeps them"
    assert not (found.path / "residuals.parquet").exists() and found.config["output"]["keep_residuals"] == "off"
    whole, (said,) = done(options, position="completion-mean", out=tmp_path / "whole")
    assert float(said.split()[6]) > 1  # kilobytes, of every token of the completions
    kept, left_out = done(options, keep_residuals=True, out=tmp_path / "kept")
    assert left_out == [] and (kept.path / "residuals.parquet").exists()
    assert whole.manifest["counts"]["measured"] == 5


def test_the_dry_run_says_what_will_be_kept(options, monkeypatch, call_dry):
    found = forecast(config_from(**options), ForecastOptions())
    assert (found.residuals.size, found.residuals.kept, found.unmeasured) == (960, True, None)
    assert "Residuals: 960 bytes in residuals.parquet, kept" in call_dry(options)
    monkeypatch.setattr(by_default, "RESIDUAL_BYTES", 900)
    monkeypatch.setattr(by_default, "free_memory", lambda device: 200_000_000)
    said = call_dry(options)
    assert "Residuals: 960 bytes in residuals.parquet, not kept\nLog-probabilities left out: the whole model" in said
    assert "Residuals left out: they would take 960 bytes" in said
    less = forecast(config_from(**options), ForecastOptions())
    assert less.planned.shape.blocks == 1 < found.planned.shape.blocks
    assert less.work.products < found.work.products


@pytest.fixture
def call_dry(capsys):
    """What a dry run prints."""
    from bluffscope.cli.dry_run import dry_run

    def printed(options):
        assert dry_run(config_from(**options), ForecastOptions()) == 0
        return capsys.readouterr().out

    return printed


class Stopping:
    """A progress that stops the run once so many pairs are done."""

    def __init__(self, after):
        self.left = after

    def start(self, total):
        pass

    def advance(self, pairs):
        self.left -= pairs
        if self.left <= 0:
            raise RunStopped(signal.SIGINT)

    def finish(self):
        pass


@pytest.mark.parametrize("on", [False, True])
def test_a_run_from_before_goes_on_as_it_was(options, on, tmp_path, monkeypatch):
    """Its config.yaml says true or false, and so does what its digest is made of."""
    small = {**options, "shard_pairs": 1, "batch_size": 1}
    whole = run(config_from(**small | {"logprob": on, "keep_residuals": on, "out": tmp_path / "whole"}))
    with pytest.raises(RunStopped):
        run(config_from(**small | {"logprob": on, "keep_residuals": on}), progress=Stopping(2))
    folder = options["out"]
    identity = json.loads((folder / "shards" / "run.json").read_text())
    assert (identity["options"]["logprob"], identity["options"]["keep_residuals"]) == (on, on)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["measure"]["logprob"] = config["output"]["keep_residuals"] = on
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    # What would not fit now was decided then.
    monkeypatch.setattr(by_default, "RESIDUAL_BYTES", 1)
    monkeypatch.setattr(build, "free_memory", lambda device: 200_000_000)
    given = {name: value for name, value in small.items() if name != "out"}
    result = run(config_from(**given, resume=folder))
    assert result.metrics().equals(whole.metrics())
    assert ("logprob_fact" in result.metrics().columns) == (folder / "residuals.parquet").exists() == on
    assert pl.read_parquet_metadata(folder / "metrics.parquet")["run_digest"] == identity["digest"]


@pytest.mark.parametrize("flag", ["--logprob", "--keep-residuals"])
def test_a_flag_alone_is_on_and_the_old_spellings_hold(flag):
    def value(*words):
        command = parse(Analyze, words, "bluffscope analyze")
        return {"--logprob": command.measure.logprob, "--keep-residuals": command.output.keep_residuals}[flag]

    assert [value(), value(flag), value(f"--no-{flag[2:]}"), value(flag, "off"), value(f"{flag}=auto")] == [
        *("auto", "on", "off", "off", "auto")
    ]
    options = result_options(config_from(logprob="off", keep_residuals=True))
    assert (options["logprob"], options["keep_residuals"]) == (False, True)
