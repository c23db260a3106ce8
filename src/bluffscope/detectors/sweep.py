"""AUROC of detectors by layer and read position, and of the best of them without the luck of the choice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from bluffscope.detectors.fits import fit
from bluffscope.detectors.folds import too_few
from bluffscope.detectors.held_out import Splits
from bluffscope.detectors.inputs import opened, read_inputs, read_residuals
from bluffscope.detectors.measures import area
from bluffscope.detectors.penalties import inner_folds
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.cells import Resampling
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

SWEEP_SCHEMA: Final = pl.Schema(
    {
        "detector": pl.String(),
        "position": pl.String(),
        "layer": pl.Int64(),
        "n": pl.Int64(),
        **dict.fromkeys(("auroc", "lo", "hi"), pl.Float64()),
    }
)
"""One row a detector, read position and layer, each as if it were the only one looked at."""
SWEPT_SCHEMA: Final = pl.Schema({**SWEEP_SCHEMA, "times": pl.Int64()})
"""`Sweep.table`, as it is written."""
CHOSEN: Final = "chosen"
"""Detector of the row that has the nested folds' AUROC, in `Sweep.table`."""
PROBES: Final = {"residual": "residual", "mean_difference": "residual", "sae": "sae"}
"""Detectors that look at a layer, and their inputs."""
_STREAM: Final = 208


class Choice(NamedTuple):
    """A detector, and where it looks."""

    detector: str
    position: str
    layer: int


@dataclass(frozen=True)
class Sweep:
    """All detectors at all read positions and layers, and what choosing among them comes to."""

    rows: pl.DataFrame
    """`SWEEP_SCHEMA`."""
    chosen: dict[str, float]
    """auroc, lo, hi where each fold's detector, position and layer are chosen within its training texts."""
    choices: dict[Choice, int]
    """How often each was chosen, the most frequent first."""
    notes: tuple[str, ...]
    """What could not be looked at."""

    @property
    def table(self) -> pl.DataFrame:
        """`rows` with `times`, how many folds chose each, and a last row `CHOSEN`, of no position and layer."""
        cells = self.rows.select(Choice._fields).iter_rows()
        times = [self.choices.get(Choice(*cell), 0) for cell in cells]
        last = {"detector": CHOSEN, "n": self.rows["n"][0], **self.chosen, "times": sum(times)}
        rows = self.rows.with_columns(times=pl.Series(times, dtype=pl.Int64))
        return pl.concat([rows, pl.DataFrame([last], schema=SWEPT_SCHEMA)])


@exclusive()
def sweep(run: Run, resampling: Resampling) -> Sweep:
    """AUROC by detector, read position and layer, cross-validated by group on the same folds.

    The best of many cells looks better than it is. So the choice is made anew within the training texts of each fold,
    by folds of these (as are their penalties), and what is chosen is tested on texts that had no part in it.

    Args:
        run: a finished run, with residuals (of every position at which it was read) or SAE features (of the first).
        resampling: seed and repeats of the folds.

    Raises:
        InputError: nothing to look at, or too few texts.
    """
    texts, views = opened(run, run.metrics)
    inputs = read_inputs(texts, views, resampling.seed)
    labels, groups = texts.labels[inputs.rows], numbered(texts.groups[inputs.rows])
    if reason := too_few(texts, groups, labels):
        raise InputError(f"{run.path}: {reason}: too few to train and test on")
    first, *further = run.positions
    sources = dict.fromkeys(PROBES.values())
    found = {(name, first): (inputs.matrices[name], inputs.keys[name]) for name in sources if name in inputs.keys}
    notes = [f"Without {name}: {inputs.missing[name]}." for name in sources if name in inputs.missing]
    for position in further:
        read = read_residuals(texts, replace(views, residuals=run.residuals_at(position)), inputs.rows)
        if isinstance(read, str):
            notes.append(f"Without residual at {position}: {read}.")
        else:
            found["residual", position] = read
    if further and "sae" in inputs.keys:
        notes.append(f"SAE features are kept at {first} alone.")
    parts = {
        Choice(probe, position, layer): matrix[:, places]
        for probe, source in PROBES.items()
        for (name, position), (matrix, keys) in found.items()
        if name == source
        for layer, places in _columns(keys, matrix).items()
    }
    if not parts:
        raise InputError(f"{run.path}: nothing to look at. {' '.join(notes)}")
    splits = Splits.drawn(groups, labels, resampling.repeats, np.random.default_rng([resampling.seed, _STREAM]))
    cells = {choice: _Cell.of(choice, part, labels, groups, splits) for choice, part in parts.items()}
    areas = {choice: splits.by_fit(area, cell.scores) for choice, cell in cells.items()}
    rows = [
        {**choice._asdict(), "n": len(labels) // texts.per, **splits.estimated(by_fit).columns("auroc", "")}
        for choice, by_fit in areas.items()
    ]
    inside = np.array([cell.inside for cell in cells.values()])
    best = [list(cells)[place] for place in inside.argmax(axis=0)]  # of each fit
    chosen = splits.estimated(np.array([areas[choice][place] for place, choice in enumerate(best)]))
    choices = dict(Counter(best).most_common())
    return Sweep(pl.DataFrame(rows, schema=SWEEP_SCHEMA), chosen.columns("auroc", ""), choices, tuple(notes))


def _columns(keys: Any, matrix: Any) -> dict[int, np.ndarray]:
    """(column,) places of each layer's columns."""
    if keys.on == "sae":
        layers = keys.features["layer"].to_numpy()
        return {int(layer): np.flatnonzero(layers == layer) for layer in np.unique(layers)}
    width = matrix.shape[1] // len(keys.layers)
    return {layer: np.arange(place * width, (place + 1) * width) for place, layer in enumerate(keys.layers)}


class _Cell(NamedTuple):
    """A detector at a layer."""

    scores: np.ndarray
    """(repeat, text) probabilities of texts it was not fitted to."""
    inside: list[float]
    """Of each fit, its AUROC over folds within its training texts."""

    @classmethod
    def of(cls, choice: Choice, part: Any, labels: np.ndarray, groups: np.ndarray, splits: Splits) -> _Cell:
        inside: list[float] = []

        def fitted(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            found = fit(choice.detector, part[train], labels[train], groups[train])
            inner = Splits.of(inner_folds(groups[train], labels[train]), groups[train], labels[train])
            inside.append(float(np.nanmean(inner.by_fit(area, found.within[None]))))
            return found.probabilities(part[test])

        return cls(splits.scores(fitted), inside)
