"""What a person reads of a run: the terminal summary (here), the page and figures (`bluffscope.report.write`)."""

from bluffscope.report.fidelity import render_fidelity
from bluffscope.report.summary import shape_table, summarize
from bluffscope.report.terminal import render_summary

__all__ = ["render_fidelity", "render_summary", "shape_table", "summarize"]
