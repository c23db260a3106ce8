"""Inputs of a detector by the names of their columns, so that other texts can be laid out the same way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from bluffscope.detectors.inputs import Inputs, Views, of_texts, used_metrics
from bluffscope.detectors.linear import On
from bluffscope.errors import InputError
from bluffscope.stats.study import Study

_KEY = pl.Schema({"layer": pl.Int64, "feature": pl.Int64})


@dataclass(frozen=True)
class Keys:
    """What each column of a detector's input is."""

    on: On
    metrics: tuple[str, ...] = ()
    """Of "metrics": their names."""
    features: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_KEY))
    """Of "sae": layer and feature of each column."""
    layers: tuple[int, ...] = ()
    """Of "residual": layers in the order of their columns, each as wide as the model."""

    def sparse(self, frame: pl.DataFrame, texts: int) -> Any:
        """CSR (text, column) of active features; those that are no column are passed over.

        Args:
            frame: text, layer, feature, activation.
            texts: how many there are.
        """
        from scipy.sparse import csr_matrix  # a tenth of a second that only detectors need

        columns = self.features.with_row_index("column")
        placed = frame.with_columns(pl.col("layer", "feature").cast(pl.Int64)).join(columns, on=["layer", "feature"])
        places = (placed["text"].to_numpy(), placed["column"].to_numpy())
        values = placed["activation"].cast(pl.Float64).to_numpy()
        return csr_matrix((values, places), shape=(texts, self.features.height))


def keys_of(on: On, study: Study, views: Views, inputs: Inputs) -> Keys:
    """The columns of `inputs.matrices[on]`, in their order."""
    if on == "metrics":
        return Keys(on, metrics=tuple(study.metrics[place] for place in used_metrics(study, inputs.rows)))
    frame = views.features if on == "sae" else views.residuals
    assert frame is not None and views.ids is not None  # else the inputs would have no such matrix
    if on == "residual":
        layers = frame.select(pl.col("layer").unique()).collect()["layer"].sort().to_list()
        return Keys(on, layers=tuple(layers))
    found = of_texts(frame, views.ids, inputs.rows).select(pl.col(name).cast(kind) for name, kind in _KEY.items())
    return Keys(on, features=found.unique().sort("layer", "feature"))


def keyed_matrix(keys: Keys, study: Study, views: Views, inputs: Inputs) -> Any:
    """The columns of `keys` for the texts of other pairs: (2 pair, column), facts first.

    Raises:
        InputError: these pairs lack a column.
    """
    rows = inputs.rows
    if keys.on == "sae":
        assert views.features is not None and views.ids is not None
        return keys.sparse(of_texts(views.features, views.ids, rows), 2 * len(rows))
    if keys.on == "residual":
        return inputs.matrices["residual"]
    places = {name: place for place, name in enumerate(study.metrics)}
    if lacking := [name for name in keys.metrics if name not in places]:
        raise InputError(f"the table has no metric {lacking[0]}, which the detector looks at")
    chosen = np.array([places[name] for name in keys.metrics])
    return np.concatenate([side[np.ix_(rows, chosen)] for side in (study.fact, study.hall)])
