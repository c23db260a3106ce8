"""Made-up result tables for the tests of the report."""

from __future__ import annotations

import numpy as np
import polars as pl

SCALES = {
    "l0_norm": (60.0, 8.0),
    "reconstruction_error": (25.0, 4.0),
    "relative_error": (0.12, 0.03),
    "gini": (0.45, 0.05),
    "sphericity": (0.55, 0.08),
    "elongation": (0.75, 0.08),
    "dimensionality": (22.0, 5.0),
    "eigenvalue_entropy": (3.2, 0.2),
    "misalignment_angle": (71.0, 6.0),
}
PAIR_SCALES = {
    "centroid_drift": (34.0, 9.0),
    "axis_twist": (52.0, 18.0),
    "stability": (0.86, 0.06),
    "entropy": (3.1, 0.2),
    "cross_layer_consistency": (0.02, 0.01),
    "cross_layer_alignment": (0.41, 0.07),
}
DOMAINS = ("entity", "temporal", "logical", "adversarial")


def synthetic(pairs: int = 200, layers=(5, 12, 20), domains=DOMAINS, seed: int = 0, sweep=()) -> pl.DataFrame:
    """A table like a run's, with an effect that grows with the domain's place."""
    rng = np.random.default_rng(seed)
    place = np.arange(pairs) * len(domains) // max(pairs, 1)
    columns: dict[str, object] = {
        "pair_id": [f"p{i}" for i in range(pairs)],
        "domain": [domains[i] for i in place],
        "complexity": rng.integers(1, 11, pairs),
    }
    effect = (place + 1) / max(len(domains), 1)
    for depth, layer in enumerate(layers):
        for view in ("prompt", "fact", "hall"):
            for metric, (mean, sd) in SCALES.items():
                grown = mean * (1 + depth) if metric == "reconstruction_error" else mean
                shift = effect * sd * 0.6 * (view == "hall") * (metric != "gini")
                columns[f"l{layer}_{view}_{metric}"] = grown + shift + sd * rng.standard_normal(pairs)
            classes = rng.choice(["Triaxial", "Prolate", "Oblate", "Spherical"], pairs, p=[0.7, 0.2, 0.08, 0.02])
            columns[f"l{layer}_{view}_shape_class"] = classes
    scales = PAIR_SCALES | {f"stability_s{s:g}": (1 / (1 + s), 0.05) for s in sweep}
    for metric, (mean, sd) in scales.items():
        fact = mean + sd * rng.standard_normal(pairs)
        hall = fact + effect * 0.5 * sd + 0.7 * sd * rng.standard_normal(pairs)
        columns |= {f"{metric}_fact": fact, f"{metric}_hall": hall, f"{metric}_diff": hall - fact}
    return pl.DataFrame(columns)
