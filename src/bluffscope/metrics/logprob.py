"""How likely the model finds each completion: a control for what looks like a signature of falsehood."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float

from bluffscope.metrics.declaration import PAIRS, Analysis, Metric, Values
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
    found: dict[str, Values] = {**compared("logprob", sums)}
    found |= compared("logprob_per_token", sums / np.maximum(counts, 1))
    if measurement.arrangement == PAIRS:
        found[KNOWS] = _knows(sums)
    return found


def _knows(sums: Float[np.ndarray, "pair view"]) -> list[bool | None]:
    """Whether the fact is the more probable; None where either has no log-probability."""
    fact, hall = sums[:, PAIRS.views.index("fact")], sums[:, PAIRS.views.index("hall")]
    return [None if np.isnan(one + other) else bool(one > other) for one, other in zip(fact, hall, strict=True)]


KNOWS: Final = "knows"
"""Column that says whether the model knows a pair's fact."""
_LIKELY = "Log-probability of {view} given the prompt"
_NOTE = """By default; not with `--no-logprob`, and not where the model has no LM head or no room as a whole. A
completion's tokens are those of its whole text beyond the longest token prefix it shares with the prompt
(`fact_tokens`, `hall_tokens`); null where the first of them is the first of the text, which nothing predicts. `knows`
is what this model knows; a column that the data carries, such as the bundled pairs' `known`, says what some other
model does.
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
            higher="completion more likely",
            lower="completion less likely",
        ),
        Metric(
            "logprob_per_token",
            "nats",
            None,
            0,
            f"{_LIKELY}, mean over its completion's tokens",
            label="Log-probability per token",
            higher="tokens more likely on average",
            lower="tokens less likely on average",
        ),
    ),
    of_pair=(
        Metric(
            KNOWS,
            "",
            None,
            None,
            "Whether the model gives the fact a higher log-probability than the hallucination",
            kind="bool",
        ),
    ),
    needs_sae=False,
    note=_NOTE,
)
