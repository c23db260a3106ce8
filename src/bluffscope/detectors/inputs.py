"""What each detector may look at: a row a text, the facts first, then their hallucinations in the same order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.linear import On
from bluffscope.errors import InputError
from bluffscope.pairs.wordbag import counted
from bluffscope.stats.ladder import NO_LOGPROB
from bluffscope.stats.sampling import whole_groups
from bluffscope.stats.study import Study
from bluffscope.table.atomic import table_errors
from bluffscope.table.reader import Run

MOST_PAIRS: Final = 2000
"""Pairs of a table that detectors see, whole groups at random: the AUROC's standard error is then about 0.01."""

_SIDES: Final = ("fact", "hall")
_KEY: Final = pl.Schema({"layer": pl.Int64, "feature": pl.Int64})


@dataclass(frozen=True)
class Views:
    """What a run keeps of its texts beside the table; None for what is not there."""

    pairs: pl.DataFrame | None = None
    """`fact`, `hallucination`: in the order of the table's rows."""
    ids: pl.Series | None = None
    """(row,) pair_id of each row, by which the frames below are found."""
    residuals: pl.LazyFrame | None = None
    """pair_id, view, layer, token, values."""
    features: pl.LazyFrame | None = None
    """pair_id, view, layer, feature, activation."""

    @classmethod
    def of_run(cls, run: Run, table: pl.DataFrame, pairs: pl.DataFrame | None) -> Views:
        """What a run's folder has of the rows of its table."""
        residuals = run.kept_residuals if (run.path / "residuals.parquet").exists() else None
        features = run.features if run.has_features else None
        return cls(pairs, table["pair_id"], residuals, features)


