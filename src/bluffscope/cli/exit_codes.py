"""What a command ends with."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
"""verify: a difference; lint, doctor: an error-level finding; detect train: no better than the baselines."""
USAGE: Final = 2
"""Wrong usage or input."""
QUARANTINED: Final = 3
"""Done, but for pairs (detect score: texts) that could not be processed."""
UNSOUND: Final = 4
"""Done, but the health gate failed and verdicts are withheld."""
STOPPED: Final = 130
"""By Ctrl-C, as shells say it; 128 + the signal's number after another."""
