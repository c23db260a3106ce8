"""Detectors of tokens: a direction planted inside spans, what has no span, and the detector that is saved."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import bluffscope
from bluffscope.cli.main import main
from bluffscope.config import WatchOptions
from bluffscope.detectors.files import read_detector
from bluffscope.detectors.growing import SAYS
from bluffscope.detectors.measures import precision_at, recall_at
from bluffscope.detectors.score import Text, open_scorer
from bluffscope.detectors.stream import open_watcher
from bluffscope.detectors.token_fit import fit_tokens, maxima
from bluffscope.detectors.token_inputs import baselines_of, labelled_tokens, matrix_of, stretches
from bluffscope.detectors.tokens import train_tokens
from bluffscope.errors import InputError
from bluffscope.table.reader import read_run

WORDS = ("one", "two", "ice", "rain", "Zürich", "water", "is", "in", "cold", "old", "🇮🇹")
LAYER, FEATURE = 3, 40


def texts(count=80, seed=0):
    """Random words; in every other text one of them, any, is false."""
    rng = random.Random(seed)
    for number in range(count):
        words = rng.choices(WORDS, k=8)
        said = " ".join(words)
        line = {"id": f"t{number}", "prompt": f"Say {number}.", "completion": said, "label": number % 2 == 0}
        if number % 2:
            place = rng.randrange(8)
            start = len(" ".join(words[:place])) + (place > 0)
            line["spans"] = [[start, start + len(words[place])]]
        yield line


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory, tiny_model, tiny_saes):
    """A run whose spans nothing in the model tells."""
    folder = tmp_path_factory.mktemp("tokens")
    data = write(folder / "texts.jsonl", texts())
    out = folder / "run"
    options = {"model": str(tiny_model), "sae": str(tiny_saes), "layers": (0, LAYER), "logprob": False}
    bluffscope.analyze(str(data), position="tokens", out=str(out), **options)
    return out


@pytest.fixture(scope="module")
def planted(measured):
    """A run in whose spans one layer's residuals lean one way, and one of its features is active."""
    out = measured.parent / "planted"
    shutil.copytree(measured, out)
    run = read_run(out)
    inside = run.tokens.filter(pl.col("label") == 1).select("text_id", token="token_index", inside=True)
    rows = run.kept_residuals.collect().join(inside, on=["text_id", "token"], how="left", maintain_order="left")
    direction = np.random.default_rng(0).normal(size=16)
    values = np.array(rows["values"].to_list())
    lean = (rows["inside"].fill_null(False) & (rows["layer"] == LAYER) & (rows["view"] == "text")).to_numpy()
    values += lean[:, None] * direction * np.abs(values).max() / 2
    kind = rows.schema["values"]
    rows = rows.drop("inside").with_columns(pl.Series("values", values.tolist(), dtype=kind))
    rows.write_parquet(out / "residuals.parquet")
    features = run.token_features.filter(
        ~((pl.col("layer") == LAYER) & (pl.col("feature") == FEATURE) & (pl.col("view") == "text"))
    ).collect()
    more = inside.select(
        "text_id", view=pl.lit("text"), layer=LAYER, token="token", feature=FEATURE, activation=2.0
    ).cast(features.schema)
    pl.concat([features, more]).write_parquet(out / "token_features.parquet")
    return read_run(out)


def everything(run):
    return pl.Series([True] * run.rows)


@pytest.fixture(scope="module")
def trained(planted):
    return train_tokens(planted, everything(planted), "residual", seed=0)


