"""Pairs: readers for every format, their check, and their groups."""

from bluffscope.pairs.fields import CarriedColumn
from bluffscope.pairs.source import Scan, Source, open_source

__all__ = ["CarriedColumn", "Scan", "Source", "open_source"]
