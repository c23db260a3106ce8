"""Pairs: readers for every format, validation, and groups."""

from bluffscope.pairs.carried import CarriedColumn
from bluffscope.pairs.source import Scan, Source, open_source

__all__ = ["CarriedColumn", "Scan", "Source", "open_source"]
