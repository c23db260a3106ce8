"""Proof on the user's own model and data that every strategy gives the same table."""

from bluffscope.verify.comparison import Cell, Comparison, Precision, compare

__all__ = ["Cell", "Comparison", "Precision", "compare"]
