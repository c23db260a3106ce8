"""Runs that keep every token: their tables, the same from every strategy and after a stop; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bluffscope.cli.main import main
from bluffscope.config import DataOptions, EngineOptions, MeasureOptions, ModelOptions, OutputOptions, RunConfig
from bluffscope.errors import InputError
from bluffscope.runs.forecast import ForecastOptions, forecast
from bluffscope.runs.run import run
from bluffscope.table.reader import read_run

TEXTS = (
    {"id": "a", "prompt": "Water is", "completion": " cold ice, é.", "label": False, "spans": [[1, 5], [11, 12]]},
    {"id": "b", "prompt": "Water is", "completion": "wet", "label": True},
    {"id": "c", "prompt": "The capital is", "completion": "Rome, not Paris", "label": False, "spans": [[0, 4]]},
    {"id": "d", "prompt": "The capital is", "completion": "x" * 400, "label": False, "spans": [[0, 4]]},
    {"id": "e", "prompt": "Ice is", "completion": "warm", "label": False},
)
TABLES = ("metrics", "tokens", "token_features", "features", "residuals")


@pytest.fixture
def config(tmp_path, tiny_model, tiny_saes):
    def made(name="run", lines=TEXTS, sae=tiny_saes, measure=(), **engine):
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return RunConfig(
            data=DataOptions(data=str(data)),
            model=ModelOptions(model=str(tiny_model), sae=str(sae), device="cpu", dtype="float64"),
            measure=MeasureOptions(position="tokens", logprob="on", noise_draws=1, **dict(measure)),
            engine=EngineOptions(**engine),
            output=OutputOptions(out=tmp_path / name, allow_unsound=True),
        )

    return made


def close(ours, theirs):
    assert ours.columns == theirs.columns and ours.height == theirs.height
    for name in ours.columns:
        one, other = ours[name], theirs[name]
        if one.dtype == pl.List(pl.Float32):
            assert np.allclose(one.explode(), other.explode(), atol=1e-5), name
        elif one.dtype.is_float():
            assert one.is_null().to_list() == other.is_null().to_list(), name
            assert (one - other).abs().max() in (None, pytest.approx(0, abs=1e-4)), name
        else:
            assert one.to_list() == other.to_list(), name


@pytest.mark.parametrize("strategy", ["batched", "sequential", pytest.param("separate", marks=pytest.mark.thorough)])
def test_every_strategy_keeps_the_same_tokens(config, strategy):
    whole, other = run(config("packed")), run(config(strategy, strategy=strategy))
    assert whole.manifest["strategy"] == "packed" and other.manifest["strategy"] == strategy
    for name in TABLES:
        ours, theirs = (pl.read_parquet(result.path / f"{name}.parquet") for result in (other, whole))
        keys = [key for key in ("text_id", "view", "layer", "token", "token_index", "feature") if key in ours.columns]
        close(ours.sort(keys), theirs.sort(keys))


def test_tokens_are_those_whose_residuals_and_features_are_kept(config):
    result = run(config())
    found = read_run(result.path)
    assert found.by_token and found.rows == 4 and found.quarantine["text_id"].to_list() == ["d"]  # longer than context
    assert set(result.manifest["files"]) >= {f"{name}.parquet" for name in TABLES}
    assert found.config["output"]["keep_residuals"] == "on"
    assert found.tokens.columns == ["text_id", "token_index", "label", "start", "end", "logprob"]
    tokens = set(found.tokens.select("text_id", "token_index").rows())
    of_text = pl.col("view") == "text"
    residuals = found.kept_residuals.filter(of_text).select("text_id", "token", "layer").collect()
    assert set(residuals.select("text_id", "token").rows()) == tokens
    assert residuals.height == len(tokens) * residuals["layer"].n_unique()
    # the mean activation over the tokens is that of features.parquet
    counts = found.tokens.group_by("text_id").len("tokens")
    means = (
        found.token_features.filter(of_text)
        .group_by("text_id", "layer", "feature")
        .agg(pl.col("activation").cast(pl.Float64).sum())
        .collect()
        .join(counts, on="text_id")
        .with_columns(mean=pl.col("activation") / pl.col("tokens"))
    )
    both = means.join(found.features.filter(of_text).collect(), on=["text_id", "layer", "feature"], suffix="_mean")
    assert both.height == means.height == found.features.filter(of_text).collect().height
    assert np.allclose(both["mean"], both["activation_mean"], rtol=1e-5)
    sums = (
        found.tokens.group_by("text_id")
        .agg(pl.col("logprob").sum())
        .join(found.metrics, on="text_id", suffix="_of_text")
    )
    assert np.allclose(sums["logprob"], sums["logprob_of_text"], atol=1e-4)
    labels = dict(found.tokens.group_by("text_id").agg(pl.col("label").unique().sort()).iter_rows())
    assert labels == {"a": [0, 1], "b": [0], "c": [0, 1], "e": [None]}


def test_a_stopped_run_goes_on_to_the_same_tokens(config, tmp_path):
    whole = run(config("whole", shard_pairs=2))
    calls = []

    class Progress:
        def start(self, total): ...
        def finish(self): ...

        def advance(self, pairs):
            calls.append(pairs)
            if len(calls) == 3:
                raise KeyboardInterrupt

    again = config("again", shard_pairs=2, batch_size=1)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever a stop is
        run(again, progress=Progress())
    assert list((tmp_path / "again" / "shards").iterdir())
    resumed = run(replace(again, output=OutputOptions(resume=tmp_path / "again", allow_unsound=True)))
    for name in TABLES:
        close(*(pl.read_parquet(path / f"{name}.parquet") for path in (resumed.path, whole.path)))
    assert run(replace(again, output=OutputOptions(resume=tmp_path / "again"))).untouched


def test_pairs_and_texts_without_spans_are_refused_in_a_line(config):
    pairs = [{"prompt": "a", "fact": "b", "hallucination": "c"}]
    with pytest.raises(InputError, match="--position tokens: only labelled texts with spans"):
        run(config("pairs", pairs))
    bare = [{key: value for key, value in line.items() if key != "spans"} for line in TEXTS]
    with pytest.raises(InputError, match="--position tokens: none of the texts has spans"):
        run(config("bare", bare))
    with pytest.raises(InputError, match="none of the texts has spans"):
        forecast(replace(config("dry", bare), output=OutputOptions()), ForecastOptions())


def test_a_span_outside_its_completion_is_a_line(config, capsys, tiny_model):
    made = config("outside", [TEXTS[0] | {"spans": [[3, 99]]}])
    flags = ["--data", made.data.data, "--model", str(tiny_model), "--sae", "none", "--position", "tokens"]
    assert main(["analyze", *flags]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and "[3, 99]" in said and "13 characters" in said
