"""What each detector may look at: a row a text, the facts first, then their hallucinations in the same order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.pairs.wordbag import counted
from bluffscope.stats.ladder import NO_LOGPROB
from bluffscope.stats.study import Study
from bluffscope.table.atomic import table_errors

MOST_PAIRS: Final = 2000
"""Pairs of a table that detectors see, whole groups at random: the AUROC's standard error is then about 0.01."""

_SIDES: Final = ("fact", "hall")


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


@dataclass(frozen=True)
class Inputs:
    """The matrices that detectors are fitted to."""

    rows: np.ndarray
    """(pair,) ascending rows of the table."""
    matrices: dict[str, Any]
    """(2 pair, feature) by name of the input: NumPy, or SciPy's CSR."""
    missing: dict[str, str]
    """Why an input is not there, by name."""


def read_inputs(study: Study, views: Views, seed: int) -> Inputs:
    """The inputs "length", "logprob", "text", "residual", "metrics" and "sae", of all pairs or of a sample."""
    rows = sampled(study.groups, MOST_PAIRS, np.random.default_rng([seed, 104]))
    readers: dict[str, Callable[[], Any]] = {
        "length": lambda: _lengths(study, rows),
        "logprob": lambda: _logprobs(study, rows),
        "text": lambda: _texts(views, rows),
        "metrics": lambda: _metrics(study, rows),
        "residual": lambda: _residuals(views, rows),
        "sae": lambda: _features(views, rows),
    }
    matrices: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, read in readers.items():
        found = read()
        if isinstance(found, str):
            missing[name] = found
        else:
            matrices[name] = found
    return Inputs(rows, matrices, missing)


def sampled(groups: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """(pair,) all rows, or those of whole groups drawn at random until the next would be too many; ascending."""
    if len(groups) <= most:
        return np.arange(len(groups))
    place = rng.permutation(int(groups.max()) + 1)
    order = np.argsort(place[groups], kind="stable")
    # The rows of a group stand together: a group counts with its last row.
    last = np.searchsorted(place[groups][order], place[groups][order], side="right")
    return np.sort(order[last <= most])


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


def used_metrics(study: Study, rows: np.ndarray) -> np.ndarray:
    """(metric,) places of the metrics that detectors look at: those with a value, log-probabilities aside."""
    # The log-probability is a baseline of its own.
    asked = np.array([not name.startswith("logprob") for name in study.metrics], dtype=bool)
    valued = (np.isfinite(study.fact[rows]) | np.isfinite(study.hall[rows])).any(axis=0)
    return np.flatnonzero(asked & valued)


def _metrics(study: Study, rows: np.ndarray) -> np.ndarray | str:
    places = used_metrics(study, rows)
    values = np.concatenate([study.fact[rows][:, places], study.hall[rows][:, places]])
    return values if len(places) else "no metric has a value"


def _residuals(views: Views, rows: np.ndarray) -> np.ndarray | str:
    """(text, all layers' d_model) float32, the mean over tokens where several were kept."""
    if views.residuals is None or views.ids is None:
        return "no residuals: analyze with --keep-residuals"
    frame = of_texts(views.residuals, views.ids, rows).sort("layer", maintain_order=True)
    layers: list[np.ndarray] = []
    for layer in frame.partition_by("layer"):
        values = layer["values"].explode().cast(pl.Float32).to_numpy().reshape(layer.height, -1)
        total = np.zeros((2 * len(rows), values.shape[1]), dtype=np.float32)
        texts = layer["text"].to_numpy()
        np.add.at(total, texts, values)
        times = np.bincount(texts, minlength=len(total))
        if (times == 0).any():
            return f"residuals.parquet lacks {(times == 0).sum()} of {len(times)} texts at layer {layer['layer'][0]}"
        layers.append(total / times[:, None].astype(np.float32))
    return np.hstack(layers) if layers else "residuals.parquet holds none of the table's pairs"


def _features(views: Views, rows: np.ndarray) -> Any:
    """CSR (text, every layer's features that are active in some text)."""
    from scipy.sparse import csr_matrix  # a tenth of a second that only detectors need

    if views.features is None or views.ids is None:
        return "no SAE features: only a run's folder has them"
    frame = of_texts(views.features, views.ids, rows)
    if frame.is_empty():
        return "features.parquet holds none of the table's pairs"
    column = frame.select(pl.struct("layer", "feature").rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
    places = (frame["text"].to_numpy(), column)
    shape = (2 * len(rows), int(column.max()) + 1)
    return csr_matrix((frame["activation"].cast(pl.Float64).to_numpy(), places), shape=shape)


def of_texts(frame: pl.LazyFrame, ids: pl.Series, rows: np.ndarray) -> pl.DataFrame:
    """The rows of facts and hallucinations, with the place of each one's text as `text`."""
    chosen = ids.cast(pl.String).gather(rows).alias("pair_id")
    places = pl.concat(
        pl.DataFrame({"pair_id": chosen, "view": [view] * len(rows), "text": np.arange(len(rows)) + side * len(rows)})
        for side, view in enumerate(_SIDES)
    )
    with table_errors(Path("features.parquet or residuals.parquet")):
        return frame.join(places.lazy(), on=["pair_id", "view"], how="inner").collect()
