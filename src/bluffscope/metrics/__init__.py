"""Step 5: the five analyses, one file each, over one shared geometry; and the log-probability, where asked for."""

from bluffscope.metrics.consistency import cross_layer
from bluffscope.metrics.entropy import entropy
from bluffscope.metrics.logprob import logprob
from bluffscope.metrics.measurement import Analysis, AnalysisFunction, Measurement
from bluffscope.metrics.misalignment import semantic_misalignment
from bluffscope.metrics.sensitivity import layer_sensitivity
from bluffscope.metrics.stability import stability

ANALYSES: tuple[Analysis, ...] = (
    Analysis("layer_sensitivity", layer_sensitivity),
    Analysis("semantic_misalignment", semantic_misalignment),
    Analysis("stability", stability),
    Analysis("entropy", entropy),
    Analysis("cross_layer", cross_layer),
)
"""The five analyses, in the order of docs/definitions.md and of the table's columns."""

LOGPROB = Analysis("logprob", logprob)
"""Runs beside them with ``--logprob``: it needs the whole model and its LM head."""

__all__ = [
    "ANALYSES",
    "LOGPROB",
    "Analysis",
    "AnalysisFunction",
    "Measurement",
    "cross_layer",
    "entropy",
    "layer_sensitivity",
    "logprob",
    "semantic_misalignment",
    "stability",
]
