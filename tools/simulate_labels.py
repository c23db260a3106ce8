"""How often SAE features of texts seem to differ by label where they do not: the size of the p values of texts.

    python tools/simulate_labels.py

prints the shares of features of p <= .05 and <= .01, by labels that fall otherwise and by Welch's t test.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import ttest_ind

from bluffscope.features.label_tail import label_design, label_tail

KINDS = ("alone", "large groups", "mixed groups")
"""Texts each on its own; in groups of one label and 1 to 40 texts; in groups of both, where answers come again."""
RUNS = 60


def tail(values, false, groups=None, domains=None, seed=0) -> float:
    """The p value of one feature's activations."""
    number = len(values)
    groups = np.arange(number) if groups is None else groups
    domains = np.zeros(number, dtype=np.int64) if domains is None else domains
    texts = np.flatnonzero(values)
    design = label_design(false, groups, domains, seed)
    return label_tail(design, texts, values[texts], np.random.default_rng(seed))


def made(kind: str, rng: np.random.Generator, features: int):
    """Texts whose features know nothing of their labels: one in ten false; activations alike within a group."""
    if kind == "alone":
        groups = np.arange(400)
        false = rng.random(400) < 0.1
    elif kind == "large groups":
        groups = np.repeat(np.arange(80), rng.geometric(0.15, 80))
        false = (rng.random(80) < 0.2)[groups]
    else:  # answers to questions, of which some are the same answer again
        groups = np.repeat(np.arange(60), 8)
        false = (rng.random((60, 3)) < 0.3)[groups, answers := rng.integers(0, 3, 480)]
        source = 3 * groups + answers
    if kind != "mixed groups":
        source = groups
    fires = rng.random((source.max() + 1, features)) < rng.choice([0.03, 0.1, 0.5], features)
    level = rng.gamma(1, 2, (source.max() + 1, features))
    return groups, false, (fires * level)[source] * rng.uniform(0.9, 1.1, (len(source), features))


def shares(kind: str, runs: int, features: int = 20):
    """Shares of features of p <= .05 and <= .01, by labels that fall otherwise and by Welch's t test."""
    ours, welch = [], []
    for seed in range(runs):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        groups, false, values = made(kind, rng, features)
        for feature in values.T[(values > 0).sum(axis=0) >= 10]:
            ours.append(tail(feature, false, groups, seed=seed))
            welch.append(ttest_ind(feature[false], feature[~false], equal_var=False).pvalue)
    return [[float((np.array(p) <= level).mean()) for level in (0.05, 0.01)] for p in (ours, welch)]


def main() -> None:
    """Print the shares of every kind."""
    for kind in KINDS:
        ours, welch = (" ".join(f"{100 * share:5.1f} %" for share in found) for found in shares(kind, RUNS))
        print(f"{kind:14}  p <= .05, .01: {ours}   Welch's t test: {welch}")


if __name__ == "__main__":
    main()
