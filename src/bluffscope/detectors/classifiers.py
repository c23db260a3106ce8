"""The detectors' fits: from the texts of the training folds to the probability that a text is hallucinated."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bluffscope.pairs.wordbag import bag_classifier

DETECTORS: Final[dict[str, str]] = {
    "length": "length",
    "logprob": "logprob",
    "text": "text",
    "mean_difference": "residual",
    "residual": "residual",
    "metrics": "metrics",
    "sae": "sae",
}
"""Every detector and the input that it looks at, baselines first."""

BASELINES: Final = ("length", "logprob", "text")
SURFACE: Final = ("length", "text")
"""The baselines that need no model."""

FEWEST_ACTIVE: Final = 3
"""Training texts in which an SAE feature must be active to be used."""


def probabilities(detector: str, train: Any, labels: np.ndarray, test: Any) -> np.ndarray:
    """(text,) probability of a hallucination for each test text; nothing is learnt from the test texts.

    Args:
        detector: one of `DETECTORS`.
        train: (text, feature).
        labels: (text,) 0 for a fact, 1 for a hallucination.
        test: (text, feature).
    """
    if detector == "mean_difference":
        # Marks and Tegmark 2023: the line through the two classes' means; a logistic curve calibrates it.
        direction = train[labels == 1].mean(axis=0) - train[labels == 0].mean(axis=0)
        train, test = (train @ direction)[:, None], (test @ direction)[:, None]
    elif detector == "sae":
        used = active_enough(train)
        if not used.any():
            return np.full(test.shape[0], 0.5)
        train, test = train[:, used], test[:, used]
    model = classifier(detector).fit(train, labels)
    return model.predict_proba(test)[:, 1]


def active_enough(train: Any) -> np.ndarray:
    """(feature,) whether each SAE feature is active in enough training texts to be used."""
    return np.asarray((train > 0).sum(axis=0)).ravel() >= FEWEST_ACTIVE


def classifier(detector: str) -> Any:
    """The scikit-learn pipeline of a detector, to be fitted."""
    # scikit-learn takes a second to import: only where a detector is fitted
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    if detector == "text":
        return bag_classifier()
    strength = {"metrics": 0.1, "residual": 0.01}.get(detector, 1.0)
    scaler = MaxAbsScaler() if detector == "sae" else StandardScaler()
    steps: list[Any] = [scaler, LogisticRegression(C=strength, max_iter=2000)]
    if detector == "metrics":
        steps.insert(0, SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True))
    return make_pipeline(*steps)
