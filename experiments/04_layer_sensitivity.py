"""Layer sensitivity alone: sparsity, errors and geometry of the features at every layer.

Takes every flag of `bluffscope analyze`.
"""

from bluffscope.cli.analyze import experiment

if __name__ == "__main__":
    raise SystemExit(experiment(__file__, __doc__ or "", ["layer_sensitivity"]))
