"""The dataset linter: what in the pairs would make a result wrong or doubtful, found before any model runs."""

from bluffscope.pairs.lint.check import lint_source
from bluffscope.pairs.lint.findings import CODES, SEVERITIES, Finding, LintReport, ScopeMeasures, Severity
from bluffscope.pairs.lint.sample import GroupSample

__all__ = ["CODES", "SEVERITIES", "Finding", "GroupSample", "LintReport", "ScopeMeasures", "Severity", "lint_source"]
