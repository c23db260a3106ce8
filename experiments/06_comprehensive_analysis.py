"""All five analyses, one pair at a time unless --batch-size says otherwise.

Takes every flag of `bluffscope analyze`.
"""

from bluffscope.cli.analyze import experiment

if __name__ == "__main__":
    raise SystemExit(experiment(__file__, __doc__ or "", batch_size=1))
