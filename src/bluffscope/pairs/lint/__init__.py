"""The dataset linter: what in the pairs would make a result wrong or doubtful, found before any model runs."""

from bluffscope.pairs.lint.check import lint_source
from bluffscope.pairs.lint.findings import CODES, SEVERITIES, Finding, LintReport, ScopeMeasures, Severity

__all__ = ["CODES", "SEVERITIES", "Finding", "LintReport", "ScopeMeasures", "Severity", "lint_source"]
