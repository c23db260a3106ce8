"""The detectors' fits: from the texts of the training folds to the probability that a text is hallucinated."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np

from bluffscope.pairs.wordbag import bag_classifier

MEASURED: Final = {"logprob": "--logprob", "p_true": "--p-true"}
"""Baselines that are columns of a run's table, with the option of `bluffscope analyze` that measures them."""
CARRIED: Final = ("answer_entropy", "answer_logprob")
"""Baselines that the answers of `bluffscope ask` carry along."""
BASELINES: Final = {
    "length": "length",
    "logprob": "log-probability",
    "p_true": "P(True)",
    "answer_entropy": "entropy of the answers",
    "answer_logprob": "log-probability of the answer as it was sampled",
    "text": "completion text",
    "prompt": "prompt text",
}
"""What needs no look inside the model, with the words for it."""
SURFACE: Final = ("length", "text", "prompt")
"""The baselines that need no model."""
DETECTORS: Final[dict[str, str]] = {
    **{name: name for name in BASELINES},
    "mean_difference": "residual",
    "residual": "residual",
    "metrics": "metrics",
    "sae": "sae",
}
"""Every detector and the input that it looks at, baselines first."""

FEWEST_ACTIVE: Final = 3
"""Training texts in which an SAE feature must be active to be used."""


def unmeasured(known: Collection[str]) -> str:
    """What could have been a baseline and was not measured, and how to measure it; empty where there is nothing.

    Args:
        known: the detectors that were fitted.
    """
    lacking = [name for name in MEASURED if name not in known]
    if not lacking:
        return ""
    named, flags = " and ".join(BASELINES[name] for name in lacking), " ".join(MEASURED[name] for name in lacking)
    return f"{named} {'was' if len(lacking) == 1 else 'were'} not measured: analyze with {flags}"


def compared_with(known: Collection[str]) -> str:
    """The baselines that gains are measured against, in words, and those that were not measured.

    Args:
        known: the detectors that were fitted.
    """
    named = [words for name, words in BASELINES.items() if name in known]
    lacking = unmeasured(known)
    best = f"the best of {', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else (*named, "guessing")[0]
    return f"{best}{lacking and f' ({lacking})'}"


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
    # Texts that look the same to a detector are ties, whatever the order of sums left in the last digits.
    return np.round(model.predict_proba(test)[:, 1], 10)


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

    if detector in ("text", "prompt"):
        return bag_classifier()
    strength = {"metrics": 0.1, "residual": 0.01}.get(detector, 1.0)
    scaler = MaxAbsScaler() if detector == "sae" else StandardScaler()
    steps: list[Any] = [scaler, LogisticRegression(C=strength, max_iter=2000)]
    if detector in (*MEASURED, *CARRIED):  # of a text that has no value, nothing is said
        steps.insert(0, SimpleImputer(strategy="median", keep_empty_features=True))
    if detector == "metrics":
        steps.insert(0, SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True))
    return make_pipeline(*steps)
