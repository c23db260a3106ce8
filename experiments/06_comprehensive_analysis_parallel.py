"""All five analyses, 8 pairs a forward pass unless --batch-size says otherwise.

Takes every flag of `bluffscope analyze`.
"""

from bluffscope.cli.analyze import experiment

if __name__ == "__main__":
    raise SystemExit(experiment(__file__, __doc__ or "", batch_size=8))
