"""Health checks of every run, and `bluffscope doctor`: was the right thing measured?"""

from bluffscope.health.check import Check, Health, Severity
from bluffscope.health.diagnosis import diagnose
from bluffscope.health.fit import explained_variance
from bluffscope.health.gate import Inspection, Sample, examine, inspect

__all__ = [
    "Check",
    "Health",
    "Inspection",
    "Sample",
    "Severity",
    "diagnose",
    "examine",
    "explained_variance",
    "inspect",
]
