"""What a kept detector says of a text that is being written: the score of all that there is so far. Needs no torch.

A detector of tokens says it of each token alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from bluffscope.detectors.files import Detector
from bluffscope.errors import InputError
from bluffscope.records import STATEMENTS

SAYS: Final[Mapping[str, str]] = {
    "last": "that the text up to this token is hallucinated",
    "first-completion": "that the text is hallucinated, read at the completion's first token alone",
    "completion-mean": "that the text is hallucinated, by the mean over the completion up to this token",
    "tokens": "that the token itself is part of a hallucination: it is of this token alone, not of the text up to it",
}
"""What the probability at a token is, by the position at which the detector was trained."""


def refuse_unstreamable(detector: Detector) -> None:
    """Refuse a detector that cannot judge a text of which more is to come.

    Raises:
        InputError: saying why, and what to do.
    """
    if detector.keys.given:
        raise InputError(f"{detector.path}: it was trained on vectors; score with detect score --activations FILE")
    if detector.keys.on == "metrics":
        raise InputError(
            f"{detector.path}: a detector of metrics compares a finished completion with its prompt; score the text "
            "with detect score, or train with --on residual or --on sae"
        )
    if detector.position not in SAYS:
        raise InputError(
            f"{detector.path}: it reads at {detector.position}, which a text that is being written does not have; "
            "score the finished text with detect score, or train on a run with --position last"
        )


def reads_prompt(detector: Detector) -> bool:
    """Whether the prompt's own tokens count as the text: labelled texts are read whole."""
    return detector.arrangement == STATEMENTS and detector.position not in ("last", "tokens") and not detector.chat


def prefix_scores(position: str, scores: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """(token,) the score of the text up to each token, from those of the tokens alone.

    Weights are linear, so that the score of a mean over tokens is the mean of their scores.

    Args:
        position: one of `SAYS`.
        scores: (token,) log odds of each token's residual.
        before: (token,) of tokens in front of these that belong to the text.
    """
    every = scores if before is None else np.concatenate([before, scores])
    if position == "completion-mean":
        every = np.cumsum(every) / np.arange(1, len(every) + 1)
    elif position == "first-completion":
        every = np.full_like(every, every[0]) if len(every) else every
    return every[len(every) - len(scores) :]
