"""What a run's precision changed, against a computation by hand from the files of two runs."""

from __future__ import annotations

import gc
import json
import shutil
import statistics
import weakref
from dataclasses import replace

import polars as pl
import pytest
import yaml

import bluffscope
import bluffscope.api.closing
import bluffscope.runs.run
import tiny
from bluffscope.api import config_from, run
from bluffscope.compare.precision import SCHEMA, measure_fidelity
from bluffscope.errors import InputError
from random_pairs import random_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", random_pairs(3))


@pytest.fixture(scope="module")
def options(tiny_model, tiny_saes, data):
    return {"model": tiny_model, "sae": tiny_saes, "data": str(data), "noise_sweep": [0.5], "logprob": False}


@pytest.fixture(scope="module")
def half(options, tmp_path_factory):
    """A run in bfloat16 with its fidelity on six pairs."""
    out = tmp_path_factory.mktemp("half") / "run"
    return run(config_from(dtype="bfloat16", fidelity=6, out=out, **options), draw=False)


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """The same pairs, all of them, in float32."""
    return run(config_from(dtype="float32", out=tmp_path_factory.mktemp("whole") / "run", **options), draw=False)


def cells(run_result, ids, name):
    found = dict(run_result.metrics().select("pair_id", name).iter_rows())
    return [found[pair_id] for pair_id in ids]


def row(fidelity, metric, layer, part):
    (found,) = [
        each
        for each in fidelity.table.iter_rows(named=True)
        if (each["metric"], each["layer"], each["part"]) == (metric, layer, part)
    ]
    return found


