"""Paired statistics of a table: effects, intervals, length control, multiplicity, verdicts; no torch, no ray."""

from bluffscope.stats.analysis import STATS_SCHEMA, StatsResult, analyse_table
from bluffscope.stats.cells import Resampling
from bluffscope.stats.compare import COMPARE_SCHEMA, RunComparison, RunPair, compare_all
from bluffscope.stats.files import write_comparison, write_stats
from bluffscope.stats.verdicts import Evidence, Verdict, judge

__all__ = [
    "COMPARE_SCHEMA",
    "STATS_SCHEMA",
    "Evidence",
    "Resampling",
    "RunComparison",
    "RunPair",
    "StatsResult",
    "Verdict",
    "analyse_table",
    "compare_all",
    "judge",
    "write_comparison",
    "write_stats",
]
