"""A run as an object: its tables, statistics, page, plots and matrices, and what a notebook shows of it."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
import torch

import bluffscope
import made_runs
import tiny
from bluffscope.compare.runs import compare_all
from bluffscope.detectors.files import write_detector
from bluffscope.detectors.train import train
from bluffscope.errors import InputError
from bluffscope.report.write import write_report
from bluffscope.stats import analyse_table


@pytest.fixture(scope="module", params=["last", "completion-mean"])
def kept(request, tiny_model, tiny_saes, tmp_path_factory):
    """A run that kept its residuals, one pair of it in quarantine."""
    long = {"id": "long", "prompt": "boils " * 300, "fact": "a", "hallucination": "b"}
    options = {"model": tiny_model, "sae": tiny_saes, "position": request.param, "batch_size": 2}
    folder = tmp_path_factory.mktemp("kept") / "run"
    return bluffscope.run([tiny.PAIRS[0], long, *tiny.PAIRS[1:]], out=folder, keep_residuals=True, **options)


@pytest.fixture
def made(tmp_path):
    return bluffscope.read_run(made_runs.make_run(tmp_path / "run", effect=2.0))


def test_a_run_has_its_table_and_is_opened_again(kept):
    assert isinstance(kept, bluffscope.Run)
    again = bluffscope.read_run(kept.path)
    assert again == kept
    assert again.metrics.equals(kept.metrics)
    assert kept.metrics["pair_id"].to_list() == [pair["id"] for pair in tiny.PAIRS]
    assert not (kept.path / "report.html").exists()
    assert kept.health.ran


def test_residuals_and_features_are_those_of_the_tables_in_the_order_of_pairs(kept):
    for layer in (0, 3):
        for view in ("prompt", "fact", "hall"):
            residuals, matrix = kept.residuals(layer, view), kept.feature_matrix(layer, view)
            assert residuals.shape == (5, tiny.D_MODEL)
            assert residuals.dtype == torch.float32
            assert matrix.shape == (5, tiny.D_SAE)
            for row, pair in enumerate(kept.metrics["pair_id"]):
                chosen = (pl.col("pair_id") == pair) & (pl.col("layer") == layer) & (pl.col("view") == view)
                values = np.stack(kept.kept_residuals.filter(chosen).collect()["values"].to_list())
                assert np.allclose(residuals[row], values.mean(axis=0), rtol=1e-6)
                features = kept.features.filter(chosen).collect()
                dense = np.zeros(tiny.D_SAE)
                dense[features["feature"].to_numpy()] = features["activation"].to_numpy()
                assert np.array_equal(matrix[[row]].toarray()[0], dense)
    assert matrix.nnz > 0


def test_residuals_are_those_of_the_model_at_the_last_token(kept, tiny_model):
    if kept.config["measure"]["position"] != "last":
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    pair = kept.pairs.filter(pair_id="fr").row(0, named=True)
    text = f"{pair['prompt']} {pair['fact']}"
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True).hidden_states[2][0, -1]
    assert torch.allclose(kept.residuals(1, "fact")[0], expected, rtol=1e-4, atol=1e-5)


def test_what_a_run_does_not_have_is_said_in_one_line(kept, made):
    for call, says in (
        (lambda: kept.residuals(2, "fact"), "residuals: the run has no layer 2, view 'fact'; it has layers 0, 1, 3"),
        (lambda: kept.feature_matrix(0, "facts"), "no layer 0, view 'facts'; .* views prompt, fact, hall"),
        (lambda: made.residuals(2, "fact"), "the run kept no residuals; measure again with keep_residuals=True"),
        (lambda: kept.plot("ginni", layer=0), "the run has no metric 'l0_ginni'; there are l0_gini"),
        (lambda: kept.plot("shape_class", layer=0), "plot: l0_shape_class is no number"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_statistics_are_made_when_asked_for_and_are_those_of_the_page(made):
    stats = made.stats
    assert stats.equals(analyse_table(made.metrics, made.pairs.drop("domain"), withheld=made.health.withheld).rows)
    assert not (made.path / "stats.parquet").exists()
    write_report(made.path)
    assert bluffscope.read_run(made.path).stats.equals(pl.read_parquet(made.path / "stats.parquet"))
    assert bluffscope.read_run(made.path).stats.equals(stats)


@pytest.mark.thorough
def test_a_report_is_written_and_copied_and_shown_only_if_asked(made, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert made.report() == made.path / "report.html"
    assert shown == []
    copy = made.report(tmp_path / "copy.html", show=True)
    assert copy.read_bytes() == (made.path / "report.html").read_bytes()
    assert shown == [copy.resolve().as_uri()]


def test_a_plot_is_a_chart_of_the_report_with_its_numbers(made):
    effects = made.plot()
    named = {row["metric"].strip(): row["dz"] for row in effects.to_dict()["data"]["values"]}
    pooled = made.stats.filter(scope="pooled")
    assert named == dict(pooled.select("metric", "dz").iter_rows())
    scatter = made.plot("gini", layer=5)
    values = scatter.to_dict()["data"]["values"]
    assert [value["fact"] for value in values] == made.metrics["l5_fact_gini"].to_list()
    assert [value["hall"] for value in values] == made.metrics["l5_hall_gini"].to_list()
    for plot in (effects, scatter, made.plot("entropy")):
        assert plot._repr_html_().startswith("<svg")
        assert "http" not in plot._repr_html_().replace("http://www.w3.org/", "")


def test_a_pair_is_drawn_by_how_far_its_metrics_are_from_those_of_the_others(made):
    item = made.metrics["pair_id"][3]
    drawn = {row["metric"].strip(): row["sd"] for row in made.plot.pair(item).to_dict()["data"]["values"]}
    for name, sd in drawn.items():
        if match := re.fullmatch(r"(l\d+)_(.*)", name):
            fact, hall = (made.metrics[f"{match[1]}_{view}_{match[2]}"] for view in ("fact", "hall"))
            difference = (hall - fact).to_numpy()
            assert sd == pytest.approx((difference[3] - np.nanmean(difference)) / np.nanstd(difference, ddof=1))
    assert {"l2_gini", "l5_gini"} <= drawn.keys()
    assert sorted(map(abs, drawn.values()), reverse=True) == [abs(value) for value in drawn.values()]
    assert made.plot.pair(item)._repr_html_().startswith("<svg")
    with pytest.raises(InputError, match=f"measured no pair '{item}x'; there are {item}"):
        made.plot.pair(f"{item}x")


def test_plots_are_altair_charts_too(made):
    chart = made.plot.effects().altair()
    (values,) = chart.to_dict()["datasets"].values() if "datasets" in chart.to_dict() else (chart.data.values,)
    assert values == made.plot().to_dict()["data"]["values"]


def test_the_trajectory_is_drawn_where_it_was_measured(made, tiny_model, tmp_path):
    with pytest.raises(InputError, match="no trajectory over layers; measure with --trajectory"):
        made.plot.trajectory()
    run = bluffscope.run(
        tiny.PAIRS, model=tiny_model, sae="none", layers=(0, 1, 3), logprob=False, out=tmp_path / "lens"
    )
    (part,) = run.plot.trajectory().to_dict()["concat"]
    rows = [row for row in part["data"]["values"] if row["view"] == "fact" and row["layer"] == 1]
    assert [row["mean"] for row in rows] == pytest.approx([run.metrics["l1_fact_lens_logprob"].mean()])


class Seen(HTMLParser):
    """Tags, the texts between them, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_a_notebook_shows_what_ran_whether_it_is_sound_and_the_five_strongest_effects(kept, made):
    seen = Seen(kept._repr_html_())
    said = " ".join(seen.texts)
    assert "layers 0, 1, 3" in said and "5 pairs of pairs" in said and "1 in quarantine" in said
    assert f"Health: {kept.manifest['health']['status']}" in said
    assert seen.tags.count("tr") == 6
    assert "not tested yet: run.stats does that" in said
    before = Seen(made._repr_html_())
    _ = made.stats
    after = Seen(made._repr_html_())
    strongest = made.stats.filter(scope="pooled").sort(pl.col("dz").abs(), descending=True)["metric"][0]
    assert strongest == "entropy"
    assert before.texts.index("entropy") and "separates" not in before.texts
    assert "separates" in after.texts[after.texts.index("entropy") :][:8]


