"""How likely the model finds each completion: a control for what looks like a signature of falsehood."""

from __future__ import annotations

import numpy as np

from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement


def logprob(measurement: Measurement) -> dict[str, Values]:
    """Log-probability of each completion given its prompt, in nats: summed over its tokens, and their mean.

    NaN where the completion has no token that follows another: its first token merged with the whole prompt, and no
    BOS is fed.
    """
    none, targets = np.zeros(0, dtype=np.int64), measurement.targets
    item, view = (none, none) if targets is None else (targets.item, targets.view)
    values = np.zeros(0) if measurement.logprobs is None else measurement.logprobs
    sums, counts = measurement.totals(item, view, values)
    sums = np.where(counts > 0, sums, np.nan)
    compared = measurement.arrangement.compared
    return {**compared("logprob", sums), **compared("logprob_per_token", sums / np.maximum(counts, 1))}


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
    needs_sae=False,
    note=_NOTE,
)
