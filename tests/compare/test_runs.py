"""Runs compared: against scipy by hand, and over dtypes, seeds, layers, models and data that differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats

import bluffscope
import tiny
from bluffscope.compare.precision import FEATURES
from bluffscope.compare.runs import COMPARE_SCHEMA, compare_all, match_layers, with_agreement
from bluffscope.errors import InputError
from bluffscope.stats import Resampling, analyse_table
from bluffscope.table.reader import Run
from random_pairs import random_pairs
from studies import jackknife

COUNT = 24


@pytest.fixture(scope="module")
def records():
    """Pairs with a column of their own."""
    said = [
        r for r in random_pairs(40, count=2 * COUNT) if all(str(r[name]).strip() for name in ("fact", "hallucination"))
    ]
    return [{**record, "known": "yes" if n % 3 else "no"} for n, record in enumerate(said[:COUNT])]


@pytest.fixture(scope="module")
def make(tmp_path_factory, tiny_model, tiny_saes, records):
    """A run's folder with options; the tiny Gemma 2 in float32, its layers 0, 1 and 3, unless given."""
    root = tmp_path_factory.mktemp("runs")

    def run(name, pairs=None, **options) -> Run:
        tiny = {"model": str(tiny_model), "sae": str(tiny_saes), "noise_draws": 2, "device": "cpu", "logprob": False}
        options = {**tiny, **options}
        if not (root / name).exists():
            bluffscope.analyze(records if pairs is None else pairs, out=root / name, **options)
        return bluffscope.read_run(root / name)

    return run


@pytest.fixture(scope="module")
def plain(make):
    return make("plain")


@pytest.fixture(scope="module")
def half(make):
    return make("half", dtype="bfloat16")


def only(result):
    (pair,) = result.others
    return pair


def row(result, metric, scope="pooled"):
    return result.rows.row(by_predicate=(pl.col("metric") == metric) & (pl.col("scope") == scope), named=True)