@dataclass(frozen=True)
class Keys:
    """What each column of a detector's input is, so that other texts can be laid out the same way."""

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
        placed = frame.with_columns(pl.col(*_KEY).cast(pl.Int64)).join(columns, on=[*_KEY])
        places = (placed["text"].to_numpy(), placed["column"].to_numpy())
        values = placed["activation"].cast(pl.Float64).to_numpy()
        return csr_matrix((values, places), shape=(texts, self.features.height))

    def dense(self, frame: pl.DataFrame, texts: int, columns: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(text, all layers' widths) float32 means over the tokens read, 0 without any; (layer, text) tokens read.

        Args:
            frame: text, layer, values.
            texts: how many there are.
            columns: all layers' widths together, where the frame may be empty.
        """
        if frame.is_empty():
            return np.zeros((texts, columns), dtype=np.float32), np.zeros((len(self.layers), texts), dtype=np.int64)
        means: list[np.ndarray] = []
        times: list[np.ndarray] = []
        for layer in self.layers:
            part = frame.filter(pl.col("layer") == layer)
            values = part["values"].explode().cast(pl.Float32).to_numpy().reshape(part.height, -1)
            total = np.zeros((texts, values.shape[1]), dtype=np.float32)
            np.add.at(total, part["text"].to_numpy(), values)
            times.append(np.bincount(part["text"].to_numpy(), minlength=texts))
            means.append(total / np.maximum(times[-1], 1)[:, None].astype(np.float32))
        return np.hstack(means), np.stack(times)


@dataclass(frozen=True)
class Inputs:
    """The matrices that detectors are fitted to."""

    rows: np.ndarray
    """(pair,) ascending rows of the table."""
    matrices: dict[str, Any]
    """(2 pair, feature) by name of the input: NumPy, or SciPy's CSR."""
    keys: dict[str, Keys]
    """What the columns are, of inputs that a detector can be kept for."""
    missing: dict[str, str]
    """Why an input is not there, by name."""


def read_inputs(study: Study, views: Views, seed: int) -> Inputs:
    """The inputs "length", "logprob", "text", "residual", "metrics" and "sae", of all pairs or of a sample."""
    rows = sampled(study.groups, MOST_PAIRS, np.random.default_rng([seed, 104]))
    found: dict[str, Any] = {
        "length": _lengths(study, rows),
        "logprob": _logprobs(study, rows),
        "text": _texts(views, rows),
        "metrics": _metrics(study, rows),
        "residual": _residuals(views, rows),
        "sae": _features(views, rows),
    }
    missing = {name: why for name, why in found.items() if isinstance(why, str)}
    keyed = {name: kept for name, kept in found.items() if isinstance(kept, tuple)}
    plain = {name: matrix for name, matrix in found.items() if name not in missing and name not in keyed}
    matrices = plain | {name: matrix for name, (matrix, _) in keyed.items()}
    return Inputs(rows, matrices, {name: keys for name, (_, keys) in keyed.items()}, missing)


def keyed_matrix(keys: Keys, study: Study, views: Views, inputs: Inputs) -> Any:
    """The columns of `keys` for the texts of other pairs: (2 pair, column), facts first.

    Raises:
        InputError: these pairs lack a column.
    """
    rows = inputs.rows
    if keys.on != "metrics" and keys.on in inputs.missing:
        raise InputError(f"of the other pairs: {inputs.missing[keys.on]}")
    if keys.on == "residual":
        return inputs.matrices["residual"]
    if keys.on == "sae":
        assert views.features is not None and views.ids is not None  # else they would be missing
        return keys.sparse(_of_texts(views.features, views.ids, rows), 2 * len(rows))
    places = {name: place for place, name in enumerate(study.metrics)}
    if lacking := [name for name in keys.metrics if name not in places]:
        raise InputError(f"the table has no metric {lacking[0]}, which the detector looks at")
    chosen = np.array([places[name] for name in keys.metrics])
    return np.concatenate([side[np.ix_(rows, chosen)] for side in (study.fact, study.hall)])


def sampled(groups: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """(pair,) all rows, or those of whole groups drawn at random until the next would be too many; ascending."""
    if len(groups) <= most:
        return np.arange(len(groups))
    return np.flatnonzero(whole_groups(groups, np.argsort(rng.permutation(int(groups.max()) + 1)), most))


def _lengths(study: Study, rows: np.ndarray) -> np.ndarray | str:
    lengths = study.lengths[rows].T.reshape(-1, 1)
    if not np.isfinite(lengths).all():
        return "lengths unknown"
    return np.hstack([lengths, np.log1p(np.maximum(lengths, 0))])


def _logprobs(study: Study, rows: np.ndarray) -> np.ndarray | str:
    logprobs = study.logprobs[rows].T.reshape(-1, 1)
    if not np.isfinite(logprobs).all():
        return NO_LOGPROB
    lengths = study.lengths[rows].T.reshape(-1, 1)
    # Per token too: of two completions the longer is the less probable whatever it says.
    per_token = logprobs / np.maximum(lengths, 1)
    return np.hstack([logprobs, per_token]) if np.isfinite(per_token).all() else logprobs


def _texts(views: Views, rows: np.ndarray) -> Any:
    if views.pairs is None:
        return "no texts: give --pairs"
    texts = views.pairs[rows].select(pl.col("fact", "hallucination").cast(pl.String).fill_null(""))
    return counted([*texts["fact"], *texts["hallucination"]])[0]


def _metrics(study: Study, rows: np.ndarray) -> tuple[np.ndarray, Keys] | str:
    """Those with a value; the log-probability is a baseline of its own."""
    asked = np.array([not name.startswith("logprob") for name in study.metrics], dtype=bool)
    valued = (np.isfinite(study.fact[rows]) | np.isfinite(study.hall[rows])).any(axis=0)
    places = np.flatnonzero(asked & valued)
    values = np.concatenate([study.fact[rows][:, places], study.hall[rows][:, places]])
    keys = Keys("metrics", metrics=tuple(study.metrics[place] for place in places))
    return (values, keys) if len(places) else "no metric has a value"


def _residuals(views: Views, rows: np.ndarray) -> tuple[np.ndarray, Keys] | str:
    if views.residuals is None or views.ids is None:
        return "no residuals: analyze with --keep-residuals"
    frame = _of_texts(views.residuals, views.ids, rows)
    keys = Keys("residual", layers=tuple(frame["layer"].unique().sort()))
    if not keys.layers:
        return "residuals.parquet holds none of the table's pairs"
    means, times = keys.dense(frame, 2 * len(rows))
    for layer, lacking in zip(keys.layers, (times == 0).sum(axis=1), strict=True):
        if lacking:
            return f"residuals.parquet lacks {lacking} of {2 * len(rows)} texts at layer {layer}"
    return means, keys


def _features(views: Views, rows: np.ndarray) -> tuple[Any, Keys] | str:
    """CSR (text, every layer's features that are active in some text)."""
    if views.features is None or views.ids is None:
        return "no SAE features: only a run's folder has them"
    frame = _of_texts(views.features, views.ids, rows)
    if frame.is_empty():
        return "features.parquet holds none of the table's pairs"
    keys = Keys("sae", features=frame.select(pl.col(*_KEY).cast(pl.Int64)).unique().sort(*_KEY))
    return keys.sparse(frame, 2 * len(rows)), keys


def _of_texts(frame: pl.LazyFrame, ids: pl.Series, rows: np.ndarray) -> pl.DataFrame:
    """The rows of facts and hallucinations, with the place of each one's text as `text`."""
    chosen = ids.cast(pl.String).gather(rows).alias("pair_id")
    places = pl.concat(
        pl.DataFrame({"pair_id": chosen, "view": [view] * len(rows), "text": np.arange(len(rows)) + side * len(rows)})
        for side, view in enumerate(_SIDES)
    )
    with table_errors(Path("features.parquet or residuals.parquet")):
        return frame.join(places.lazy(), on=["pair_id", "view"], how="inner").collect()
