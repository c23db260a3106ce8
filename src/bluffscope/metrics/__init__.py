"""Step 5: what is measured. One file for each analysis: its function, and the declaration of its metrics beside it.

Importing the declarations imports no torch; the functions do when they are called.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bluffscope.metrics import consistency, entropy, logprob, misalignment, sensitivity, stability
from bluffscope.metrics.declaration import Analysis, AnalysisFunction, Column, Metric
from bluffscope.metrics.measurement import Measurement

ANALYSES: tuple[Analysis, ...] = (
    sensitivity.ANALYSIS,
    misalignment.ANALYSIS,
    stability.ANALYSIS,
    entropy.ANALYSIS,
    consistency.ANALYSIS,
)
"""The built-in analyses, in the order of docs/definitions.md and of the table's columns. A new one is a file here, its
line in this list, and its twin in `bluffscope.reference.analyses`."""

LOGPROB: Analysis = logprob.ANALYSIS
"""Runs with ``--logprob`` as well: it needs the whole model and its LM head."""

METRICS: tuple[Metric, ...] = tuple(metric for analysis in (*ANALYSES, LOGPROB) for metric in analysis.metrics)
"""Every metric of the built-in analyses, in the table's order, and the log-probabilities."""


LAYER_METRICS: tuple[Metric, ...] = tuple(
    metric for analysis in ANALYSES if analysis.per_layer for metric in analysis.metrics
)
"""Those that are measured at every layer, in each of the three views."""


class Declared(NamedTuple):
    """What is declared of a metric that was measured."""

    analysis: Analysis
    metric: Metric
    level: float | None = None
    """Its noise level in a noise sweep."""


def declared(name: str) -> Declared | None:
    """The declaration of a built-in metric, one of a noise sweep too, by its name without layer and view."""
    swept = _SWEPT.fullmatch(name)
    for analysis in (*ANALYSES, LOGPROB):
        for metric in analysis.metrics:
            if metric.name == name:
                return Declared(analysis, metric)
            if metric.swept and swept and metric.name == swept[1]:
                level = float(swept[2])
                return Declared(analysis, metric.at_noise(level), level)
    return None


_SWEPT: Final = re.compile(r"(.+)_s(\d+(?:\.\d+)?(?:e[+-]\d+)?)")


__all__ = [
    "ANALYSES",
    "LAYER_METRICS",
    "LOGPROB",
    "METRICS",
    "Analysis",
    "AnalysisFunction",
    "Column",
    "Declared",
    "Measurement",
    "Metric",
    "declared",
]
