"""Detectors' fits: scikit-learn's pipelines at the penalty chosen, which the training texts alone choose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from bluffscope.detectors.fits import fit
from bluffscope.detectors.penalties import PENALTIES, held_out_loss, inner_folds

GROUPS = np.tile(np.arange(40), 2)
LABELS = np.repeat([0, 1], 40)
SCALING = {
    "sae": [MaxAbsScaler()],
    "residual": [StandardScaler()],
    "length": [StandardScaler()],
    "logprob": [SimpleImputer(), StandardScaler()],
    "text": [TfidfTransformer()],
    "metrics": [SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()],
}
"""What was done to each input by scikit-learn before its logistic regression."""


def made(on, seed=0, signal=0.8, columns=12):
    """(text, column) of 80 texts, the first three of which know something of the labels."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2, 1, (80, columns)) + signal * LABELS[:, None] * (np.arange(columns) < 3)
    if on in ("sae", "k_sparse"):
        values *= rng.random((80, columns)) < 0.5
        values[:, -1] = 0
        values[:2, -1] = 1  # too seldom active to be used
        return csr_matrix(values)
    if on == "text":
        return csr_matrix(np.floor(values))
    if on == "metrics":
        values[rng.random((80, columns)) < 0.1] = np.nan
        values[:, 4] = 1.0
        values[:70, 5] = np.nan
    return values


def penalised(scaling, matrix, labels, penalty):
    """scikit-learn's pipeline with what a penalty stands for."""
    ready = make_pipeline(*scaling).fit(matrix).transform(matrix)
    ready = ready if isinstance(ready, np.ndarray) else ready.toarray()
    strength = 1 / (penalty * ready.var(axis=0).sum() * len(labels))
    return make_pipeline(*scaling, LogisticRegression(C=strength, tol=1e-11, max_iter=100_000)).fit(matrix, labels)


@pytest.mark.parametrize("on", list(SCALING))
def test_a_fit_is_that_of_scikit_learns_pipeline_at_the_chosen_penalty(on):
    matrix = made(on)
    train = np.flatnonzero(GROUPS < 30)
    test = np.flatnonzero(GROUPS >= 30)
    columns = np.flatnonzero(np.asarray((matrix[train] > 0).sum(axis=0)).ravel() >= 3) if on == "sae" else slice(None)
    found = fit(on, matrix[train], LABELS[train], GROUPS[train])
    assert found.penalty in PENALTIES
    known = penalised(SCALING[on], matrix[train][:, columns], LABELS[train], found.penalty)
    expected = known.decision_function(matrix[test][:, columns])
    assert found.scores(matrix[test]) == pytest.approx(expected, abs=1e-6)
    assert found.probabilities(matrix[test]) == pytest.approx(expit(expected), abs=1e-6)
    assert np.ptp(expected) > 0.05
    if on == "sae":
        assert found.linear.weights[-1] == 0


def test_the_penalty_is_the_one_with_the_least_loss_by_folds_of_groups_within():
    matrix, chosen = made("residual", 3, columns=60), set()
    for signal in (0, 3):
        matrix[:, 0] += signal * LABELS
        found = fit("residual", matrix, LABELS, GROUPS)
        folds = inner_folds(GROUPS, LABELS)
        for group in range(40):
            assert len(set(folds[group == GROUPS])) == 1
        losses = {}
        for penalty in PENALTIES:
            scores = np.empty(80)
            scaler = StandardScaler().fit(matrix)  # of the training part: no labels in it
            ready = scaler.transform(matrix)
            for fold in range(5):
                known, held = folds != fold, folds == fold
                strength = 1 / (penalty * 60 * known.sum())
                model = LogisticRegression(C=strength, max_iter=10_000).fit(ready[known], LABELS[known])
                scores[held] = model.decision_function(ready[held])
            losses[penalty] = held_out_loss(scores, LABELS)
            if penalty == found.penalty:
                assert found.within == pytest.approx(scores, abs=0.05)
        assert losses[found.penalty] <= min(losses.values()) + 2e-3
        chosen.add(found.penalty)
    assert len(chosen) == 2 and max(chosen) == 1.0  # where nothing is to be learnt, the strongest


def test_a_difference_of_means_is_the_line_through_them_and_has_no_penalty():
    matrix = made("residual", 1)
    found = fit("mean_difference", matrix, LABELS, GROUPS)
    direction = matrix[LABELS == 1].mean(axis=0) - matrix[LABELS == 0].mean(axis=0)
    along = (matrix @ direction)[:, None]
    known = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-11, max_iter=1000)).fit(along, LABELS)
    assert found.scores(matrix) == pytest.approx(known.decision_function(along), abs=1e-6)
    assert found.penalty is None
    held = inner_folds(GROUPS, LABELS) == 2
    direction = matrix[~held & (LABELS == 1)].mean(axis=0) - matrix[~held & (LABELS == 0)].mean(axis=0)
    known = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        (matrix[~held] @ direction)[:, None], LABELS[~held]
    )
    assert found.within[held] == pytest.approx(known.decision_function((matrix[held] @ direction)[:, None]), abs=1e-3)


def test_a_k_sparse_probe_looks_at_the_features_that_differ_most_and_at_no_more_than_it_needs():
    matrix = made("k_sparse", 2, signal=0, columns=40).tolil()
    matrix[:, 7] = (4.0 * LABELS + np.random.default_rng(1).random(80))[:, None]
    found = fit("k_sparse", matrix.tocsr(), LABELS, GROUPS)
    assert found.k == 1 and np.flatnonzero(found.linear.weights).tolist() == [7]
    spread = made("k_sparse", 2, signal=4, columns=40)
    several = fit("k_sparse", spread, LABELS, GROUPS)
    assert several.k in (5, 20) and set(np.flatnonzero(several.linear.weights)) >= {0, 1, 2}
    assert (several.linear.weights != 0).sum() <= several.k
    assert held_out_loss(several.within, LABELS) < 0.6


def test_nothing_of_the_choice_leaks_into_the_scores_within():
    """Twenty of 3,000 features chosen by the labels would tell noise apart in the texts they were chosen on."""
    rng = np.random.default_rng(5)
    noise = csr_matrix(rng.gamma(2, 1, (80, 3000)) * (rng.random((80, 3000)) < 0.3))
    found = fit("k_sparse", noise, LABELS, GROUPS)
    assert held_out_loss(found.within, LABELS) > 0.65
    assert held_out_loss(fit("sae", noise, LABELS, GROUPS).within, LABELS) > 0.65


def test_features_that_are_never_active_enough_say_nothing():
    for detector in ("sae", "k_sparse"):
        found = fit(detector, csr_matrix((80, 3)), LABELS, GROUPS)
        assert found.scores(csr_matrix(np.ones((2, 3)))) == pytest.approx([0, 0], abs=1e-12)


def test_folds_within_that_have_one_label_are_passed_over():
    groups, labels = np.arange(12), np.array([1, *[0] * 11])
    found = fit("length", np.arange(12.0)[:, None], labels, groups)
    assert np.isnan(found.within).any() and np.isfinite(found.within).any()
    assert np.isfinite(found.scores(np.zeros((1, 1)))).all()
