"""Detectors of labelled texts: those of the same pairs' two sides, unbalanced labels, folds, and what is too little."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bluffscope
from bluffscope.cli.main import main
from bluffscope.config import DataOptions
from bluffscope.detectors.evaluate import detect, detect_in
from bluffscope.detectors.files import read_detector
from bluffscope.detectors.fits import fit
from bluffscope.detectors.folds import label_folds
from bluffscope.detectors.inputs import Views, keyed_matrix, read_inputs
from bluffscope.detectors.measures import calibration_error
from bluffscope.detectors.texts import texts_of
from bluffscope.pairs import open_source
from bluffscope.stats import Resampling, analyse_labelled
from bluffscope.stats.heldout import grouped_folds
from bluffscope.table.reader import read_run

MODEST = Resampling(repeats=1)


def sides_of_pairs(file, *, whole: bool):
    """Both sides of the bundled pairs as texts of one group each: prompt and completion, or statements."""
    source = open_source(DataOptions(data="bluff200"))
    lines = []
    for pair, group in zip(source.pairs(), source.scan().groups, strict=True):
        about = {"domain": pair.domain, "group": str(group), "known": pair.extra["known"]}
        for side, label, text in (("fact", True, pair.fact), ("hall", False, pair.hallucination)):
            words = {"text": f"{pair.prompt} {text}"} if whole else {"prompt": pair.prompt, "completion": text}
            lines.append({"id": f"{pair.id}/{side}", "label": label} | about | words)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The demo's run over pairs, over both their sides as prompted texts, and over statements."""
    folder = tmp_path_factory.mktemp("runs")
    sources = {
        "pairs": "bluff200",
        "prompted": str(sides_of_pairs(folder / "prompted.jsonl", whole=False)),
        "statements": str(sides_of_pairs(folder / "statements.jsonl", whole=True)),
    }
    for name, data in sources.items():
        bluffscope.analyze(data, preset="demo", logprob=False, out=str(folder / name))
    return {name: read_run(folder / name) for name in sources}


