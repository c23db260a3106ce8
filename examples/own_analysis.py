"""An analysis of one's own: how much of a completion's activation falls on features that its prompt did not have.

`python examples/own_analysis.py` measures it beside the five analyses on the bundled pairs and model, and tests it like
them; docs/own-analysis.md explains each part.
"""

from __future__ import annotations

import numpy as np

import bluffscope
from bluffscope.stats import analyse_table

LAYERS = (2, 5, 8)


def novelty(m: bluffscope.Measurement) -> dict[str, np.ndarray]:
    """Share of the activation on features that are not active at the prompt's last token: of each layer and view."""
    columns: dict[str, np.ndarray] = {}
    for layer in m.layers:
        active = m.features(layer).dense()  # (read, d_sae), 0 where a feature is not active
        new = np.where(active[m.prompt_read] == 0, active, 0)
        total = active.sum(1)
        share = np.full(len(total), np.nan)  # undefined where nothing is active: NaN here, null in the table
        np.divide(new.sum(1), total, out=share, where=total > 0)
        _, fact, hall = m.by_view(share).T  # (pair,) each: several reads of a view become their mean
        columns |= {f"l{layer}_fact_novelty": fact, f"l{layer}_hall_novelty": hall}
    return columns


def declared(layers: tuple[int, ...]) -> tuple[bluffscope.Column, ...]:
    """The columns that `novelty` gives."""
    doc = "Share of the {}'s activation on features that are not active at the prompt's last token, layer {}."
    return tuple(
        bluffscope.Column(f"l{layer}_{view}_novelty", "float", "dimensionless", 0, 1, doc.format(word, layer))
        for layer in layers
        for view, word in (("fact", "fact"), ("hall", "hallucination"))
    )


def main() -> None:
    """Measure and test it on the demo."""
    added = [bluffscope.UserAnalysis(novelty, declared)]
    table = bluffscope.analyze("bluff200", preset="demo", layers=LAYERS, added=added)
    rows = analyse_table(table).rows
    of_ours = rows.filter(rows["metric"].str.ends_with("novelty") & (rows["scope"] == "pooled"))
    for row in of_ours.iter_rows(named=True):
        print(f"{row['metric']}: d_z {row['dz']:+.2f}, adjusted {row['adj_dz']:+.2f}, {row['verdict']}")


if __name__ == "__main__":
    main()
