"""Paired statistics of a table: effects, intervals, length control, multiplicity, verdicts; no torch, no ray."""

from bluffscope.stats.analysis import STATS_SCHEMA, StatsResult, analyse_table
from bluffscope.stats.cells import Resampling
from bluffscope.stats.files import write_stats
from bluffscope.stats.verdicts import Evidence, Verdict, judge

__all__ = [
    "STATS_SCHEMA",
    "Evidence",
    "Resampling",
    "StatsResult",
    "Verdict",
    "analyse_table",
    "judge",
    "write_stats",
]
