"""Logistic regression in the space of the texts: scikit-learn's, at every penalty, for every shape of input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from bluffscope.detectors.logistic import Texts, fit_fine, fit_rough, nothing
from bluffscope.detectors.penalties import PENALTIES


def made(shape, seed=0):
    """Values, their scale, the columns as scikit-learn takes them, and labels that the first columns know something of.

    Shapes: "few" columns, "many", "sparse", and "twins": every text twice, and columns that say nothing.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [50, 70]))
    columns = {"few": 5, "many": 400, "sparse": 300, "twins": 200}[shape]
    values = rng.normal(3, 1, (120, columns)) @ np.diag(rng.gamma(1, 5, columns)) + rng.normal(size=120)[:, None]
    values[:, :3] += 2 * labels[:, None]
    if shape == "twins":
        values[60:], labels[60:] = values[:60], labels[:60]
        values[:, 5:9] = 7.7
    if shape == "sparse":
        values = np.maximum(values, 0) * (rng.random(values.shape) < 0.1)
        scale = np.maximum(values.max(axis=0), 1)
        return csr_matrix(values), scale, values / scale, labels
    deviation = values.std(axis=0)
    return values, None, (values - values.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1), labels


@pytest.mark.parametrize("shape", ["few", "many", "sparse", "twins"])
def test_decision_values_are_scikit_learns_at_the_same_penalty(shape):
    values, scale, columns, labels = made(shape)
    texts = Texts.of(values, scale)
    assert texts.spread == pytest.approx(np.var(columns, axis=0).sum())
    rough = nothing(1, 120)
    for penalty in PENALTIES:
        strength = 1 / (penalty * texts.spread * 120)
        known = LogisticRegression(C=strength, tol=1e-11, max_iter=100_000, solver="newton-cholesky")
        expected = known.fit(columns, labels).decision_function(columns)
        rough = fit_rough(texts, labels, np.ones((1, 120), dtype=bool), np.array([penalty]), rough)
        for start in (None, rough):
            found = fit_fine(texts, labels, penalty, start)
            assert found.scores[0] == pytest.approx(expected, abs=1e-6), penalty
            weights = texts.weights(found.counts[0])
            again = values @ weights - texts.mean @ weights + found.intercepts[0]
            assert again == pytest.approx(expected, abs=1e-6)
        assert rough.scores[0] == pytest.approx(expected, abs=0.05 + 0.02 * np.abs(expected).max())


@pytest.mark.parametrize("shape", ["few", "many", "sparse"])
def test_many_fits_at_once_are_as_many_fits_to_some_of_the_texts(shape):
    values, scale, _, labels = made(shape, 1)
    texts = Texts.of(values, scale)
    rng = np.random.default_rng(2)
    used = rng.random((4, 120)) < 0.7
    penalties = np.array([1.0, 0.01, 0.01, 1e-4])
    found = fit_rough(texts, labels, used, penalties, nothing(4, 120))
    for which, penalty, scores in zip(used, penalties, found.scores, strict=True):
        own = Texts.of(values[which], texts.scale)
        # the spread is that of all texts
        alone = fit_fine(own, labels[which], penalty * texts.spread / own.spread)
        weights = own.weights(alone.counts[0])
        expected = values @ weights - own.mean @ weights + alone.intercepts[0]
        assert scores == pytest.approx(expected, abs=0.05 + 0.02 * np.abs(expected).max())


def test_texts_that_nothing_tells_apart_get_the_share_of_their_labels():
    labels = np.repeat([0, 1], [30, 10])
    for values, scale in (
        (np.full((40, 3), 2.5), None),
        (csr_matrix((40, 30)), np.ones(30)),
        (np.zeros((40, 0)), None),
    ):
        found = fit_fine(Texts.of(values, scale), labels, 0.01)
        assert found.scores[0] == pytest.approx(np.log(10 / 30))
