"""The detectors by name: what each looks at, and which are baselines."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

MEASURED: Final = {"logprob": "--logprob", "p_true": "--p-true"}
"""Baselines that are columns of a run's table, with the option of `bluffscope analyze` that measures them."""
CARRIED: Final = ("answer_entropy", "answer_logprob")
"""Baselines that the answers of `bluffscope ask` carry along."""
BASELINES: Final = {
    "length": "length",
    "logprob": "log-probability",
    "p_true": "P(True)",
    "answer_entropy": "answer entropy",
    "answer_logprob": "log-probability as sampled",
    "text": "completion text",
    "prompt": "prompt text",
}
"""What needs no look inside the model, with the words for it."""
SURFACE: Final = ("length", "text", "prompt")
"""The baselines that need no model."""
NAMES: Final = {
    **BASELINES,
    "mean_difference": "difference of means",
    "residual": "residuals",
    "metrics": "metrics",
    "k_sparse": "a few SAE features",
    "sae": "SAE features",
}
"""Every detector in words."""
INSIDE: Final = ("sae", "residual", "metrics")
"""The first of these that was fitted stands for all that look inside: none is chosen for its result."""
DETECTORS: Final[dict[str, str]] = {
    **{name: name for name in BASELINES},
    "mean_difference": "residual",
    "residual": "residual",
    "metrics": "metrics",
    "k_sparse": "sae",
    "sae": "sae",
}
"""Every detector and the input that it looks at, baselines first."""


def called(detector: str) -> str:
    """A detector in words; one that is not known, such as a saved one, by its name."""
    return NAMES.get(detector, detector)


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