def test_findings_detectors_and_comparisons_are_shown_too(made, tmp_path):
    pairs = [{**pair, "id": "one"} for pair in tiny.PAIRS]
    found = bluffscope.lint(pairs)
    seen = Seen(found._repr_html_())
    assert seen.tags.count("tr") == 1 + min(8, len(found.findings))
    assert found.of("duplicate-id")[0].message in seen.texts
    folder = tmp_path / "detector"
    write_detector(folder, train(made, pl.Series([True] * made.rows), "metrics", 0), made, ())
    detector = bluffscope.load_detector(folder)
    row = detector.about["evaluation"]["cross_validated"][0]
    said = " ".join(Seen(detector._repr_html_()).texts)
    assert "on metrics" in said
    assert f"{row['auroc']:.2f} ({row['lo']:.2f} to {row['hi']:.2f})" in said
    other = bluffscope.read_run(made_runs.make_run(tmp_path / "other", effect=0.0))
    result = compare_all([made, other])
    pooled = result.rows.filter(pl.col("agrees").is_not_null(), scope="pooled")
    said = " ".join(Seen(result._repr_html_()).texts)
    assert f"verdicts agree in {pooled['agrees'].sum()} of {pooled.height} metrics" in said


def test_the_summary_fits_dark_and_light_themes_and_texts_of_the_user_are_texts(tmp_path):
    named = {"model": {"name": made_runs.STRANGE[1]}, "health": made_runs.UNSOUND}
    run = bluffscope.read_run(made_runs.make_run(tmp_path / "run", manifest=named))
    page = run._repr_html_()
    seen = Seen(page)
    assert {"script", "img", "b"} & set(seen.tags) == {"b"}
    assert "mean L0 of layer 2 is 5 times the published one" in " ".join(seen.texts)
    # no colour of its own: it takes those of the text around it
    assert set(re.findall(r"(?:color|background): ?([^;\"]+)", page)) <= {"none"}
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b|https?:", page)


@pytest.mark.thorough
def test_opening_a_run_imports_no_torch(made):
    code = (
        "import sys, bluffscope; run = bluffscope.read_run(sys.argv[1]); run.metrics, run._repr_html_(), run.stats; "
        "print([name for name in ('torch', 'transformers', 'sae_lens') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made.path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
