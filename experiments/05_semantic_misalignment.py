"""Semantic misalignment alone: how far the completions turn the features away from the prompt, at the first layer.

Takes every flag of `bluffscope analyze`.
"""

from bluffscope.cli.analyze import experiment

if __name__ == "__main__":
    raise SystemExit(experiment(__file__, __doc__ or "", ["semantic_misalignment"]))
