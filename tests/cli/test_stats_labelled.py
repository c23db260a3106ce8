"""Statistics of labelled runs, over the texts of both sides of bundled pairs: `stats`, `compare`, `bluffscope.run`."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest

import bluffscope
import made_runs
from bluffscope.config import DataOptions
from bluffscope.pairs import open_source
from bluffscope.stats import LABELLED_SCHEMA
from bluffscope.stats.length_functions import length_basis
from bluffscope.stats.study import label_numbers


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run over the facts and hallucinations of all bundled pairs, as texts with a group for each pair."""
    folder = tmp_path_factory.mktemp("labelled")
    with (folder / "texts.jsonl").open("w") as file:
        for pair in open_source(DataOptions(data="bluff200")).pairs():
            for side, label in (("fact", True), ("hall", False)):
                text = {"id": f"{pair.id}/{side}", "prompt": pair.prompt, "domain": pair.domain, "group": pair.id}
                completion = pair.fact if label else pair.hallucination
                file.write(json.dumps(text | {"completion": completion, "label": label, "score": 0.5}) + "\n")
    options = {"layers": (2,), "logprob": True, "keep_residuals": True}
    return bluffscope.run(folder / "texts.jsonl", out=folder / "run", **options).path


@pytest.fixture
def run(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "run")


def test_a_labelled_run_is_judged_from_its_folder(call, run):
    outcome = call("stats", run, "--full")
    assert outcome.code == 0, outcome.err
    assert "true from false texts at equal lengths" in " ".join(outcome.out.split())
    assert "400 texts in 200 clusters (largest 2, by group)" in outcome.out
    assert "hallucination" not in outcome.out
    rows = pl.read_parquet(run / "stats.parquet")
    assert rows.schema == LABELLED_SCHEMA
    names = set(rows["metric"])
    assert {"l2_gini", "entropy", "logprob"} < names
    assert not [name for name in names if name.startswith("l2_prompt_") or name in ("score", "text_tokens")]
    assert rows.filter(metric="l2_sphericity", scope="pooled")["verdict"].to_list() == ["separates"]
    about = json.loads((run / "stats.json").read_text())
    assert (about["items"], about["texts"], about["true"], about["false"]) == ("texts", 400, 200, 200)
    assert set(pl.read_parquet(run / "ladder.parquet")["rung"]) == {"raw", "length", "length_logprob"}
    assert bluffscope.read_run(run).stats.equals(rows)


@pytest.mark.thorough
def test_a_run_is_tested_as_statsmodels_tests_it(call, run, tmp_path):
    import statsmodels.api as sm  # seconds

    assert call("stats", run, "--cluster-by", "text_id", "--out", tmp_path / "alone").code == 0
    stated = pl.read_parquet(tmp_path / "alone" / "stats.parquet").filter(scope="pooled", metric="l2_elongation")
    found = stated.row(0, named=True)
    table = pl.read_parquet(run / "metrics.parquet")
    false, domains = (~table["label"]).to_numpy().astype(float), label_numbers(table["domain"])
    lengths = [table[name].to_numpy().astype(float) for name in ("text_tokens", "prompt_tokens")]
    held = np.column_stack([np.eye(4)[domains], *(length_basis(length, domains) for length in lengths)])
    full = [held[:, [column]] for column in range(held.shape[1])]
    kept = full[0]
    for column in full[1:]:  # functions of few lengths repeat each other
        wider = np.column_stack([kept, column / np.abs(column).max()])
        kept = wider if np.linalg.matrix_rank(wider) > kept.shape[1] else kept
    values = table["l2_elongation"].to_numpy()
    raw = sm.OLS(values, sm.add_constant(false)).fit(cov_type="HC3", use_t=True)
    adjusted = sm.OLS(values, np.column_stack([false, kept])).fit(cov_type="HC3", use_t=True)
    assert (found["mean_diff"], found["p"]) == pytest.approx((raw.params[1], raw.pvalues[1]), rel=1e-6)
    assert (found["adj_mean_diff"], found["adj_p"]) == pytest.approx(
        (adjusted.params[0], adjusted.pvalues[0]), rel=1e-5
    )


def test_a_planted_effect_separates_and_length_alone_does_not(call, run, tmp_path):
    table = pl.read_parquet(run / "metrics.parquet").join(pl.read_parquet(run / "texts.parquet"), on="text_id")
    rng = np.random.default_rng(0)
    length = table["text_tokens"].to_numpy() + 3 * (~table["label"]).to_numpy() * rng.integers(0, 3, table.height)
    noise = rng.normal(size=(2, table.height))
    made = table.select(
        "text_id", "label", "domain", "group", "completion", text_tokens=pl.Series(length)
    ).with_columns(
        planted=pl.Series(noise[0]) + 0.8 * (~pl.col("label")), length_alone=pl.Series(noise[1]) + length / 2
    )
    for path in (tmp_path / "made.parquet", tmp_path / "made.csv"):
        made.write_parquet(path) if path.suffix == ".parquet" else made.write_csv(path)
        outcome = call("stats", path)
        assert outcome.code == 0, outcome.err
        pooled = pl.read_parquet(tmp_path / "stats.parquet").filter(scope="pooled")
        assert dict(pooled.select("metric", "verdict").iter_rows()) == {
            "planted": "separates",
            "length_alone": "confounded",
        }


