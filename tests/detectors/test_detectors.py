"""Detectors on made-up texts: folds, leaks, baselines, calibration, transfer, and what is not there."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bluffscope.detectors import evaluate
from bluffscope.detectors.classifiers import BASELINES, CARRIED, DETECTORS, compared_with, unmeasured
from bluffscope.detectors.evaluate import DETECTORS_SCHEMA, TRANSFER_SCHEMA, Detection, detect
from bluffscope.detectors.fits import fit
from bluffscope.detectors.inputs import MOST_PAIRS, Keys, Views, keyed_matrix, read_inputs, sampled
from bluffscope.detectors.measures import calibration_error
from bluffscope.detectors.texts import Texts
from bluffscope.errors import InputError
from bluffscope.stats import Resampling, build_study
from bluffscope.stats.heldout import grouped_folds
from studies import one_metric

MODEST = Resampling(repeats=1)
GROUPS = 60


def world(seed: int = 0, *, signal: float = 0.0, flipped: bool = False, size: int = 12, texts=None):
    """Counterbalanced pairs, two a group, in two domains: a table, and residuals and features with a signal or none.

    The signal is the first dimension and the first two features; `flipped` turns it round in domain b.
    """
    rng = np.random.default_rng(seed)
    pairs = 2 * GROUPS
    ids = [f"p{number}" for number in range(pairs)]
    group = np.repeat(np.arange(GROUPS), 2)
    domain = np.where(group % 2, "b", "a")
    sign = np.where((domain == "b") & flipped, -1.0, 1.0)
    residuals, features = [], []
    for view, label in (("fact", -1.0), ("hall", 1.0)):
        values = rng.normal(size=(pairs, size)).astype(np.float32)
        values[:, 0] += signal * label * sign
        active = np.abs(rng.normal(size=(pairs, 300))) * (rng.random((pairs, 300)) < 0.05)
        active[:, 0] = np.maximum(0, signal * label * sign + rng.normal(size=pairs))
        active[:, 1] = np.maximum(0, -signal * label * sign + rng.normal(size=pairs))
        residuals += [(name, view, 3, 9, row.tolist()) for name, row in zip(ids, values, strict=True)]
        features += [
            (ids[pair], view, 3, int(f), float(active[pair, f])) for pair, f in zip(*active.nonzero(), strict=True)
        ]
    residuals.append(("stranger", "fact", 3, 9, [0.0] * size))
    words = [f"word{number}" for number in range(pairs)]
    swapped = [words[pair ^ 1] for pair in range(pairs)]
    facts, halls = (words, swapped) if texts is None else texts(words)
    lengths = rng.integers(1, 6, (2, pairs))
    table = one_metric(
        rng.normal(size=pairs), rng.normal(1.5 * signal, 1, pairs), pair_id=ids, domain=domain
    ).with_columns(group=pl.Series(group), fact_tokens=pl.Series(lengths[0]), hall_tokens=pl.Series(lengths[1]))
    kept = pl.LazyFrame(residuals, schema=["pair_id", "view", "layer", "token", "values"], orient="row")
    sparse = pl.LazyFrame(features, schema=["pair_id", "view", "layer", "feature", "activation"], orient="row")
    pairs_frame = pl.DataFrame({"fact": facts, "hallucination": halls})
    return table, Views(pairs_frame, table["pair_id"], kept, sparse)


OF_PAIRS = [name for name in DETECTORS if name not in (*CARRIED, "prompt")]
"""What two texts of one prompt can be told apart by."""


def found(table: pl.DataFrame, views: Views, by=(), resampling: Resampling = MODEST) -> Detection:
    return detect(Texts.of_pairs(build_study(table, by=by)), views, resampling)


def row_of(detection: Detection, detector: str, scope: str = "pooled") -> dict[str, object]:
    return detection.rows.filter(detector=detector, scope=scope).row(0, named=True)


def test_a_signal_inside_is_found_and_beats_what_needs_no_model():
    detection = found(*world(signal=1.0))
    assert detection.rows.schema == DETECTORS_SCHEMA
    assert detection.rows["detector"].to_list() == OF_PAIRS * 3
    assert detection.about["baselines"] == ["length", "text"]
    for name in ("mean_difference", "residual", "metrics", "k_sparse", "sae"):
        row = row_of(detection, name)
        assert row["lo"] < row["auroc"] < row["hi"]
        assert row["gain_lo"] > 0, row
        assert row["surface_gain_lo"] > 0, row
        assert row["ece"] < 0.25
    # In a counterbalanced set a word is once right and once wrong: by group, text says nothing.
    assert row_of(detection, "text")["auroc"] == pytest.approx(0.5)
    assert row_of(detection, "text")["gain"] is None
    assert row_of(detection, "logprob")["auroc"] is None
    assert "analyze with --logprob" in row_of(detection, "logprob")["reason"]
    assert "analyze with --p-true" in row_of(detection, "p_true")["reason"]


@pytest.mark.thorough
def test_where_there_is_nothing_nothing_is_found():
    beaten = np.zeros(5)
    for seed in range(12):
        # Far more dimensions and features than texts: any choice made on test texts would show.
        detection = found(*world(seed, size=400), resampling=Resampling(repeats=1))
        for place, name in enumerate(("mean_difference", "residual", "metrics", "k_sparse", "sae")):
            row = row_of(detection, name)
            assert abs(row["auroc"] - 0.5) < 0.2, row
            beaten[place] += row["gain_lo"] > 0
    assert (beaten <= 2).all(), beaten


def test_a_detector_gains_nothing_over_texts_that_give_the_label_away():
    def told(words):
        return [f"{word} indeed" for word in words], [f"not {word}" for word in words]

    detection = found(*world(signal=1.0, texts=told))
    assert row_of(detection, "text")["auroc"] == pytest.approx(1.0)
    assert row_of(detection, "residual")["auroc"] > 0.85
    assert row_of(detection, "residual")["gain"] < 0
    assert row_of(detection, "residual")["surface_gain_lo"] < 0


@pytest.mark.thorough
def test_the_log_probability_is_a_baseline_that_gains_are_also_measured_against():
    table, views = world(signal=1.0)
    logprob = np.random.default_rng(0).normal(0, 0.1, (2, table.height)) + np.array([[0.0], [-3.0]])
    table = table.with_columns(logprob_fact=pl.Series(logprob[0]), logprob_hall=pl.Series(logprob[1]))
    detection = found(table, views)
    assert row_of(detection, "logprob")["auroc"] > 0.95
    row = row_of(detection, "sae")
    assert row["gain"] < 0 < row["surface_gain_lo"]
    # It is no metric among the metrics.
    assert row_of(detection, "metrics")["auroc"] < 0.9


@pytest.mark.thorough
def test_what_the_model_says_when_asked_is_a_baseline_and_no_metric():
    table, views = world(signal=1.0)
    logits = np.random.default_rng(0).normal(0, 0.3, (2, table.height)) + np.array([[9.0], [7.0]])
    chance = 1 / (1 + np.exp(-logits))  # all near 1: what differs is the logit
    table = table.with_columns(p_true_fact=pl.Series(chance[0]), p_true_hall=pl.Series(chance[1]))
    detection = found(table, views)
    area = roc_auc_score(np.repeat([0, 1], table.height), -logits.ravel())
    assert row_of(detection, "p_true")["auroc"] == pytest.approx(area, abs=0.01)
    assert row_of(detection, "p_true")["ece"] < 0.1
    row = row_of(detection, "sae")
    assert row["gain"] < 0 < row["surface_gain_lo"]
    assert row_of(detection, "metrics")["auroc"] == row_of(found(*world(signal=1.0)), "metrics")["auroc"]
    assert detection.about["baselines"] == ["length", "p_true", "text"]


def test_a_baseline_that_some_texts_lack_stays_one_and_it_is_said():
    table, views = world(signal=1.0)
    logprob = np.random.default_rng(0).normal(0, 0.1, (2, table.height)) + np.array([[0.0], [-3.0]])
    logprob[1, :6] = np.nan
    columns = {
        f"logprob_{side}": pl.Series(one).fill_nan(None) for side, one in zip(("fact", "hall"), logprob, strict=True)
    }
    detection = found(table.with_columns(**columns), views)
    assert 0.9 < row_of(detection, "logprob")["auroc"] < 1
    assert (
        f"logprob is unknown of 6 of {2 * table.height} texts: they count as the median of the others."
        in (detection.about["notes"])
    )


def test_what_was_not_measured_is_named_with_the_way_to_measure_it():
    assert unmeasured(["length", "text"]) == (
        "log-probability and P(True) were not measured: analyze with --logprob --p-true"
    )
    assert unmeasured(["length", "logprob"]) == "P(True) was not measured: analyze with --p-true"
    assert unmeasured(["logprob", "p_true"]) == ""
    assert compared_with(["length", "logprob", "p_true", "text", "sae"]) == (
        "the best of length, log-probability, P(True) and completion text"
    )
    assert compared_with(["sae", "logprob", "p_true"]) == "the best of log-probability and P(True)"
    assert compared_with(["sae"]).startswith("guessing (log-probability and P(True) were not measured")


@pytest.mark.thorough
def test_what_was_learnt_in_one_domain_is_asked_of_the_other():
    detection = found(*world(signal=1.5, flipped=True))
    transfer = detection.transfer
    assert transfer.schema == TRANSFER_SCHEMA
    one = transfer.filter(detector="residual")
    assert list(zip(one["train"], one["test"], strict=True)) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert one.filter(pl.col("train") == pl.col("test"))["auroc"].min() > 0.85
    assert one.filter(pl.col("train") != pl.col("test"))["auroc"].max() < 0.15
    within = row_of(detection, "residual", "a")
    assert one.row(0, named=True)["auroc"] == within["auroc"]
    assert set(transfer["detector"]) == set(OF_PAIRS) - {"logprob", "p_true"}


@pytest.mark.thorough
def test_values_of_further_columns_are_scopes_and_transfer_among_themselves_only():
    table, views = world(signal=1.5)
    table = table.with_columns(known=pl.Series(np.repeat(np.arange(GROUPS), 2) < GROUPS // 2))
    detection = found(table, views, by=["known"])
    assert row_of(detection, "sae", "known=true")["n"] == GROUPS
    ends = set(zip(detection.transfer["train"], detection.transfer["test"], strict=True))
    assert ("known=true", "known=false") in ends
    assert not {pair for pair in ends if len({"known" in name for name in pair}) > 1 or "pooled" in pair}


def test_scores_are_those_of_scikit_learn_on_the_same_folds():
    table, views = world(3, signal=0.7)
    detection = found(table, views)
    study = build_study(table)
    scope = next(scope for scope in study.scopes if scope.name == "pooled")
    folds = grouped_folds(study.groups, 5, MODEST.generator(scope, 4))
    for group in np.unique(study.groups):
        assert len(set(folds[study.groups == group])) == 1
    lengths = study.lengths.T.reshape(-1, 1)
    label = np.repeat([0, 1], table.height)
    inputs = {
        "length": np.hstack([lengths, np.log1p(lengths)]),
        "metrics": np.concatenate([table["m_fact"], table["m_hall"]])[:, None],
    }
    groups = np.tile(study.groups, 2)
    for name, x in inputs.items():
        scores, areas = np.empty(len(label)), []
        for fold in range(5):
            held = np.tile(folds == fold, 2)
            strength = 1 / (fit(name, x[~held], label[~held], groups[~held]).penalty * x.shape[1] * (~held).sum())
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-10, max_iter=2000))
            scores[held] = model.fit(x[~held], label[~held]).predict_proba(x[held])[:, 1]
            areas.append(roc_auc_score(label[held], scores[held].round(10)))
        assert row_of(detection, name)["auroc"] == pytest.approx(np.mean(areas), abs=1e-9)
        assert row_of(detection, name)["ece"] == pytest.approx(by_bins(scores, label), abs=1e-6)


def by_bins(scores, label) -> float:
    """Expected calibration error the slow way."""
    total = 0.0
    for lower in np.arange(10) / 10:
        inside = (scores >= lower) & (scores < lower + 0.1)
        if inside.any():
            total += inside.mean() * abs(scores[inside].mean() - label[inside].mean())
    return total


def test_calibration_is_the_gap_between_what_is_claimed_and_what_happens():
    label = np.array([0, 0, 1, 1])
    assert calibration_error(np.array([0.0, 0, 1, 1]), label) == 0
    assert calibration_error(np.array([1.0, 1, 0, 0]), label) == 1
    assert calibration_error(np.full(4, 0.5), label) == 0
    assert calibration_error(np.full(4, 0.75), label) == pytest.approx(0.25)


def test_a_bare_table_gets_the_detectors_that_it_allows():
    table, _ = world(signal=1.0)
    detection = found(table, Views())
    there = set(detection.rows.filter(pl.col("auroc").is_not_null())["detector"])
    assert there == {"length", "metrics"}
    notes = " ".join(detection.about["notes"])
    for said in ("give --pairs", "--keep-residuals", "only a run's folder", "Without mean_difference and residual"):
        assert said in notes


@pytest.mark.thorough
def test_a_run_that_closes_fits_residuals_over_all_texts_where_that_is_quick_and_leaves_the_slow_ones(monkeypatch):
    table, views = world(signal=1.0)
    texts = Texts.of_pairs(build_study(table))
    quick, whole = detect(texts, views, MODEST, quick=True), found(table, views)
    names = {scope: part["detector"].to_list() for (scope,), part in quick.rows.group_by("scope", maintain_order=True)}
    assert names["pooled"] == [name for name in OF_PAIRS if name not in ("k_sparse", "mean_difference")]
    assert names["a"] == names["b"] == [name for name in names["pooled"] if name != "residual"]
    for name in names["pooled"]:
        assert row_of(quick, name) == row_of(whole, name)
    assert quick.against.filter(scope="pooled").row(0)[:2] == ("sae", "residual")
    assert "residual" not in quick.transfer["detector"]
    texts_seen, dimensions = 240, 12
    monkeypatch.setattr(evaluate, "MOST_GRAM", texts_seen**2 * dimensions)
    assert row_of(detect(texts, views, MODEST, quick=True), "residual")["auroc"] is not None
    monkeypatch.setattr(evaluate, "MOST_GRAM", texts_seen**2 * dimensions - 1)
    row = row_of(detect(texts, views, MODEST, quick=True), "residual")
    assert row["auroc"] is None and row["reason"].startswith("left to `bluffscope stats --detectors`")


def test_too_few_groups_are_not_judged():
    table, views = world()
    few = table.head(18)
    detection = found(few, Views(views.items.head(18), few["pair_id"], views.residuals, views.features))
    assert detection.rows["auroc"].is_null().all()
    assert set(detection.rows["reason"]) == {
        "5 groups of pairs, fewer than 10",
        "4 groups of pairs, fewer than 10",
        "9 groups of pairs, fewer than 10",
    }
    assert detection.transfer.is_empty()


@pytest.mark.thorough
def test_a_metric_without_values_on_some_texts_is_filled_in_from_the_training_folds():
    table, views = world(signal=1.0)
    holes = np.arange(table.height) % 3 == 0
    table = table.with_columns(m_hall=pl.when(pl.Series(holes)).then(None).otherwise(pl.col("m_hall")))
    row = row_of(found(table, views), "metrics")
    # That a value is missing tells hallucinations apart here, and may be used.
    assert row["auroc"] > 0.7


def test_large_tables_are_sampled_by_whole_groups_and_it_is_said():
    groups = np.random.default_rng(0).integers(0, 3000, 9000)
    _, groups = np.unique(groups, return_inverse=True)
    rows = sampled(groups, MOST_PAIRS, np.random.default_rng(0))
    assert MOST_PAIRS - 20 < len(rows) <= MOST_PAIRS
    assert (np.diff(rows) > 0).all()
    chosen = np.unique(groups[rows])
    assert np.isin(groups, chosen).sum() == len(rows)
    rng = np.random.default_rng(1)
    table = one_metric(rng.normal(size=MOST_PAIRS + 500), rng.normal(size=MOST_PAIRS + 500))
    detection = found(table, Views(), resampling=Resampling(repeats=1))
    assert row_of(detection, "metrics")["n"] == MOST_PAIRS
    assert "2,000 of 2,500 pairs, whole groups at random" in detection.about["notes"][0]


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_numbers():
    one, two = (found(*world(signal=0.5)) for _ in range(2))
    assert one.rows.equals(two.rows)
    assert one.transfer.equals(two.transfer)
    other = found(*world(signal=0.5), resampling=Resampling(seed=1))
    assert not one.rows.equals(other.rows)
    assert set(BASELINES) < set(DETECTORS)


@pytest.mark.thorough
def test_residuals_that_lack_a_text_are_not_used_and_it_is_said():
    table, views = world(signal=1.0)
    lacking = Views(views.items, views.ids, views.residuals.filter(pl.col("pair_id") != "p7"), views.features)
    row = row_of(found(table, lacking), "residual")
    assert (row["auroc"], row["reason"]) == (None, "residuals.parquet lacks 2 of 240 texts at layer 3")


def test_other_pairs_without_what_a_detector_looks_at_are_refused_in_one_line():
    study = Texts.of_pairs(build_study(world()[0]))
    inputs = read_inputs(study, Views(), 0)
    for on, says in (("residual", "no residuals"), ("sae", "no SAE features")):
        with pytest.raises(InputError, match=f"of the other pairs: {says}"):
            keyed_matrix(Keys(on), study, Views(), inputs)


def test_one_group_larger_than_the_sample_is_still_looked_at():
    assert len(sampled(np.zeros(5000, dtype=np.int64), MOST_PAIRS, np.random.default_rng(0))) == 5000
