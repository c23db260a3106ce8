"""Statistics of pairs and of labelled texts: effects, length control, multiplicity, verdicts; no torch, no ray."""

from bluffscope.stats.analysis import STATS_SCHEMA, StatsResult, analyse_table
from bluffscope.stats.cells import Resampling
from bluffscope.stats.labelled import LABELLED_SCHEMA, analyse_labelled
from bluffscope.stats.ladder import LADDER_SCHEMA
from bluffscope.stats.study import build_study
from bluffscope.stats.verdicts import Evidence, Verdict, judge

__all__ = [
    "LABELLED_SCHEMA",
    "LADDER_SCHEMA",
    "STATS_SCHEMA",
    "Evidence",
    "Resampling",
    "StatsResult",
    "Verdict",
    "analyse_labelled",
    "analyse_table",
    "build_study",
    "judge",
]