@pytest.mark.thorough
def test_by_family_and_clusters_are_options_of_texts_too(call, run):
    outcome = call("stats", run, "--by", "label", "--family", "all", "--cluster-by", "prompt")
    assert outcome.code == 0, outcome.err
    about = json.loads((run / "stats.json").read_text())
    assert (about["family"], about["cluster_by"]) == ("all", "prompt")
    assert about["scopes"][-1]["scope"] == "label=false"
    rows = pl.read_parquet(run / "stats.parquet").filter(pl.col("scope").str.starts_with("label="))
    reasons = rows.filter(pl.col("metric") != "cross_layer_consistency")["reason"]
    assert set(reasons) == {"only 0 texts of a label, fewer than 10"}


def test_pairs_of_a_labelled_run_have_statistics_elsewhere(call, run, tmp_path):
    outcome = call("stats", run / "paired.parquet")
    assert outcome.code == 2
    assert "lies in a run over labelled texts, whose statistics these would replace: give --out" in outcome.err
    assert call("stats", run / "paired.parquet", "--out", tmp_path / "pairs").code == 0
    rows = pl.read_parquet(tmp_path / "pairs" / "stats.parquet").filter(metric="l2_sphericity", scope="pooled")
    assert rows["verdict"].to_list() == ["separates"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pairs", "bluff200"), "--pairs is for tables of pairs"),
        (("--by-order",), "--by-order matches a table with --pairs"),
        (("--by", "mood"), "--by mood: no such column in the table or the texts"),
        (("--cluster-by", "mood"), "--cluster-by mood: no such column"),
    ],
    ids=["pairs", "by order", "by", "cluster by"],
)
def test_what_makes_no_sense_for_texts_is_one_line(call, run, options, said):
    outcome = call("stats", run, *options)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_two_runs_over_the_same_texts_are_compared_text_by_text(call, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    table = pl.read_parquet(other / "metrics.parquet")
    keep = pl.read_parquet_metadata(other / "metrics.parquet")
    shift = pl.when("label").then(0.0).otherwise(pl.Series(np.random.default_rng(1).normal(0.5, 0.1, table.height)))
    changed = table.with_columns(l2_gini=pl.col("l2_gini") + shift).sample(fraction=1, shuffle=True, seed=1)
    changed.write_parquet(other / "metrics.parquet", metadata={k: v for k, v in keep.items() if k != "ARROW:schema"})
    outcome = call("compare", run, other, "--out", tmp_path / "compared")
    assert outcome.code == 0, outcome.err
    assert "400 shared texts (of 400 in the first run and 400 in this one)" in outcome.out
    rows = pl.read_parquet(tmp_path / "compared" / "compare.parquet").filter(scope="pooled")
    moved = rows.filter(metric="l2_gini").row(0, named=True)
    assert moved["mean_change"] == pytest.approx(0.5, abs=0.03)
    assert moved["mean_other"] - moved["mean_first"] == pytest.approx(moved["mean_change"])
    assert moved["q"] < 1e-6
    same = rows.filter(metric="entropy").row(0, named=True)
    assert (same["mean_change"], same["p"], same["agrees"]) == (0, None, True)
    assert same["pearson"] == pytest.approx(1)


def test_texts_are_compared_with_pairs_metric_by_metric(call, run, tmp_path):
    pairs = made_runs.make_run(tmp_path / "pairs", effect=2.0)
    outcome = call("compare", pairs, run, "--out", tmp_path / "compared")
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())  # the completion gives the label away here, so nothing is judged
    assert said.startswith("Whether what separates the pairs separates the texts cannot be said")
    assert "shared question" in said
    rows = pl.read_parquet(tmp_path / "compared" / "compare.parquet")
    assert {"l2_gini", "entropy"} <= set(rows["metric"])
    assert max(map(len, outcome.out.splitlines()[:-1])) <= 110


def test_a_labelled_run_is_an_object_as_any_other(run):
    opened = bluffscope.read_run(run)
    residuals, matrix = opened.residuals(2, "text"), opened.feature_matrix(2, "prompt")
    assert (residuals.shape[0], matrix.shape) == (400, (400, 2048))
    order = opened.metrics["text_id"].to_list()
    kept = opened.kept_residuals.filter(pl.col("text_id") == order[7], view="text").collect()["values"][0]
    assert np.allclose(residuals[7], kept, rtol=1e-6)
    with pytest.raises(bluffscope.errors.InputError, match="it has layers 2 and views prompt, text"):
        opened.residuals(2, "fact")
    assert "400 texts" in opened._repr_html_()
    assert "data" in json.dumps(opened.plot("l2_gini").to_dict())
    assert opened.plot().to_dict()