def diffs(run, fact, hall, ids=None):
    table = run.metrics if ids is None else run.metrics.filter(pl.col("pair_id").is_in(ids))
    return (table[hall] - table[fact]).to_numpy()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("metric", "fact", "hall"),
    [("l1_gini", "l1_fact_gini", "l1_hall_gini"), ("entropy", "entropy_fact", "entropy_hall")],
)
@pytest.mark.parametrize("scope", ["pooled", "a", "known=no"])
def test_changes_and_correlations_are_scipy_s(plain, half, records, metric, fact, hall, scope):
    result = compare_all([plain, half], by=["known"])
    chosen = {"pooled": records, "a": [r for r in records if r["domain"] == "a"]}
    chosen["known=no"] = [r for r in records if r["known"] == "no"]
    ids = [r["id"] for r in chosen[scope]]
    first, other = diffs(plain, fact, hall, ids), diffs(half, fact, hall, ids)
    change = other - first
    found = row(result, metric, scope)
    assert found["n"] == len(ids)
    expected = {
        "mean_first": first.mean(),
        "mean_other": other.mean(),
        "mean_change": change.mean(),
        "sd_change": change.std(ddof=1),
        "dz_change": change.mean() / change.std(ddof=1),
        "change_in_sd": change.mean() / first.std(ddof=1),
        "p_wilcoxon": scipy.stats.wilcoxon(change, correction=False, method="approx").pvalue,
        "pearson": scipy.stats.pearsonr(first, other).statistic,
        "spearman": scipy.stats.spearmanr(first, other).statistic,
        "dz_first": first.mean() / first.std(ddof=1),
        "dz_other": other.mean() / other.std(ddof=1),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert 0 < found["sd_change"] < first.std(ddof=1)


@pytest.mark.thorough
def test_q_values_are_corrected_within_each_scope(plain, half):
    rows = compare_all([plain, half]).rows
    assert rows.schema == COMPARE_SCHEMA
    for scope in ("a", "b", "pooled"):
        tested = rows.filter(pl.col("scope") == scope, pl.col("p").is_not_null())
        of_scope = tested.filter(pl.col("metric") != "cross_layer_consistency")
        assert tested.filter(metric="cross_layer_consistency")["q"].to_list() == [None]
        expected = scipy.stats.false_discovery_control(of_scope["p"])
        assert of_scope["q"].to_list() == pytest.approx(expected.tolist(), rel=1e-9)


@pytest.mark.thorough
def test_the_change_is_tested_over_clusters_and_its_interval_agrees_with_its_p(plain, half):
    rows = compare_all([plain, half]).rows.filter(pl.col("p").is_not_null())
    assert rows.height > 30
    within = (rows["dz_change_lo"] <= 0) & (rows["dz_change_hi"] >= 0)
    assert within.to_list() == (rows["p"] > 0.05).to_list()
    assert (rows["dz_change_lo"] < rows["dz_change"]).all()
    assert (rows["dz_change"] < rows["dz_change_hi"]).all()
    change = diffs(half, "l1_fact_gini", "l1_hall_gini") - diffs(plain, "l1_fact_gini", "l1_hall_gini")
    clusters = plain.metrics["group"].rank("dense").to_numpy().astype(int)
    effect, error = jackknife(change[:, None], np.empty((COUNT, 0)), clusters, np.ones(COUNT))
    number = len(set(clusters.tolist()))
    expected = 2 * scipy.stats.t.sf(abs(effect[0] / error[0]), number - 1)
    assert row(compare_all([plain, half]), "l1_gini")["p"] == pytest.approx(expected, rel=1e-9)


def test_verdicts_are_those_of_the_statistics_on_each_run(plain, half):
    result = compare_all([plain, half])
    for run, side in ((plain, "first"), (half, "other")):
        expected = analyse_table(run.metrics, run.pairs, resampling=Resampling(flips=99)).rows
        joined = result.rows.join(expected, on=["metric", "scope"], how="inner")
        assert joined.height == result.rows.height == expected.height
        assert joined[f"verdict_{side}"].to_list() == joined["verdict"].to_list()
        for name in ("dz", "adj_dz"):
            assert joined[f"{name}_{side}"].equals(joined[name])
        assert joined["dz"].count() > 0.9 * joined.height
    assert (
        result.rows["same_verdict"].to_list()
        == (result.rows["verdict_first"] == result.rows["verdict_other"]).to_list()
    )


def test_a_run_agrees_with_its_copy_in_everything(plain, tmp_path):
    copy = bluffscope.read_run(shutil.copytree(plain.path, tmp_path / "copy"))
    result = compare_all([plain, copy])
    pair = only(result)
    assert (pair.shared, pair.differences, pair.same_model, pair.unmatched, pair.notes) == (COUNT, {}, True, (), ())
    assert result.rows["agrees"].all()
    assert result.rows["mean_change"].drop_nulls().to_list() == [0.0] * result.rows["mean_change"].count()
    assert result.rows["p_wilcoxon"].null_count() == result.rows["p"].null_count() == result.rows.height
    assert row(result, "l0_gini")["pearson"] == pytest.approx(1)
    features = pair.fidelity.filter(metric=FEATURES)
    assert features["layer"].to_list() == [0, 1, 3]
    assert (features["surviving"].to_list(), features["new"].to_list()) == ([1.0] * 3, [0.0] * 3)


def test_another_dtype_shows_in_options_and_fidelity(plain, half):
    pair = only(compare_all([plain, half]))
    assert {name: values for name, values in pair.differences.items() if name.startswith("m")} == {
        "model.dtype": ("float32", "bfloat16")
    }
    assert pair.same_model
    for layer in (0, 1, 3):
        ours, theirs = (
            set(
                run.features.filter(pl.col("layer") == layer).select("pair_id", "view", "feature").collect().iter_rows()
            )
            for run in (half, plain)
        )
        found = pair.fidelity.row(by_predicate=(pl.col("metric") == FEATURES) & (pl.col("layer") == layer), named=True)
        assert found["n"] == len(theirs)
        assert found["surviving"] == pytest.approx(len(ours & theirs) / len(theirs))
        assert found["new"] == pytest.approx(len(ours - theirs) / len(ours))
    assert pair.fidelity.filter(metric=FEATURES)["surviving"].min() < 1
    gini = pair.fidelity.filter(metric="gini", layer=1, part="text").row(0, named=True)
    assert 0 < gini["median_delta"] < gini["max_delta"]


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.thorough
def test_saes_are_known_again_whatever_the_precision_that_holds_their_weights(plain, make, dtype):
    pair = only(compare_all([plain, make("half" if dtype == "bfloat16" else dtype, dtype=dtype)]))
    assert pair.fidelity.filter(metric=FEATURES)["layer"].to_list() == [0, 1, 3]


@pytest.mark.thorough
def test_another_seed_changes_stability_alone(plain, make):
    result = compare_all([plain, make("seed", seed=9)])
    assert only(result).differences["measure.seed"] == (0, 9)
    pooled = result.rows.filter(scope="pooled")
    changed = pooled.filter(pl.col("mean_change") != 0)["metric"].to_list()
    assert changed == ["stability"]
    assert row(result, "stability")["pearson"] < 0.999


@pytest.mark.thorough
def test_layers_that_differ_are_matched_by_name_and_order(plain, make):
    result = compare_all([make("shallow", layers=(0, 1)), make("deep", layers=(0, 3))])
    pair = only(result)
    assert pair.layers == ((0, 0), (1, 3))
    assert pair.differences["model.layers"] == ([0, 1], [0, 3])
    found = row(result, "l1_gini")
    assert (found["metric_other"], row(result, "l0_gini")["metric_other"]) == ("l3_gini", "l0_gini")
    assert found["mean_first"] == pytest.approx(diffs(plain, "l1_fact_gini", "l1_hall_gini").mean(), rel=1e-4)
    assert found["mean_other"] == pytest.approx(diffs(plain, "l3_fact_gini", "l3_hall_gini").mean(), rel=1e-4)
    # Features are compared where the layer, and so the SAE, is the same.
    assert set(pair.fidelity["layer"].drop_nulls()) == {0}
    assert pair.unmatched == ()


@pytest.mark.parametrize(
    ("first", "other", "same_model", "expected"),
    [
        ((5, 12, 20), (5, 12, 20), True, ((5, 5), (12, 12), (20, 20))),
        ((5, 12, 20), (12, 5), True, ((5, 5), (12, 12))),
        ((5, 12, 20), (12, 25), True, ((5, 25), (12, 12))),
        ((5, 12, 20), (2, 5, 8), False, ((5, 2), (12, 5), (20, 8))),
        ((3,), (7,), True, ((3, 7),)),
        ((3, 4), (7,), False, ((3, 7),)),
    ],
)
def test_layers_of_one_model_go_by_their_number_first_those_of_two_by_their_order(first, other, same_model, expected):
    assert match_layers(first, other, same_model=same_model) == expected


@pytest.mark.thorough
def test_another_model_has_verdicts_and_correlations_but_no_fidelity(plain, make, tmp_path_factory):
    other = tiny.save_model(tmp_path_factory.mktemp("models") / "gemma2", "gemma2", seed=1)
    result = compare_all([plain, make("other-model", model=str(other))])
    pair = only(result)
    assert (pair.same_model, pair.fidelity, pair.shared) == (False, None, COUNT)
    assert pair.differences["model.model"][1] == str(other)
    assert abs(row(result, "l1_gini")["pearson"]) < 0.95


def test_the_same_weights_in_another_folder_are_the_same_model(plain, make, tiny_model, tiny_saes, tmp_path_factory):
    root = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(tiny_model, root / "model")
    shutil.copytree(tiny_saes, root / "saes")
    pair = only(compare_all([plain, make("moved", model=str(root / "model"), sae=str(root / "saes"))]))
    assert pair.same_model
    assert pair.fidelity.filter(metric=FEATURES)["surviving"].to_list() == [1.0] * 3


@pytest.mark.thorough
def test_other_saes_have_no_fidelity_even_in_one_model(plain, make, tmp_path_factory):
    saes = tiny.save_saes(tmp_path_factory.mktemp("saes"), seed=50)
    pair = only(compare_all([plain, make("other-saes", sae=str(saes))]))
    assert (pair.same_model, pair.fidelity) == (True, None)


@pytest.mark.thorough
def test_pairs_are_matched_by_id_and_text_whatever_their_order_and_number(plain, make, records):
    some = [{**r, "fact": "other"} if n == 3 else r for n, r in enumerate(records[:16])][::-1]
    result = compare_all([plain, make("some", pairs=[*some, {**records[0], "id": "extra"}])])
    pair = only(result)
    assert (pair.shared, pair.pairs, pair.other_texts) == (15, (COUNT, 17), 1)
    ids = [r["id"] for n, r in enumerate(records[:16]) if n != 3]
    found = row(result, "entropy")
    assert found["n"] == 15
    assert found["mean_first"] == pytest.approx(diffs(plain, "entropy_fact", "entropy_hall", ids).mean(), rel=1e-9)
    assert found["mean_change"] == pytest.approx(0, abs=1e-5)
    assert pair.fidelity.filter(metric=FEATURES)["surviving"].min() > 0.99


@pytest.mark.thorough
def test_what_one_run_lacks_is_named(plain, make):
    result = compare_all([plain, make("likely", logprob=True)])
    assert only(result).unmatched == ("logprob", "logprob_per_token")
    assert only(result).differences["measure.logprob"] == ("off", "on")
    assert only(result).same_model
    assert "logprob" not in result.rows["metric"]


def test_what_one_run_lacks_does_not_count_in_the_family_of_the_other(plain, tmp_path):
    shutil.copytree(plain.path, tmp_path / "fewer")
    kept = [name for name in plain.metrics.columns if not name.startswith("l3_")]
    fewer = plain.metrics.select(kept)
    fewer.write_parquet(tmp_path / "fewer" / "metrics.parquet", metadata=plain.metadata)
    result = compare_all([plain, Run(tmp_path / "fewer")])
    assert any(name.startswith("l3_") for name in only(result).unmatched)
    assert result.rows["agrees"].all()
    wanted = {(r["metric"], r["scope"]): r["verdict"] for r in analyse_table(fewer, plain.pairs).rows.to_dicts()}
    assert all(r["verdict_first"] == wanted[r["metric"], r["scope"]] for r in result.rows.to_dicts())


@pytest.mark.thorough
def test_of_many_pairs_the_same_groups_are_drawn_on_both_sides_and_that_is_said(plain, half):
    result = compare_all([plain, half], most=10)
    drawn = only(result).shared
    assert 0 < drawn <= 10
    assert f"Of {COUNT} pairs, {drawn} were looked at: whole groups drawn at random, seed 0." in only(result).notes
    assert result.rows.filter(scope="pooled")["n"].max() == drawn
    assert only(compare_all([plain, half], most=COUNT)).notes == only(compare_all([plain, half])).notes == ()


@pytest.mark.thorough
def test_every_further_run_is_compared_with_the_first(plain, half, make):
    seed = make("seed", seed=9)
    together, apart = compare_all([plain, half, seed]), compare_all([plain, seed])
    assert [pair.run for pair in together.others] == [str(half.path), str(seed.path)]
    assert together.rows.filter(run=str(seed.path)).equals(apart.rows)


def test_signs_count_where_an_effect_is_shown():
    cases = [
        (("separates", 1.0), ("separates", 0.5), (True, True, True)),
        (("separates", 1.0), ("separates", -0.5), (True, False, False)),
        (("inconclusive", 0.1), ("inconclusive", -0.1), (True, False, True)),
        (("separates", 1.0), ("inconclusive", 1.0), (False, True, False)),
        (("inconclusive", None), ("inconclusive", None), (True, None, True)),
        (("confounded", None), ("confounded", 1.0), (True, None, False)),
    ]
    names = ("verdict_first", "mean_diff_first", "verdict_other", "mean_diff_other")
    rows = pl.DataFrame([(*first, *other) for first, other, _ in cases], schema=names, orient="row")
    found = with_agreement(rows).select("same_verdict", "same_sign", "agrees")
    assert found.rows() == [expected for _, _, expected in cases]


def test_a_redefined_metric_and_another_version_are_said(plain, tmp_path):
    import json

    folder = shutil.copytree(plain.path, tmp_path / "newer")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["packages"]["bluffscope"] = "9.9"
    manifest["metric_versions"] |= {"l1_fact_gini": 2, "entropy_fact": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    notes = " ".join(only(compare_all([plain, bluffscope.read_run(folder)])).notes)
    assert "and 9.9" in notes
    assert "so not comparable: l1_gini, entropy." in notes


def test_undefined_and_constant_metrics_are_null_not_zero(plain, tmp_path):
    folder = shutil.copytree(plain.path, tmp_path / "odd")
    metadata = pl.read_parquet_metadata(plain.path / "metrics.parquet")
    table = plain.metrics.with_columns(
        entropy_hall=pl.lit(None, pl.Float64),
        l1_hall_gini=pl.col("l1_fact_gini"),
        l3_hall_gini=pl.col("l3_hall_gini") + np.where(np.arange(COUNT) < 20, np.nan, 0.0),
    )
    table.write_parquet(folder / "metrics.parquet", metadata={k: v for k, v in metadata.items() if "ARROW" not in k})
    result = compare_all([plain, bluffscope.read_run(folder)])
    empty, constant, few = row(result, "entropy"), row(result, "l1_gini"), row(result, "l3_gini")
    assert (empty["n"], empty["mean_first"], empty["pearson"]) == (0, None, None)
    assert (constant["n"], constant["pearson"], constant["spearman"]) == (COUNT, None, None)
    assert constant["mean_other"] == 0
    assert (few["n"], few["p"], few["dz_change_lo"], few["p_wilcoxon"]) == (4, None, None, None)


def test_what_cannot_be_compared_is_refused(plain, make, records, tmp_path):
    with pytest.raises(InputError, match="expected two or more runs to compare, got 1: give the folders of all"):
        compare_all([plain])
    with pytest.raises(InputError, match="is given twice"):
        compare_all([plain, bluffscope.read_run(Path(plain.path.parent, "..", plain.path.parent.name, "plain"))])
    foreign = make("foreign", pairs=[{**r, "id": f"x{n}"} for n, r in enumerate(records[:5])])
    with pytest.raises(InputError, match=r"share no pair \(no pair id is in both\)"):
        compare_all([plain, foreign])
    retold = make("retold", pairs=[{**r, "prompt": "Other"} for r in records[:5]])
    with pytest.raises(InputError, match=r"share no pair \(the 5 ids in common have other texts\)"):
        compare_all([plain, retold])
    with pytest.raises(InputError, match="--by mood: no such column"):
        compare_all([plain, make("half", dtype="bfloat16")], by=["mood"])
