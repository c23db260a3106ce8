"""How likely the model finds each completion: a control for what looks like a signature of falsehood."""

from __future__ import annotations

import numpy as np

from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement, compared
from bluffscope.records import VIEWS


def logprob(measurement: Measurement) -> dict[str, Values]:
    """Log-probability of each completion given its prompt, in nats: summed over its tokens, and their mean.

    NaN where the completion has no token that follows another: its first token merged with the whole prompt, and no
    BOS is fed.
    """
    cells = len(measurement.pair_ids) * len(VIEWS)
    cell, values = np.zeros(0, dtype=np.int64), np.zeros(0)
    if measurement.targets is not None and measurement.logprobs is not None:
        cell, values = measurement.targets.pair * len(VIEWS) + measurement.targets.view, measurement.logprobs
    counts = np.bincount(cell, minlength=cells)
    sums = np.where(counts > 0, np.bincount(cell, weights=values, minlength=cells), np.nan)
    means = sums / np.maximum(counts, 1)
    return {
        **compared("logprob", sums.reshape(-1, len(VIEWS))),
        **compared("logprob_per_token", means.reshape(-1, len(VIEWS))),
    }


_LIKELY = "Log-probability of {view} given the prompt"
_NOTE = """In runs with `--logprob` only. A completion's tokens are those of its whole text beyond the longest token
prefix it shares with the prompt (`fact_tokens`, `hall_tokens`); null where the first of them is the first of the text,
which nothing predicts.
"""

ANALYSIS = Analysis(
    "logprob",
    logprob,
    title="Log-probability",
    metrics=(
        Metric(
            "logprob",
            "nats",
            None,
            0,
            f"{_LIKELY}, summed over its completion's tokens",
            label="Log-probability",
        ),
        Metric(
            "logprob_per_token",
            "nats",
            None,
            0,
            f"{_LIKELY}, mean over its completion's tokens",
            label="Log-probability per token",
        ),
    ),
    note=_NOTE,
)
