"""Bluffscope: what happens inside a language model when a sentence is false."""

__version__ = "0.1.0"
