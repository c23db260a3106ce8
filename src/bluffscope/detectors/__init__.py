"""Detectors of hallucinations: fitted, tested on texts not fitted to, saved, and applied to new texts."""
