"""Saved detectors on other data sets: as they are, nothing is trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bluffscope.detectors.data_sets import NAMED, DataSet, identity, listed_layers
from bluffscope.detectors.files import Detector
from bluffscope.detectors.held_out import CHANCE
from bluffscope.detectors.inputs import keyed_matrix
from bluffscope.errors import InputError
from bluffscope.table.reader import Run


@dataclass(frozen=True)
class Saved:
    """A saved detector, as it is."""

    name: str
    detector: Detector
    trained: Mapping[Path, pl.Series]
    """(group,) groups of its training, by the folder of a run that has them."""

    @property
    def learnt(self) -> bool:
        """Whether it did better than chance on held-out texts of its training."""
        rows: Any = self.detector.about["evaluation"].get("cross_validated") or []
        own = next((row for row in rows if row.get("detector") == self.detector.keys.on), {})
        return (own.get("lo") or 0.0) > CHANCE

    def scores(self, test: DataSet) -> np.ndarray | str:
        """(text,) log odds, or why there are none."""
        keys = self.detector.keys
        if keys.on in test.inputs.missing:
            return test.inputs.missing[keys.on]
        if self._saw(test):
            return "it was trained on these texts; bluffscope detect train prints what it does on held-out ones"
        try:
            matrix = keyed_matrix(keys, test.texts, test.views, test.inputs)
        except InputError as error:
            return str(error)
        return np.round(self.detector.linear.scores(matrix), 10)

    def _saw(self, test: DataSet) -> bool:
        """Whether texts of the test share a group with those of its training."""
        trained = None if test.run is None else self.trained.get(test.run.path)
        return trained is not None and bool(test.named_groups.is_in(trained.implode()).any())


def holds_training(detector: Detector, run: Run) -> bool:
    """Whether a run has the data that a detector was trained on, as far as their digest says."""
    trained: Any = detector.about["trained"]
    digest = (run.manifest.get("data") or {}).get("digest")
    same = "run" in trained and Path(trained["run"]).resolve() == run.path.resolve()
    return same or (digest is not None and trained.get("data") == digest)


def saved(
    detectors: Sequence[Detector], trained: Sequence[Mapping[Path, pl.Series]], sets: Sequence[DataSet]
) -> list[Saved]:
    """Detectors by names that no data set has.

    Args:
        detectors: as they were read.
        trained: see `Saved`, of each.
        sets: that they will be asked about.

    Raises:
        InputError: a detector of another model, SAEs or layers than a data set.
    """
    found: list[Saved] = []
    taken = [one.name for one in sets]
    for detector, groups in zip(detectors, trained, strict=True):
        for one in sets:
            _refuse_other(detector, one)
        name = detector.path.resolve().name
        if name in taken:
            name = f"{name} (detector{' ' + str(len(found) + 1) if len(detectors) > 1 else ''})"
        taken.append(name)
        found.append(Saved(name, detector, groups))
    return found


def _refuse_other(detector: Detector, test: DataSet) -> None:
    if test.run is None:
        return
    about, keys, run = detector.about, detector.keys, test.run
    for what in ("model",) if keys.on == "residual" else ("model", "saes"):
        if identity(about, about["config"], what) != identity(run.manifest, run.config, what):
            raise InputError(
                f"{detector.path} was trained with another {NAMED[what]} than {run.path} was measured with: a detector "
                "reads what its own model computes; give runs of that model"
            )
    there = test.inputs.keys.get("residual")
    if keys.on == "residual" and there is not None and there.layers != keys.layers:
        raise InputError(
            f"{detector.path} reads residuals of layers {listed_layers(keys.layers)}, and {run.path} has kept those of "
            f"{listed_layers(there.layers)}: analyze with --layers {' '.join(map(str, keys.layers))}"
        )
