"""One token probe: weighted logistic regression in which the highest token of a span counts as the span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bluffscope.detectors.fits import active_enough
from bluffscope.detectors.linear import Linear
from bluffscope.detectors.measures import area

PENALTIES: Final = (0.01, 0.1, 1.0)
"""C of scikit-learn's, for weights that add up to the number of texts: among these each fit chooses."""
SPAN_SHARE: Final = 0.5
"""Share of the loss that is of the highest token of each stretch; the rest is of all tokens alike."""
ROUNDS: Final = 2
"""How often the highest tokens are looked for again, and the weights fitted anew."""


@dataclass(frozen=True)
class _Scaled:
    """Tokens as the solver takes them."""

    matrix: Any
    """(token, used column)."""
    used: np.ndarray
    """(column,) whether it plays a part."""
    scale: np.ndarray
    mean: np.ndarray | None
    """None where columns are not centred: a sparse matrix would not be sparse any more."""

    @classmethod
    def of(cls, on: str, matrix: Any) -> _Scaled:
        """SAE features and words are scaled to at most 1, all else is standardised."""
        # scikit-learn takes a second to import: only where a detector is fitted
        from sklearn.preprocessing import MaxAbsScaler, StandardScaler

        used = active_enough(matrix) if on == "sae" else np.ones(matrix.shape[1], dtype=bool)
        if on in ("sae", "text"):
            scaler: Any = MaxAbsScaler()
            return cls(scaler.fit_transform(matrix[:, used]) if used.any() else None, used, scaler.scale_, None)
        scaler = StandardScaler()
        return cls(scaler.fit_transform(matrix.astype(np.float64)), used, scaler.scale_, scaler.mean_)

    def linear(self, model: Any) -> Linear:
        """A fitted model's weights, scaling folded in."""
        weights = np.zeros(len(self.used))
        weights[self.used] = model.coef_[0] / self.scale
        shift = 0.0 if self.mean is None else float(self.mean @ weights[self.used])
        return Linear.of(weights, float(model.intercept_[0]) - shift)


def fit_tokens(
    on: str,
    matrix: Any,
    labels: np.ndarray,
    penalty: float,
    stretches: np.ndarray | None = None,
    texts: int = 0,
) -> Linear:
    """Logistic regression on tokens, both labels weighing the same.

    A span is found if some of its tokens is: which one, nobody has marked. So half of the loss is of the highest token
    of each stretch alone (Obeso et al. 2025, "Real-time detection of hallucinated entities in long-form generation"):
    the fit to all tokens names them, a fit that gives them their weight may name others, and so on.

    Args:
        on: what the columns are.
        matrix: (token, column).
        labels: (token,) 0 or 1.
        penalty: as in `PENALTIES`.
        stretches: (token,) ascending numbers, a label in each; without them all tokens weigh alike.
        texts: how many they are of, if not each of its own: the tokens of one are little more evidence than one.
    """
    scaled, model, every = _Scaled.of(on, matrix), _model(penalty), _balanced(labels, texts)
    if not scaled.used.any():
        return Linear.of(np.zeros(matrix.shape[1]), 0.0)
    model.fit(scaled.matrix, labels, sample_weight=every)
    for _ in range(ROUNDS):
        if stretches is None:
            break
        highest = _highest(model.decision_function(scaled.matrix), stretches)
        of_spans = np.zeros(len(labels))
        of_spans[highest] = _balanced(labels[highest], texts)
        model.fit(scaled.matrix, labels, sample_weight=(1 - SPAN_SHARE) * every + SPAN_SHARE * of_spans)
    return scaled.linear(model)


def best_penalty(
    on: str, matrix: Any, labels: np.ndarray, texts: int, test: Any, test_labels: np.ndarray
) -> tuple[float, float]:
    """AUROC on test tokens of a fit in which all tokens weigh alike, and its penalty: the best of `PENALTIES`.

    Args:
        on: what the columns are.
        matrix: (token, column).
        labels: (token,) 0 or 1.
        texts: how many they are of.
        test: (test token, column).
        test_labels: (test token,).
    """
    scaled, model, weights = _Scaled.of(on, matrix), _model(PENALTIES[0]), _balanced(labels, texts)
    if not scaled.used.any():
        return 0.5, PENALTIES[0]
    found: list[tuple[float, float]] = []
    for penalty in PENALTIES:  # each begins where the one before it ended
        model.set_params(C=penalty).fit(scaled.matrix, labels, sample_weight=weights)
        found.append((area(scaled.linear(model).scores(test), test_labels), penalty))
    return max(found, key=lambda one: (one[0], -one[1]))


def maxima(scores: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(number,) the highest of (token,) scores of each of (token,) ascending numbers without gaps."""
    return np.maximum.reduceat(scores, np.flatnonzero(np.diff(numbers, prepend=-1)))


def _model(penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression  # as slow as above

    return LogisticRegression(C=penalty, max_iter=2000, warm_start=True)


def _highest(scores: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(number,) places of the highest score of each of (token,) ascending numbers; the first of equals."""
    order = np.lexsort((np.arange(len(scores)), -scores, numbers))
    return order[np.flatnonzero(np.diff(numbers[order], prepend=-1))]


def _balanced(labels: np.ndarray, texts: int) -> np.ndarray:
    """(token,) weights that add up to the number of texts, half for each label."""
    counts = np.maximum(np.bincount(labels, minlength=2), 1)
    return 0.5 * (texts or len(labels)) / counts[labels]
