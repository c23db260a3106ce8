"""Paired statistics of a table: effects, intervals, length control, multiplicity, verdicts; no torch, no ray."""

from bluffscope.stats.analysis import STATS_SCHEMA, StatsResult, analyse_table
from bluffscope.stats.cells import Resampling
from bluffscope.stats.compare import COMPARE_SCHEMA, RunComparison, RunPair, compare_all
from bluffscope.stats.detector_inputs import Views
from bluffscope.stats.detectors import DETECTORS_SCHEMA, TRANSFER_SCHEMA, Detection, detect
from bluffscope.stats.feature_effects import EFFECT_SCHEMA, FeatureStudy, feature_effects
from bluffscope.stats.files import write_comparison, write_stats
from bluffscope.stats.ladder import LADDER_SCHEMA
from bluffscope.stats.study import build_study
from bluffscope.stats.verdicts import Evidence, Verdict, judge

__all__ = [
    "COMPARE_SCHEMA",
    "DETECTORS_SCHEMA",
    "EFFECT_SCHEMA",
    "LADDER_SCHEMA",
    "STATS_SCHEMA",
    "TRANSFER_SCHEMA",
    "Detection",
    "Evidence",
    "FeatureStudy",
    "Resampling",
    "RunComparison",
    "RunPair",
    "StatsResult",
    "Verdict",
    "Views",
    "analyse_table",
    "build_study",
    "compare_all",
    "detect",
    "feature_effects",
    "judge",
    "write_comparison",
    "write_stats",
]
