"""What each detector may look at: a row a text, in the order of `Texts`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.special import logit

from bluffscope.detectors.classifiers import CARRIED, MEASURED
from bluffscope.detectors.linear import On
from bluffscope.detectors.texts import Texts, texts_of
from bluffscope.errors import InputError
from bluffscope.pairs.wordbag import counted
from bluffscope.records import PAIRS
from bluffscope.stats.ladder import NO_LOGPROB
from bluffscope.stats.sampling import whole_groups
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.table.atomic import table_errors
from bluffscope.table.reader import Run

MOST_PAIRS: Final = 2000
"""Pairs of a table that detectors see, whole groups at random: the AUROC's standard error is then about 0.01. Of
labelled texts they see twice as many."""

_NO_COMPLETION: Final = "the labels have no column completion"
_SURE: Final = 1e-12
"""A probability is taken to be so far from 0 and 1 at least."""
_KEY: Final = pl.Schema({"layer": pl.Int64, "feature": pl.Int64})


@dataclass(frozen=True)
class Views:
    """What a run keeps of its texts beside the table; None for what is not there."""

    items: pl.DataFrame | None = None
    """`fact`, `hallucination` of pairs, `completion` of labelled texts: in the order of the table's rows."""
    ids: pl.Series | None = None
    """(row,) pair_id or text_id of each row, by which the frames below are found."""
    residuals: pl.LazyFrame | None = None
    """pair_id or text_id, view, layer, token, values."""
    features: pl.LazyFrame | None = None
    """pair_id or text_id, view, layer, feature, activation."""
    vectors: np.ndarray | None = None
    """(text, column) in the place of residuals and features, of texts whose vectors were given."""
    parts: tuple[tuple[str, int], ...] = ()
    """Of vectors: name and width of each tensor."""

    @classmethod
    def of_run(cls, run: Run, table: pl.DataFrame, items: pl.DataFrame | None, position: str | None = None) -> Views:
        """What a run's folder has of the rows of its table; its residuals at a read position, the first for None."""
        residuals = run.residuals_at(position) if (run.path / "residuals.parquet").exists() else None
        features = run.features if run.has_features else None
        return cls(items, table[run.key], residuals, features)


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
    given: tuple[tuple[str, int], ...] = ()
    """Of "residual" where the vectors were given: name and width of each tensor."""

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
    """(text,) ascending places among the table's texts."""
    matrices: dict[str, Any]
    """(text, feature) by name of the input: NumPy, or SciPy's CSR."""
    keys: dict[str, Keys]
    """What the columns are, of inputs that a detector can be kept for."""
    missing: dict[str, str]
    """Why an input is not there, by name."""


def known_items(run: Run) -> pl.DataFrame | None:
    """The pairs or labelled texts of a run, where its folder has them."""
    return run.items if (run.path / f"{run.arrangement.table}.parquet").exists() else None


def opened(run: Run, table: pl.DataFrame, position: str | None = None) -> tuple[Texts, Views]:
    """Some rows of a run's table as one scope of texts, and what the run has kept of them.

    Args:
        run: a finished run.
        table: the rows.
        position: where the residuals were read, the run's first position for None.

    Raises:
        InputError: the run was not read there.
    """
    texts, known = texts_of(table, known_items(run))
    return replace(texts, scopes=(Scope(POOLED, np.arange(table.height)),)), Views.of_run(run, table, known, position)


def read_inputs(texts: Texts, views: Views, seed: int) -> Inputs:
    """The inputs of `DETECTORS` of all texts or of a sample; those that such texts cannot have are no input."""
    rows = sampled(texts.groups, 2 * MOST_PAIRS, np.random.default_rng([seed, 104]))
    found: dict[str, Any] = {
        "length": _lengths(texts, rows),
        "logprob": _logprobs(texts, rows),
        "p_true": _p_true(texts, rows),
        **{name: texts.numbers[name][rows, None] for name in CARRIED if name in texts.numbers},
        "text": _bag(completions(texts, views, rows)),
        **_prompts(texts, views, rows),
        "metrics": _metrics(texts, rows),
        "residual": read_residuals(texts, views, rows),
        "sae": _features(texts, views, rows),
    }
    missing = {name: why for name, why in found.items() if isinstance(why, str)}
    if views.vectors is not None:  # a run could have had them
        missing = {name: _NO_COMPLETION for name in missing if name in ("length", "text")}
        found = {name: kept for name, kept in found.items() if name in missing or not isinstance(kept, str)}
    keyed = {name: kept for name, kept in found.items() if isinstance(kept, tuple)}
    plain = {name: matrix for name, matrix in found.items() if name not in missing and name not in keyed}
    matrices = plain | {name: matrix for name, (matrix, _) in keyed.items()}
    return Inputs(rows, matrices, {name: keys for name, (_, keys) in keyed.items()}, missing)


def keyed_matrix(keys: Keys, texts: Texts, views: Views, inputs: Inputs) -> Any:
    """(text, column) the columns of `keys` for the texts of other items.

    Raises:
        InputError: these lack a column.
    """
    rows = inputs.rows
    if keys.on != "metrics" and keys.on in inputs.missing:
        raise InputError(f"of the other {texts.of}: {inputs.missing[keys.on]}")
    if keys.on == "residual":
        return inputs.matrices["residual"]
    if keys.on == "sae":
        assert views.features is not None and views.ids is not None  # else they would be missing
        return keys.sparse(_of_texts(views.features, views.ids, texts, rows), len(rows))
    places = {name: place for place, name in enumerate(texts.metrics)}
    if lacking := [name for name in keys.metrics if name not in places]:
        raise InputError(f"the table has no metric {lacking[0]}, which the detector looks at")
    return texts.values[np.ix_(rows, np.array([places[name] for name in keys.metrics]))]