def test_each_token_of_a_completion_has_its_label_and_its_characters(planted):
    known = planted.tokens.join(planted.texts, on="text_id", suffix="_of_text", maintain_order="left")
    assert known["text_id"].unique(maintain_order=True).to_list() == [line["id"] for line in texts()]
    for line, (_, part) in zip(texts(), known.group_by("text_id", maintain_order=True), strict=True):
        (start, stop), *_ = [*line.get("spans", []), (0, 0)]
        said = line["completion"]
        covered = "".join(
            said[one["start"] : one["end"]] for one in part.unique(["start", "end"]).sort("start", "end").to_dicts()
        )
        assert covered.replace(" ", "") == said.replace(" ", "")  # whitespace in front of a word is left out
        for one in part.to_dicts():
            overlaps = one["start"] < stop and start < one["end"]
            assert one["label"] == int(overlaps), (said, one)


def test_a_direction_that_is_planted_inside_spans_is_found_at_its_layer_and_beats_the_words(trained):
    level = trained.about["token_level"]
    assert level["layer"] == LAYER and trained.keys.layers == (LAYER,)
    assert trained.row["auroc"] > 0.9 and trained.beats and level["judged_by"] == "text"
    other = next(one for one in level["layers"] if one["layer"] == 0)
    assert other["auroc"] < 0.75 and other["chosen"] == 0
    assert set(trained.baselines["detector"]) == {"length", "text"}
    assert trained.baselines["auroc"].max() < 0.75
    measures = {one["unit"]: one for one in level["measures"]}
    assert measures["token"]["positive"] == level["in_spans"] and measures["span"]["positive"] == level["spans"] == 40
    assert measures["text"]["positive"] == measures["text"]["negative"] == 40
    assert min(one["auroc"] for one in measures.values()) > 0.9
    assert measures["token"]["recall_1"] > 0.6 and measures["token"]["precision_1"] > 0.6
    assert trained.ece < 0.1


@pytest.mark.thorough
def test_a_domain_that_was_left_out_is_judged_by_text(planted, tmp_path):
    shutil.copytree(planted.path, tmp_path / "run")
    half = pl.col("text_id").str.slice(1).cast(pl.Int64) < 40
    metrics = planted.metrics.with_columns(domain=pl.when(half).then(pl.lit("a")).otherwise(pl.lit("b")))
    metrics.write_parquet(tmp_path / "run" / "metrics.parquet", metadata=planted.metadata)
    run = read_run(tmp_path / "run")
    rows = train_tokens(run, everything(run), "residual", seed=0).about["domains"]
    assert [(row["domain"], row["n"], row["unit"]) for row in rows] == [("a", 40, "text"), ("b", 40, "text")]
    assert min(row["auroc"] for row in rows) > 0.8 and all(row["lo"] > 0.5 for row in rows)


def test_a_planted_feature_is_found_too(planted):
    found = train_tokens(planted, everything(planted), "sae", seed=0)
    assert found.row["auroc"] > 0.9 and found.beats
    weights = found.keys.features.with_columns(weight=found.linear.weights)
    assert weights.sort("weight")["feature"][-1] == FEATURE and weights.sort("weight")["layer"][-1] == LAYER


def test_labels_that_nothing_explains_are_not_found(planted):
    tokens = labelled_tokens(planted, everything(planted), 0)
    matrix, _ = matrix_of(planted, "residual", 0, tokens)
    half = tokens.groups < 40
    found = fit_tokens("residual", matrix[half], tokens.labels[half], 0.1, tokens.stretches[half], 40)
    assert abs(roc_auc_score(tokens.labels[~half], found.scores(matrix[~half])) - 0.5) < 0.2


def test_where_in_a_text_a_span_stands_is_not_taken_for_which_text_has_one(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "run")
    run = read_run(tmp_path / "run")
    odd = pl.col("text_id").str.slice(1).cast(pl.Int64) % 2 == 1
    last = pl.col("token_index") == pl.col("token_index").max().over("text_id")
    run.tokens.with_columns(label=(odd & last).cast(pl.Int8)).write_parquet(run.path / "tokens.parquet")
    run = read_run(run.path)
    found = train_tokens(run, everything(run), "residual", seed=0)
    measures = {one["unit"]: one for one in found.about["token_level"]["measures"]}
    assert measures["token"]["baseline_auroc"] > 0.9  # the last token is of a span in every other text
    assert found.about["token_level"]["judged_by"] == "text" and not found.beats
    assert found.row["auroc"] == measures["text"]["auroc"] < 0.7