def by_hand(ours, theirs):
    """n, median and maximum of the differences, and of them in standard deviations; one list a column."""
    deltas, relative = [], []
    for a, b in zip(ours, theirs, strict=True):
        found = [abs(x - y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        sd = statistics.stdev(y for y in b if y is not None)
        deltas += found
        relative += [delta / sd for delta in found] if sd else []
    return len(deltas), statistics.median(deltas), max(deltas), statistics.median(relative), max(relative)


NUMBERS = ("n", "median_delta", "max_delta", "median_relative", "max_relative")


@pytest.mark.parametrize("metric", ["l0_norm", "relative_error", "gini", "misalignment_angle", "sphericity"])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_per_layer_metrics_are_pooled_over_the_views(half, whole, layer, metric):
    ids = half.fidelity.pair_ids
    names = [f"l{layer}_{view}_{metric}" for view in ("prompt", "fact", "hall")]
    expected = by_hand([cells(half, ids, n) for n in names], [cells(whole, ids, n) for n in names])
    found = row(half.fidelity, metric, layer, "text")
    assert [found[name] for name in NUMBERS] == pytest.approx(expected, rel=2e-2, abs=2e-5)


@pytest.mark.parametrize(
    "metric", ["entropy", "stability", "stability_s0.5", "centroid_drift", "cross_layer_alignment"]
)
def test_pair_metrics_are_pooled_over_fact_and_hallucination_and_their_difference_stands_apart(half, whole, metric):
    ids = half.fidelity.pair_ids
    for part, ends in (("text", ("fact", "hall")), ("diff", ("diff",))):
        names = [f"{metric}_{end}" for end in ends]
        expected = by_hand([cells(half, ids, n) for n in names], [cells(whole, ids, n) for n in names])
        found = row(half.fidelity, metric, None, part)
        assert [found[name] for name in NUMBERS] == pytest.approx(expected, rel=2e-2, abs=2e-5)


def test_differences_of_per_layer_metrics_are_hallucination_less_fact(half, whole):
    ids = half.fidelity.pair_ids
    ours, theirs = (
        [h - f for h, f in zip(cells(r, ids, "l1_hall_gini"), cells(r, ids, "l1_fact_gini"), strict=True)]
        for r in (half, whole)
    )
    found = row(half.fidelity, "gini", 1, "diff")
    assert [found[name] for name in NUMBERS] == pytest.approx(by_hand([ours], [theirs]), rel=2e-2, abs=2e-5)


def test_features_are_counted_as_surviving_and_new(half, whole):
    ids = set(half.fidelity.pair_ids)
    for layer in (0, 1, 3):
        ours, theirs = (
            {
                (pair, view, feature)
                for pair, view, at, feature, _ in pl.read_parquet(r.path / "features.parquet").iter_rows()
                if at == layer and pair in ids
            }
            for r in (half, whole)
        )
        found = row(half.fidelity, "features", layer, "text")
        assert found["n"] == pytest.approx(len(theirs), abs=1)
        assert found["surviving"] == pytest.approx(len(ours & theirs) / len(theirs), abs=2 / len(theirs))
        assert found["new"] == pytest.approx(len(ours - theirs) / len(ours), abs=2 / len(ours))
    assert any(row(half.fidelity, "features", layer, "text")["surviving"] < 1 for layer in (0, 1, 3))


def test_changed_is_the_share_of_other_classes_and_of_cells_defined_in_one_run_only(half, whole, tmp_path):
    folder = shutil.copytree(half.path, tmp_path / "run")
    ids = half.fidelity.pair_ids
    damaged = half.metrics().with_columns(
        pl.when(pl.col("pair_id") == ids[0]).then(None).otherwise("entropy_fact").alias("entropy_fact"),
        pl.when(pl.col("pair_id") == ids[1])
        .then(pl.lit("x"))
        .otherwise("l0_hall_shape_class")
        .alias("l0_hall_shape_class"),
    )
    metadata = pl.read_parquet_metadata(half.path / "metrics.parquet")
    damaged.write_parquet(folder / "metrics.parquet", metadata={k: v for k, v in metadata.items() if "ARROW" not in k})
    before, after = half.fidelity, measure_fidelity(folder, pairs=6)
    assert after.pair_ids == before.pair_ids
    assert row(after, "entropy", None, "text")["changed"] == pytest.approx(1 / 12)
    assert row(after, "entropy", None, "text")["n"] == row(before, "entropy", None, "text")["n"] - 1
    names = [f"l0_{view}_shape_class" for view in ("prompt", "fact", "hall")]
    theirs = [cells(whole, ids, name) for name in names]
    ours = [
        [*column] for column in zip(*damaged.filter(pl.col("pair_id").is_in(ids)).select(names).rows(), strict=True)
    ]
    other = sum(a != b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
    assert other >= 1
    assert row(after, "shape_class", 0, "text")["changed"] == pytest.approx(other / 18)


def test_pairs_are_spread_evenly_and_stand_in_input_order(half, data):
    order = [json.loads(line)["id"] for line in data.read_text().splitlines()]
    places = [order.index(pair_id) for pair_id in half.fidelity.pair_ids]
    assert places == [1, 3, 5, 8, 10, 12]  # the middles of six stretches of fourteen


def test_the_folder_holds_the_comparison(half):
    table = pl.read_parquet(half.path / "fidelity.parquet")
    assert table.equals(half.fidelity.table)
    assert dict(table.schema) == SCHEMA
    manifest = json.loads((half.path / "manifest.json").read_text())
    assert manifest == half.manifest
    entry = manifest["fidelity"]
    assert (entry["dtype"], entry["quantize"], entry["reference"]) == ("bfloat16", "none", "float32")
    assert entry["pairs"] == list(half.fidelity.pair_ids)
    assert len(entry["features"]) == 3
    assert len(entry["features"]) + len(entry["metrics"]) == len(table)
    assert (manifest["dtype"], manifest["counts"]["measured"]) == ("bfloat16", 14)


@pytest.mark.thorough
def test_a_finished_run_is_compared_later_even_when_its_data_are_gone(options, tmp_path, tiny_model, tiny_saes, half):
    pairs = tmp_path / "pairs.jsonl"
    shutil.copy(options["data"], pairs)
    plain = run(config_from(**{**options, "data": str(pairs)}, dtype="bfloat16", out=tmp_path / "run"), draw=False)
    assert plain.fidelity is None
    assert "fidelity" not in plain.manifest
    pairs.unlink()
    later = bluffscope.measure_fidelity(tmp_path / "run", pairs=6)
    assert later.table.equals(half.fidelity.table)
    assert measure_fidelity(str(tmp_path / "run"), pairs=99).pair_ids == tuple(plain.metrics()["pair_id"])


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_compare_too_the_finer_the_nearer(options, half, tmp_path, dtype):
    found = run(config_from(**options, dtype=dtype, fidelity=6, out=tmp_path / "run"), draw=False).fidelity
    gini, coarse = (row(fidelity, "gini", 1, "text")["median_delta"] for fidelity in (found, half.fidelity))
    assert 0 < gini < coarse / 2


@pytest.mark.thorough
def test_int8_weights_compare_too(options, tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed (extra quant)")
    result = run(config_from(**options, quantize="int8", fidelity=3, out=tmp_path / "run"), draw=False)
    assert (result.manifest["quantize"], result.manifest["dtype"]) == ("int8", "float32")
    assert pl.read_parquet_metadata(tmp_path / "run" / "metrics.parquet")["quantize"] == "int8"
    assert result.fidelity.quantize == "int8"
    assert row(result.fidelity, "gini", 3, "text")["median_delta"] > 0


@pytest.mark.thorough
def test_some_analyses_and_completion_mean_compare_what_they_have(options, tmp_path):
    chosen = tuple(analysis for analysis in bluffscope.ANALYSES if analysis.name == "entropy")
    config = config_from(**options, dtype="bfloat16", position="completion-mean", fidelity=3, out=tmp_path / "run")
    found = run(config, analyses=chosen, draw=False).fidelity
    assert set(found.table["metric"]) == {"features", "entropy"}
    assert measure_fidelity(tmp_path / "run", pairs=3).table.equals(found.table)


@pytest.mark.thorough
def test_the_run_s_own_model_is_gone_before_the_next_is_loaded(options, tmp_path, monkeypatch):
    models, alive = [], []
    build = bluffscope.runs.workers.build_worker

    def watched(*arguments):
        alive.append([model() is not None for model in models])
        worker = build(*arguments)
        models.append(weakref.ref(worker.reader.model.network))
        return worker

    monkeypatch.setattr(bluffscope.runs.workers, "build_worker", watched)
    run(config_from(**options, dtype="bfloat16", fidelity=2, out=tmp_path / "run"), draw=False)
    gc.collect()
    assert alive == [[], [False]]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"fidelity": -1, "dtype": "bfloat16"}, "--fidelity -1: give a number that is 0 or more"),
        ({"fidelity": 3}, "--fidelity 3: the run is in float32 without quantisation"),
        ({"fidelity": 3, "dtype": "float32"}, "there is nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(options, tmp_path, wrong, says):
    with pytest.raises(InputError, match=says):
        run(config_from(**options, **wrong, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_compared_is_refused(half, whole, tmp_path):
    with pytest.raises(InputError, match="the run is in float32"):
        measure_fidelity(whole.path, pairs=2)
    with pytest.raises(InputError, match="no pair to compare; give at least 1"):
        measure_fidelity(half.path, pairs=0)
    with pytest.raises(InputError, match="is missing: expected the folder of a run"):
        measure_fidelity(tmp_path / "no", pairs=2)


def test_a_folder_does_not_choose_the_cluster_that_measures_it_again(half, tmp_path):
    shutil.copytree(half.path, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    config["engine"] |= {"engine": "ray", "address": "10.0.0.1:6379"}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(InputError, match=r"a Ray cluster; if it is yours, give address='10\.0\.0\.1:6379'$"):
        measure_fidelity(tmp_path / "run", pairs=2)


def test_a_comparison_that_fails_leaves_the_run_complete_and_says_so(options, tmp_path, monkeypatch):
    def gone(*arguments, **more):
        raise InputError("--model x: it needs more memory than is available; give a smaller model")

    monkeypatch.setattr(bluffscope.api.closing, "measure_fidelity", gone)
    config = config_from(**options, dtype="bfloat16", fidelity=2, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"^the run is complete in .*run, but not its fidelity: --model x: it needs"):
        run(config, draw=False)
    assert bluffscope.read_run(tmp_path / "run").metrics.height == 14


@pytest.mark.thorough
def test_a_replay_keeps_quantisation_and_fidelity(half, tmp_path, options):
    from bluffscope.config.yaml_file import load_config

    config = load_config(half.path / "config.yaml")
    assert (config.output.fidelity, config.model.quantize, config.model.dtype) == (6, "none", "bfloat16")
    again = run(replace(config, output=replace(config.output, out=tmp_path / "run")), draw=False)
    assert again.fidelity.table.equals(half.fidelity.table)


def test_the_same_run_against_itself_differs_nowhere(half, monkeypatch):
    asked = []

    def copy(config, analyses):
        asked.append((config.model.dtype, config.model.quantize, config.output.fidelity))
        shutil.copytree(half.path, config.output.out)

    monkeypatch.setattr(bluffscope.runs.run, "run", copy)
    copied = measure_fidelity(half.path, pairs=6)
    assert asked == [("float32", "none", 0)]
    metrics = copied.table.filter(pl.col("metric") != "features")
    assert metrics["max_delta"].drop_nulls().to_list() == [0.0] * metrics["max_delta"].count()
    assert metrics["changed"].to_list() == [0.0] * len(metrics)
    features = copied.table.filter(pl.col("metric") == "features")
    assert (features["surviving"].to_list(), features["new"].to_list()) == ([1.0] * 3, [0.0] * 3)
