"""Step 5: what is measured. One file for each analysis: its function, and the declaration of its metrics beside it.

Importing the declarations imports no torch; the functions do when they are called.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bluffscope.metrics import consistency, entropy, logprob, misalignment, p_true, sensitivity, stability, trajectory
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

TRAJECTORY: Analysis = trajectory.ANALYSIS
"""Runs with ``--trajectory``, and by default where there are no SAEs: it needs the whole model and its LM head."""

LOGPROB: Analysis = logprob.ANALYSIS
"""By default as well, where the whole model fits: it needs its LM head."""

P_TRUE: Analysis = p_true.ANALYSIS
"""Runs with ``--p-true`` as well: it needs the whole model and its LM head."""

ON_REQUEST: tuple[Analysis, ...] = (TRAJECTORY, LOGPROB, P_TRUE)
"""Analyses that run where options ask for them; their columns stand behind all others."""

METRICS: tuple[Metric, ...] = tuple(metric for analysis in (*ANALYSES, *ON_REQUEST) for metric in analysis.metrics)
"""Every metric of the built-in analyses, in the table's order, and of those on request."""


LAYER_METRICS: tuple[Metric, ...] = tuple(
    metric for analysis in (*ANALYSES, *ON_REQUEST) if analysis.per_layer for metric in analysis.metrics
)
"""Those that are measured at every layer, in each view or in the completions."""


class Declared(NamedTuple):
    """What is declared of a metric that was measured."""

    analysis: Analysis
    metric: Metric
    level: float | None = None
    """Its noise level in a noise sweep."""


def declared(name: str) -> Declared | None:
    """The declaration of a built-in metric, one of a noise sweep too, by its name without layer and view."""
    swept = _SWEPT.fullmatch(name)
    for analysis in (*ANALYSES, *ON_REQUEST):
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
    "ON_REQUEST",
    "P_TRUE",
    "TRAJECTORY",
    "Analysis",
    "AnalysisFunction",
    "Column",
    "Declared",
    "Measurement",
    "Metric",
    "declared",
]