def test_without_stretches_the_fit_is_scikit_learns(planted):
    tokens = labelled_tokens(planted, everything(planted), 0)
    matrix, keys = matrix_of(planted, "residual", LAYER, tokens)
    assert keys.layers == (LAYER,)
    scaled = StandardScaler().fit_transform(matrix.astype(np.float64))
    model = LogisticRegression(C=0.1 * 80 / len(tokens), class_weight="balanced", max_iter=2000, tol=1e-8)
    expected = model.fit(scaled, tokens.labels).decision_function(scaled)
    found = fit_tokens("residual", matrix, tokens.labels, 0.1, texts=80).scores(matrix)
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)
    assert roc_auc_score(tokens.labels, found) == pytest.approx(roc_auc_score(tokens.labels, expected), abs=1e-3)


def test_the_highest_token_of_a_span_counts_for_it():
    """Only one token of each span carries the signal: which one, the labels do not say."""
    rng = np.random.default_rng(0)
    number, length, span, width = 400, 30, 3, 64
    own = np.repeat(np.arange(number), length)
    labels, matrix = np.zeros(number * length, dtype=int), rng.normal(size=(number * length, width))
    matrix += rng.normal(size=(number * length, 30)) @ rng.normal(size=(30, width))
    direction = rng.normal(size=width)
    for text in range(0, number, 2):
        start = text * length + int(rng.integers(length - span))
        labels[start : start + span] = 1
        matrix[start + int(rng.integers(span))] += 5 * direction / np.linalg.norm(direction)
    parts, half = stretches(own, labels), own < number // 2
    test, spans = parts[~half] - parts[~half].min(), maxima(labels[~half], parts[~half])
    found = []
    for given in (None, parts[half]):
        scores = fit_tokens("residual", matrix[half], labels[half], 0.1, given, number // 2).scores(matrix[~half])
        found.append(roc_auc_score(spans, maxima(scores, test)))
    assert found[1] > found[0] + 0.05


def test_stretches_are_spans_and_as_much_between_them():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0])
    own = np.array([0] * 10 + [1] * 5)
    assert stretches(own, labels).tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8]


def test_what_needs_no_look_inside_is_the_word_its_place_and_its_log_probability(planted):
    tokens = labelled_tokens(planted, everything(planted), 0)
    found = baselines_of(tokens)
    assert list(found) == ["length", "text"]
    assert found["length"][:2, 0].tolist() == [0.0, np.log1p(1)]
    assert (found["text"].sum(axis=1) == 2).all()


def test_false_texts_without_spans_are_unknown_and_true_ones_are_negatives(tmp_path, tiny_model):
    lines = [{key: value for key, value in line.items() if key != "spans"} | {"label": False} for line in texts(4)]
    lines += list(texts(2))
    lines = [{**line, "id": str(number)} for number, line in enumerate(lines)]
    data = write(tmp_path / "texts.jsonl", lines)
    bluffscope.analyze(str(data), model=str(tiny_model), sae="none", layers=(1,), position="tokens", out=tmp_path / "r")
    run = read_run(tmp_path / "r")
    labels = dict(run.tokens.group_by("text_id").agg(pl.col("label").unique().sort()).iter_rows())
    assert [labels[str(number)] for number in range(6)] == [[None]] * 4 + [[0], [0, 1]]
    assert run.tokens["logprob"].is_not_null().all()  # the trajectory predicts them
    tokens = labelled_tokens(run, everything(run), 0)
    assert tokens.unknown == 4 and "2 groups of texts" in str(tokens.refused)
    with pytest.raises(InputError, match="2 groups of texts, fewer than 10: too few"):
        train_tokens(run, everything(run), "residual", 0)
    with pytest.raises(InputError, match="--on sae: the run was measured without SAEs"):
        train_tokens(run, everything(run), "sae", 0)


