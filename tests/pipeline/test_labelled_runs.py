"""A run over labelled texts from end to end: tables, pairs in it, resume, strategies, dry run, doctor."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

import bluffscope
import tiny
from bluffscope.compare.strategies import verify
from bluffscope.config import DataOptions, EngineOptions, MeasureOptions, ModelOptions, OutputOptions, RunConfig
from bluffscope.errors import InputError
from bluffscope.health import diagnose
from bluffscope.metrics.own import per_read
from bluffscope.records import PROMPTED, STATEMENTS
from bluffscope.runs.forecast import ForecastOptions, forecast
from bluffscope.runs.run import run
from bluffscope.table.reader import read_run

PAIRS = [{**pair, "id": f"p{number}", "domain": f"d{number % 2}"} for number, pair in enumerate(tiny.PAIRS)]


def sides(pairs=PAIRS):
    """Both sides of pairs as texts, in turn, named after them and grouped by pair."""
    return [
        {
            "id": f"{pair['id']}/{side}",
            "prompt": pair["prompt"],
            "completion": pair[key],
            "label": side == "fact",
            "group": pair["id"],
            "domain": pair["domain"],
            "source": "made up",
        }
        for pair in pairs
        for side, key in (("fact", "fact"), ("hall", "hallucination"))
    ]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path, tiny_model, tiny_saes):
    def made(records, name="run", **options):
        measure = {"logprob": "on", "trajectory": "on", **options.pop("measure", {})}
        return RunConfig(
            data=DataOptions(data=str(write(tmp_path / f"{name}.jsonl", records)), **options.pop("data", {})),
            model=ModelOptions(model=str(tiny_model), sae=str(tiny_saes), device="cpu", dtype="float64"),
            measure=MeasureOptions(**measure),
            engine=EngineOptions(**options.pop("engine", {})),
            output=OutputOptions(out=tmp_path / name, **options.pop("output", {})),
        )

    return made


def test_the_sides_of_pairs_measured_as_texts_make_the_table_of_the_pairs(config):
    of_pairs = run(config(PAIRS, "pairs")).metrics()
    result = run(config(sides(), "texts"))
    found = read_run(result.path)
    assert found.arrangement == PROMPTED and found.key == "text_id"
    texts = found.metrics
    assert texts.columns[:8] == [
        *("text_id", "label", "domain", "group", "prompt_tokens", "text_tokens", "prompt_read_token", "read_token")
    ]
    assert texts["group"].to_list() == [text["group"] for text in sides()]
    assert texts["source"].to_list() == ["made up"] * len(texts)
    paired = found.table("paired.parquet")
    assert paired is not None and paired["group"].to_list() == [pair["id"] for pair in PAIRS]
    assert paired["pair_id"].to_list() == [f"{pair['id']}/fact+{pair['id']}/hall" for pair in PAIRS]
    shared = [name for name in paired.columns if name in of_pairs.columns and name not in ("pair_id", "group")]
    lacking = set(of_pairs.columns) - set(paired.columns)
    assert lacking == {"complexity"}
    for name in shared:
        ours, theirs = paired[name], of_pairs[name]
        assert ours.is_null().to_list() == theirs.is_null().to_list(), name
        if ours.dtype.is_float():
            assert (ours - theirs).abs().max() in (None, pytest.approx(0, abs=1e-9)), name
        else:
            assert ours.to_list() == theirs.to_list(), name
    order = [name for name in of_pairs.columns if name in shared]
    assert [name for name in paired.columns if name in shared] == order
    assert result.manifest["counts"]["pairs"] == 2 * len(PAIRS)
    assert set(result.manifest["files"]) == {
        *("metrics.parquet", "texts.parquet", "features.parquet", "residuals.parquet", "paired.parquet")
    }


def test_statements_have_no_prompt_and_no_pairs_without_groups(config):
    records = [{"text": f"{pair['prompt']} {pair['fact']}", "label": True} for pair in PAIRS]
    records += [{"text": f"{pair['prompt']} {pair['hallucination']}", "label": False} for pair in PAIRS]
    result = run(config(records))
    found = read_run(result.path)
    assert found.arrangement == STATEMENTS
    assert not any("prompt" in name for name in found.metrics.columns if not name.endswith("prompt_cosine"))
    assert found.metrics["label"].sum() == len(PAIRS)
    assert "centroid_drift" not in found.metrics.columns and "entropy" in found.metrics.columns
    assert not (result.path / "paired.parquet").exists()
    assert found.texts["completion"].to_list() == [record["text"] for record in records]
    assert found.quarantine.columns == ["text_id", "prompt", "completion", "reason"]


def test_texts_of_one_prompt_make_pairs_the_shorter_side_repeated(config):
    prompt, other = PAIRS[0]["prompt"], PAIRS[1]
    said = [("a", True), ("b", False), ("c", False), ("d", True), ("e", False)]
    records = [{"id": id_, "prompt": prompt, "completion": f"word {id_}", "label": label} for id_, label in said]
    records.append({"id": "z", "prompt": other["prompt"], "completion": other["fact"], "label": True})
    paired = read_run(run(config(records)).path).table("paired.parquet")
    assert paired is not None and paired["pair_id"].to_list() == ["a+b", "d+c", "a+e"]


@pytest.mark.thorough
def test_every_strategy_measures_labelled_texts_alike(config):
    for records in (sides(PAIRS[:3]), [{"text": "Paris is in France", "label": 1}, {"text": "b c", "label": 0}]):
        phases = list(verify(config(records)))
        assert phases and all(phase.holds for phase in phases)


@pytest.mark.thorough
def test_a_labelled_run_goes_on_where_it_was_stopped(config, tmp_path):
    whole = run(config(sides(), "whole", engine={"shard_pairs": 2}))
    calls = []

    def stop(shard_pairs):
        calls.append(shard_pairs)
        if len(calls) == 2:
            raise KeyboardInterrupt

    class Progress:
        def start(self, total): ...
        def finish(self): ...

        def advance(self, pairs):
            stop(pairs)

    again = config(sides(), "again", engine={"shard_pairs": 2, "batch_size": 1})
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever a stop is
        run(again, progress=Progress())
    assert list((tmp_path / "again" / "shards").iterdir())
    resumed = run(replace(again, output=OutputOptions(resume=tmp_path / "again")))
    for name in ("metrics.parquet", "texts.parquet", "features.parquet", "paired.parquet"):
        ours, theirs = (pl.read_parquet(path / name) for path in (resumed.path, whole.path))
        assert ours.columns == theirs.columns
        assert ours.height == theirs.height, name
    same = run(replace(again, output=OutputOptions(resume=tmp_path / "again")))
    assert same.untouched


def test_what_cannot_be_measured_is_in_quarantine_with_its_texts(config):
    records = [*sides(PAIRS[:2]), {"id": "long", "prompt": "a", "completion": "word " * 5000, "label": 0}]
    result = run(config(records))
    (row,) = read_run(result.path).quarantine.iter_rows(named=True)
    assert row["text_id"] == "long" and "context" in row["reason"]
    assert result.merged.quarantined == 1


def test_doctor_and_dry_run_take_labelled_texts(config):
    made = config(sides())
    found = [check.title for check in diagnose(made).findings]
    expected = [check.title for check in diagnose(config(PAIRS, "pairs")).findings]
    assert set(found) == set(expected)
    made = RunConfig(data=made.data, model=made.model, measure=made.measure)
    assert forecast(made, ForecastOptions()).work.pairs == 2 * len(PAIRS)


def test_an_own_analysis_has_a_column_for_each_text(config, tmp_path):
    peak = per_read("peak", lambda m, layer: m.features(layer).max(), unit="activation units")
    found = run(config(sides(PAIRS[:2])), added=(peak,)).metrics()
    assert {"l0_peak", "l0_prompt_peak"} <= set(found.columns)


def test_a_position_between_two_texts_is_refused(config):
    with pytest.raises(InputError, match="--position divergence: labelled texts part from no other"):
        run(config(sides(), measure={"position": "divergence"}))


@pytest.mark.thorough
def test_python_takes_labelled_texts_in_memory(tiny_model, tiny_saes):
    table = bluffscope.analyze(sides(PAIRS[:2]), model=str(tiny_model), sae=str(tiny_saes), logprob=True)
    assert table["text_id"].to_list() == [f"p{k}/{side}" for k in (0, 1) for side in ("fact", "hall")]
    frame = pl.DataFrame([{"text": "Paris is in France", "label": True}, {"text": "It is not", "label": False}])
    assert bluffscope.analyze(frame, model=str(tiny_model), sae=str(tiny_saes))["label"].to_list() == [True, False]
