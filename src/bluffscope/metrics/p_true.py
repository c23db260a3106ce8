"""Whether the model, asked, says that a text is true: a baseline for what is read out of its activations."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float

from bluffscope.metrics.declaration import Analysis, Metric, Values
from bluffscope.metrics.measurement import Measurement
from bluffscope.records.questions import ANSWERS, CHAT_QUESTION, STATEMENT_QUESTION


def p_true(measurement: Measurement) -> dict[str, Values]:
    """P(True) / (P(True) + P(False)) of each completion, as the model answers (Kadavath et al. 2022).

    NaN where the question was not asked: it is longer than the model's context, or its chat template refuses it.
    """
    arrangement, items = measurement.arrangement, len(measurement.item_ids)
    values = np.full((items, len(arrangement.views)), np.nan)
    answers, logprobs = measurement.answers, measurement.answer_logprobs
    if answers is not None and logprobs is not None:
        # (item, completion, answer): sums over each answer's tokens from where the two part
        shape = (items, len(arrangement.completions), len(ANSWERS))
        cell = (answers.item * shape[1] * shape[2] + answers.view).astype(np.int64)
        size = items * shape[1] * shape[2]
        sums = np.bincount(cell, weights=logprobs, minlength=size).reshape(shape)
        asked = np.bincount(cell, minlength=size).reshape(shape).all(axis=2)
        values[:, arrangement.completed] = np.where(asked, probability(sums[..., 0] - sums[..., 1]), np.nan)
    return {**arrangement.compared("p_true", values)}


def probability(logit: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0, -logit))


_PLAIN: Final = repr(STATEMENT_QUESTION).strip("'")
_NOTE: Final = f"""In runs with `--p-true` only. The model reads prompt and completion as they are measured, then
`{_PLAIN}`; its answers are ` True` and ` False`. With `--chat` the
completion is the assistant's turn, the user's next one is `{CHAT_QUESTION}`, and the assistant answers `True` or
`False`. Null where the question is longer than the model's context, or the chat template takes no such conversation.
"""

ANALYSIS = Analysis(
    "p_true",
    p_true,
    title="P(True)",
    metrics=(
        Metric(
            "p_true",
            "dimensionless",
            0,
            1,
            "P(True) / (P(True) + P(False)) of the model's answer to whether {view} is true",
            label="P(True), asked",
            higher="called true with more confidence",
            lower="called true with less confidence",
        ),
    ),
    needs_sae=False,
    note=_NOTE,
)