def test_metrics_have_no_value_a_token(planted):
    with pytest.raises(InputError, match="--on metrics: metrics have one value a text"):
        train_tokens(planted, everything(planted), "metrics", 0)


@pytest.mark.thorough
def test_other_texts_test_it_and_alpha_calibrates_a_texts_highest_token(planted):
    chosen = planted.metrics["text_id"].str.slice(1).cast(pl.Int64) < 64
    found = train_tokens(planted, chosen, "residual", 0, alpha=0.2)
    assert found.left_out is not None and found.left_out["n"] == 16
    assert found.left_out["unit"] == "text" and min(found.left_out["auroc"], found.left_out["by_token"]) > 0.8
    assert found.alarm is not None and 10 <= found.alarm.clusters <= 22
    tokens = labelled_tokens(planted, everything(planted), 0)
    matrix, _ = matrix_of(planted, "residual", LAYER, tokens)
    highest = maxima(found.linear.scores(matrix), tokens.texts)
    wrong = highest[maxima(tokens.labels, tokens.texts) == 0] > found.alarm.threshold
    assert wrong.mean() < 0.4
    with pytest.raises(InputError, match="--alpha 0.001: .* it takes at least 999"):
        train_tokens(planted, everything(planted), "residual", 0, alpha=0.001)
    few = planted.metrics["text_id"].str.slice(1).cast(pl.Int64) < 24
    with pytest.raises(InputError, match="spans in fewer than 10 groups"):
        train_tokens(planted, few, "residual", 0, alpha=0.2)


@pytest.mark.parametrize("on", ["residual", "sae"])
def test_a_saved_detector_scores_tokens_alone_and_a_text_by_its_highest(planted, tmp_path, capsys, on):
    folder = tmp_path / "d"
    assert main(["detect", "train", str(planted.path), "--out", str(folder), "--on", on, "--allow-unsound"]) == 0
    said = capsys.readouterr().out
    assert "highest token" in said and "P(True)" not in said
    assert "one domain" in (folder / "README.md").read_text()
    assert "each token of the completion" in (folder / "README.md").read_text()
    detector = read_detector(folder)
    assert detector.by_token and detector.pairs_only == "reads a completion's tokens"
    how = WatchOptions(max_new_tokens=8, temperature=1.0)
    written = list(open_watcher(detector, device="cpu").write(["Say 1."], how))
    scorer = open_scorer(detector, device="cpu")
    tokenizer, compared = scorer.worker.tokenizer.tokenizer, 0
    opening = tokenizer("Say 1.", add_special_tokens=False)["input_ids"]
    for count in range(1, len(written) + 1):
        completion = "".join(token.text for token in written[:count])
        ids = tokenizer(f"Say 1.{completion}", add_special_tokens=False)["input_ids"]
        if ids != [*opening, *(token.id for token in written[:count])] or not completion[:1].isspace():
            continue  # the model wrote a word in other pieces than the tokenizer
        (score,) = scorer.scores([Text("0", "Say 1.", completion)])
        assert score.logit == pytest.approx(max(token.logit for token in written[:count]), abs=1e-4)
        compared += 1
    assert compared or not written[0].text[:1].isspace()
    assert main(["detect", "watch", str(folder), "--prompt", "Say 1.", "--max-new-tokens", "4"]) == 0
    assert SAYS["tokens"] in " ".join(capsys.readouterr().out.split())


def test_precision_is_that_of_the_threshold_at_which_recall_is_reached():
    scores, labels = np.array([9.0, 8, 7, 6, 5, *np.linspace(0, 1, 200)]), np.array([1, 1, 0, 1, 0] + [0] * 200)
    assert recall_at(0.01, scores, labels) == 1.0
    assert precision_at(0.01, scores, labels) == pytest.approx(3 / 4)
    assert np.isnan(precision_at(0.001, scores, labels))