@pytest.mark.thorough
def test_both_sides_of_pairs_as_texts_have_the_pairs_detectors(runs):
    found = {name: detect_in(run.metrics, run.items, run, resampling=MODEST) for name, run in runs.items()}
    pairs = found["pairs"].rows
    texts = found["prompted"].rows
    assert "prompt" in texts["detector"] and "prompt" not in pairs["detector"]
    texts = texts.filter(pl.col("detector") != "prompt")
    assert texts["detector"].to_list() == pairs["detector"].to_list()
    assert texts["scope"].to_list() == pairs["scope"].to_list()
    assert texts["n"].to_list() == (2 * pairs["n"]).to_list()
    assert pairs["auroc"].is_not_null().sum() > 20
    for name in ("auroc", "lo", "hi", "ece", "gain", "gain_lo", "surface_gain"):
        assert texts[name].to_list() == pytest.approx(pairs[name].to_list(), abs=1e-4)
    crossed = [
        found[name].transfer.filter(pl.col("detector") != "prompt").sort("detector", "train", "test")
        for name in ("pairs", "prompted")
    ]
    assert crossed[1]["auroc"].to_list() == pytest.approx(crossed[0]["auroc"].to_list(), abs=1e-4)
    # A statement is read whole: what is inside it is the same, its length and words are others.
    for name in ("residual", "sae"):
        one, other = (
            rows.filter(detector=name, scope="pooled")["auroc"][0] for rows in (pairs, found["statements"].rows)
        )
        assert other == pytest.approx(one, abs=0.005)
    assert {name: found["statements"].about[name] for name in ("texts", "true", "false")} == {
        "texts": 400,
        "true": 200,
        "false": 200,
    }


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "on"), [("prompted", "sae"), ("prompted", "metrics"), ("statements", "metrics")])
def test_a_detector_trained_on_labelled_texts_scores_texts_as_its_run_does(capsys, runs, tmp_path, kind, on):
    run, folder = runs[kind], tmp_path / "d"
    assert main(["detect", "train", str(run.path), "--out", str(folder), "--on", on, "--where", "known=true"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of 304 texts with known=true, in 74 groups" in said
    assert "Other texts of the run (96): AUROC" in said
    kept = read_detector(folder)
    assert kept.about["items"] == kind
    asked = run.texts.head(30)
    texts, items = texts_of(run.metrics.head(30), asked)
    views = Views.of_run(run, run.metrics.head(30), items)
    logits = kept.linear.scores(keyed_matrix(kept.keys, texts, views, read_inputs(texts, views, 0)))
    fields = ("prompt", "completion") if kind == "prompted" else ("completion",)
    lines = [
        {"id": row["text_id"]} | {"text" if len(fields) == 1 else name: row[name] for name in fields}
        for row in asked.iter_rows(named=True)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    files = ("--data", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl"))
    assert main(["detect", "score", str(folder), *files]) == 0
    found = [json.loads(line)["logit"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == pytest.approx(logits.tolist(), abs=1e-4)
    assert np.ptp(logits) > 1


@pytest.mark.thorough
def test_detectors_of_pairs_and_of_texts_look_at_the_same_columns(runs, tmp_path):
    for name in ("pairs", "prompted"):
        where = ("--where", "known=true")
        assert main(["detect", "train", str(runs[name].path), "--out", str(tmp_path / name), *where]) == 0
    kept = {name: read_detector(tmp_path / name) for name in ("pairs", "prompted")}
    run = runs["prompted"]
    texts, items = texts_of(run.metrics, run.texts)
    views = Views.of_run(run, run.metrics, items)
    inputs = read_inputs(texts, views, 0)
    one, other = (
        detector.calibration.probabilities(detector.linear.scores(keyed_matrix(detector.keys, texts, views, inputs)))
        for detector in kept.values()
    )
    assert one == pytest.approx(other, abs=1e-3)


def unbalanced(seed: int = 0, *, signal: float = 1.5, mixed: bool = False):
    """Texts of which one in five is false, in groups of one label (or of both), with metrics, lengths, a domain."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(75), 4)
    false = rng.random(300) < 0.2 if mixed else groups % 5 == 0
    values = rng.normal(size=(300, 3)) + signal * false[:, None] * [1, 0, 0]
    return pl.DataFrame(
        {
            "text_id": [f"t{number}" for number in range(300)],
            "label": ~false,
            "domain": np.where(groups % 2, "a", "b"),
            "group": [f"g{group}" for group in groups],
            "text_tokens": rng.integers(3, 20, 300),
            "l3_gini": values[:, 0],
            "l3_prompt_gini": values[:, 0],
            "stability": values[:, 1],
            "mood": values[:, 2] + 9 * false,
        }
    )


ITEMS = pl.DataFrame({"text_id": [f"t{number}" for number in range(300)], "mood": 0.0, "completion": "words"})


def test_a_labelled_tables_metrics_are_what_was_measured_of_its_texts():
    texts, items = texts_of(unbalanced(), ITEMS.reverse())
    assert texts.metrics == ("l3_gini", "stability")
    assert items["text_id"].to_list() == unbalanced()["text_id"].to_list()
    assert texts.labels.sum() == 60
    assert (texts.items, texts.of, texts.arrangement.completions) == (300, "texts", ("text",))


def test_a_prompt_that_gives_the_label_away_is_a_baseline():
    table = unbalanced(mixed=True).drop("mood")
    words = pl.when("label").then(pl.lit("What")).otherwise(pl.lit("Why"))
    told = table.select("text_id", completion=pl.lit("words"), prompt=words)
    rows = detect_in(table.drop("domain"), told, None, resampling=MODEST).rows
    of = {row["detector"]: row for row in rows.iter_rows(named=True)}
    assert of["prompt"]["auroc"] == 1 and of["text"]["auroc"] == pytest.approx(0.5, abs=0.05)
    assert of["metrics"]["auroc"] > 0.7 and of["metrics"]["gain"] < -0.1 and of["metrics"]["surface_gain_lo"] < 0
    for without in (told.drop("prompt"), told.with_columns(prompt=pl.lit(""))):
        detection = detect_in(table.drop("domain"), without, None, resampling=MODEST)
        assert "prompt" not in detection.rows["detector"] and "prompt" not in " ".join(detection.about["notes"])


@pytest.mark.parametrize("carried", [True, False])
def test_the_entropy_of_a_question_s_answers_is_a_baseline_and_no_metric(carried):
    rng = np.random.default_rng(0)
    table = unbalanced().drop("mood")  # texts of a group, which are answers to one question, are all true or all false
    asked = pl.DataFrame(
        {
            "text_id": table["text_id"],
            "completion": "words",
            "answer_entropy": np.repeat(rng.normal(size=75), 4) + 4 * ~table["label"].to_numpy(),
            "answer_logprob": [None if number % 3 else float(number) for number in range(300)],
        }
    )
    if carried:
        detection = detect_in(table, asked, None, resampling=MODEST)
    else:  # a table that holds everything itself
        table = table.join(asked, on="text_id")
        detection = detect_in(table, None, None, resampling=MODEST)
        assert texts_of(table, None)[0].metrics == ("l3_gini", "stability")
    of = {row["detector"]: row for row in detection.rows.filter(scope="pooled").iter_rows(named=True)}
    assert of["answer_entropy"]["auroc"] > 0.95 and of["metrics"]["gain"] < 0
    assert of["answer_logprob"]["auroc"] is not None
    assert (
        "answer_logprob is unknown of 200 of 300 texts: they count as the median of the others."
        in (detection.about["notes"])
    )
    names = analyse_labelled(table, asked if carried else None).rows["metric"].to_list()
    assert "answer_entropy" not in names and "answer_logprob" not in names


def test_numbers_are_those_of_scikit_learn_at_the_tables_own_prevalence():
    texts, items = texts_of(unbalanced(), ITEMS)
    pooled = replace(texts, scopes=texts.scopes[-1:])
    row = detect(pooled, Views(items), MODEST).rows.filter(detector="metrics").row(0, named=True)
    folds = label_folds(texts.groups, texts.labels, 5, MODEST.generator(texts.scopes[-1], 4))
    scores, areas = np.empty(300), []
    for fold in range(5):
        held = folds == fold
        penalty = fit("metrics", texts.values[~held], texts.labels[~held], texts.groups[~held]).penalty
        strength = 1 / (penalty * texts.values.shape[1] * (~held).sum())
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-10, max_iter=2000))
        scores[held] = model.fit(texts.values[~held], texts.labels[~held]).predict_proba(texts.values[held])[:, 1]
        areas.append(roc_auc_score(texts.labels[held], scores[held].round(10)))
    assert row["n"] == 300
    assert row["auroc"] == pytest.approx(np.mean(areas), abs=1e-9)
    assert row["lo"] < row["auroc"] < row["hi"]
    assert row["ece"] == pytest.approx(calibration_error(scores, texts.labels), abs=1e-9)
    # Probabilities know how rare false texts are.
    assert scores.mean() == pytest.approx(0.2, abs=0.03)


def test_folds_part_no_group_and_spread_both_labels_and_are_those_of_pairs_where_labels_are_balanced():
    rng = np.random.default_rng(1)
    sizes = np.r_[np.full(4, 200), rng.integers(1, 30, 40), np.ones(12, dtype=int)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = (groups < 44).astype(int)  # the few true texts are in the smallest groups
    folds = label_folds(groups, labels, 5, np.random.default_rng(0))
    assert all(len(set(folds[groups == group])) == 1 for group in range(len(sizes)))
    assert sorted(np.bincount(folds[labels == 0], minlength=5)) == [2, 2, 2, 3, 3]
    pairs = np.unique(rng.integers(0, 30, 100), return_inverse=True)[1]
    both = label_folds(np.tile(pairs, 2), np.repeat([0, 1], 100), 5, np.random.default_rng(3))
    assert both.tolist() == np.tile(grouped_folds(pairs, 5, np.random.default_rng(3)), 2).tolist()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (pl.col("group").str.slice(1).cast(pl.Int64) < 9, "9 groups of texts, fewer than 10"),
        (pl.col("label") | (pl.int_range(pl.len()) < 24), "8 false texts, fewer than 10"),
        (pl.col("label") | (pl.int_range(pl.len()) < 50), "false texts in 3 groups, fewer than 10"),
        (pl.col("label"), "0 false texts, fewer than 10"),
    ],
)
def test_too_few_texts_or_groups_of_a_label_are_not_judged(rows, says):
    found = detect_in(unbalanced().filter(rows).drop("domain"), ITEMS, None, resampling=MODEST)
    assert set(found.rows["reason"]) == {says}
    assert found.rows["auroc"].is_null().all()


@pytest.mark.thorough
def test_what_is_not_there_is_said_of_texts():
    notes = " ".join(detect_in(unbalanced(mixed=True), None, None, resampling=MODEST).about["notes"])
    assert "Without text: no texts: only a run's folder has them." in notes
    assert "logprob" not in notes  # named beside the gains
