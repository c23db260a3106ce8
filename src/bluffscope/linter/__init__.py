"""The dataset linter: what in the data would make a result wrong or doubtful, found before any model runs."""

from bluffscope.linter.check import lint_source
from bluffscope.linter.findings import CODES, SEVERITIES, Finding, LintReport, ScopeMeasures, Severity, TextMeasures
from bluffscope.linter.sample import GroupSample

__all__ = [
    "CODES",
    "SEVERITIES",
    "Finding",
    "GroupSample",
    "LintReport",
    "ScopeMeasures",
    "Severity",
    "TextMeasures",
    "lint_source",
]
