"""Paired statistics of a table: effects, intervals, length control, multiplicity, verdicts; no torch, no ray."""

from bluffscope.stats.analysis import STATS_SCHEMA, StatsResult, analyse_table
from bluffscope.stats.cells import Resampling
from bluffscope.stats.detector_inputs import Views
from bluffscope.stats.detectors import DETECTORS_SCHEMA, TRANSFER_SCHEMA, Detection, detect
from bluffscope.stats.files import write_stats
from bluffscope.stats.ladder import LADDER_SCHEMA
from bluffscope.stats.study import build_study
from bluffscope.stats.verdicts import Evidence, Verdict, judge

__all__ = [
    "DETECTORS_SCHEMA",
    "LADDER_SCHEMA",
    "STATS_SCHEMA",
    "TRANSFER_SCHEMA",
    "Detection",
    "Evidence",
    "Resampling",
    "StatsResult",
    "Verdict",
    "Views",
    "analyse_table",
    "build_study",
    "detect",
    "judge",
    "write_stats",
]
