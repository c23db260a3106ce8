"""What a person reads of a run: the terminal summary (here) and figures (`bluffscope.report.dashboard`)."""

from bluffscope.report.fidelity import render_fidelity
from bluffscope.report.summary import shape_table, summarize
from bluffscope.report.terminal import render_summary

__all__ = ["render_fidelity", "render_summary", "shape_table", "summarize"]