def sampled(groups: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """(text,) all rows, or those of whole groups drawn at random until the next would be too many; ascending."""
    if len(groups) <= most:
        return np.arange(len(groups))
    return np.flatnonzero(whole_groups(groups, np.argsort(rng.permutation(int(groups.max()) + 1)), most))


def _lengths(texts: Texts, rows: np.ndarray) -> np.ndarray | str:
    lengths = texts.lengths[rows, None]
    if not np.isfinite(lengths).all():
        return "lengths unknown"
    return np.hstack([lengths, np.log1p(np.maximum(lengths, 0))])


def _logprobs(texts: Texts, rows: np.ndarray) -> np.ndarray | str:
    if "logprob" not in texts.numbers:
        return NO_LOGPROB
    logprobs, lengths = texts.numbers["logprob"][rows, None], texts.lengths[rows, None]
    # Per token too: of two completions the longer is the less probable whatever it says.
    per_token = logprobs / np.maximum(lengths, 1)
    return np.hstack([logprobs, per_token]) if np.isfinite(lengths).all() else logprobs


def _p_true(texts: Texts, rows: np.ndarray) -> np.ndarray | str:
    """As logits, in which what the model is nearly sure of still differs."""
    if "p_true" not in texts.numbers:
        return "the table has no P(True): analyze with --p-true"
    return logit(texts.numbers["p_true"][rows, None].clip(_SURE, 1 - _SURE))


def _bag(said: list[str] | str) -> Any:
    return said if isinstance(said, str) else counted(said)[0]


def completions(texts: Texts, views: Views, rows: np.ndarray) -> list[str] | str:
    """The completions of some texts, or why they are not known."""
    names = texts.arrangement.sources[-texts.per :]
    if views.items is None or any(name not in views.items.columns for name in names):
        return "no texts: give --pairs" if texts.arrangement == PAIRS else "no texts: only a run's folder has them"
    known = [text for name in names for text in views.items[name].cast(pl.String).fill_null("")]
    return [known[row] for row in rows.tolist()]


def _prompts(texts: Texts, views: Views, rows: np.ndarray) -> dict[str, Any]:
    """Bags of words of prompts, where texts of either label have their own; a pair's two texts share theirs."""
    if texts.arrangement == PAIRS or views.items is None or "prompt" not in views.items.columns:
        return {}
    prompts = views.items["prompt"].cast(pl.String).fill_null("").gather(rows)
    return {"prompt": counted(prompts.to_list())[0]} if (prompts != "").any() else {}


def _metrics(texts: Texts, rows: np.ndarray) -> tuple[np.ndarray, Keys] | str:
    """Those with a value; what is measured as a baseline is one of its own."""
    asked = np.array([not name.startswith((*MEASURED,)) for name in texts.metrics], dtype=bool)
    places = np.flatnonzero(asked & np.isfinite(texts.values[rows]).any(axis=0))
    keys = Keys("metrics", metrics=tuple(texts.metrics[place] for place in places))
    return (texts.values[np.ix_(rows, places)], keys) if len(places) else "no metric has a value"


def read_residuals(texts: Texts, views: Views, rows: np.ndarray) -> tuple[np.ndarray, Keys] | str:
    """(text, all layers' widths) residuals of some texts and their layers, or why there are none."""
    if views.vectors is not None:
        return views.vectors[rows], Keys("residual", given=views.parts)
    if views.residuals is None or views.ids is None:
        return "no residuals: analyze with --keep-residuals"
    frame = _of_texts(views.residuals, views.ids, texts, rows)
    keys = Keys("residual", layers=tuple(frame["layer"].unique().sort()))
    if not keys.layers:
        return f"residuals.parquet holds none of the table's {texts.of}"
    means, times = keys.dense(frame, len(rows))
    for layer, lacking in zip(keys.layers, (times == 0).sum(axis=1), strict=True):
        if lacking:
            return f"residuals.parquet lacks {lacking} of {len(rows)} texts at layer {layer}"
    return means, keys


def _features(texts: Texts, views: Views, rows: np.ndarray) -> tuple[Any, Keys] | str:
    """CSR (text, every layer's features that are active in some text)."""
    if views.ids is None:
        return "no SAE features: only a run's folder has them"
    if views.features is None:
        return "no SAE features: the run was measured without SAEs"
    frame = _of_texts(views.features, views.ids, texts, rows)
    if frame.is_empty():
        return f"features.parquet holds none of the table's {texts.of}"
    keys = Keys("sae", features=frame.select(pl.col(*_KEY).cast(pl.Int64)).unique().sort(*_KEY))
    return keys.sparse(frame, len(rows)), keys


def _of_texts(frame: pl.LazyFrame, ids: pl.Series, texts: Texts, rows: np.ndarray) -> pl.DataFrame:
    """The rows of some texts, with the place of each one among these as `text`."""
    view, item = np.divmod(rows, texts.items)
    key, views = texts.arrangement.key, texts.arrangement.completions
    places = pl.DataFrame(
        {
            key: ids.cast(pl.String).gather(item),
            "view": [views[place] for place in view.tolist()],
            "text": np.arange(len(rows)),
        }
    )
    with table_errors(Path("features.parquet or residuals.parquet")):
        return frame.join(places.lazy(), on=[key, "view"], how="inner").collect()
