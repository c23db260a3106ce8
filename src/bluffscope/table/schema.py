"""Every column of the result table, declared once: name, type, unit, range, one sentence, version.

The lists are plain tuples. A change to a metric's definition bumps that metric's `version`; a change
to the layout of the tables bumps `SCHEMA_VERSION`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import polars as pl

from bluffscope.errors import InputError
from bluffscope.records import VIEWS

Kind = Literal["str", "int", "float", "bool", "category"]

SCHEMA_VERSION: Final = 1
"""Version of the layout of a run's tables."""

ANALYSES: Final = ("layer_sensitivity", "semantic_misalignment", "stability", "entropy", "cross_layer")
"""The five analyses, in the table's order."""

LOGPROB: Final = "logprob"
"""Section of the log-probabilities, which are no analysis of the residual stream and are there only when asked for."""

SHARD_COLUMNS: Final = ("_index", "_features", "_residuals", "_reason", "prompt", "fact", "hallucination")
"""Columns of a shard that are not columns of the table: no other column may have these names."""

_DTYPES: Final[dict[Kind, type[pl.DataType]]] = {
    "str": pl.String,
    "int": pl.Int64,
    "float": pl.Float64,
    "bool": pl.Boolean,
    "category": pl.String,
}
_VIEW_WORDS: Final = {"prompt": "prompt", "fact": "fact", "hall": "hallucination"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the result table."""

    name: str
    kind: Kind
    """What it holds: "category" is text from a small set."""
    unit: str
    """degrees, nats, activation units, features, tokens, or "dimensionless"; empty for text."""
    low: float | None
    """Smallest possible value, or None where there is no bound."""
    high: float | None
    """Largest possible value, or None where there is no bound."""
    doc: str
    """What it says, in one sentence."""
    version: int = 1
    """Version of its definition."""
    section: str = "added"
    """"pair", the name of an analysis, "logprob", "added" (an analysis of the user's own) or "carried"."""

    @property
    def dtype(self) -> type[pl.DataType]:
        """The column's type in the Parquet files: Float64, Int64, Boolean or String."""
        return _DTYPES[self.kind]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, before layers, views and differences make columns of it."""

    name: str
    analysis: str
    """One of `ANALYSES`, or `LOGPROB`."""
    kind: Kind
    unit: str
    low: float | None
    high: float | None
    doc: str
    """One sentence without its end: "of {view}" is filled in for each column."""
    version: int = 1

    def column(self, name: str, view: str) -> Column:
        """The column that holds this metric of one view, or "diff" (hallucination - fact)."""
        low, high, doc = self.low, self.high, self.doc.format(view=f"the {_VIEW_WORDS.get(view, view)}")
        if view == "diff":
            doc = f"{name.removesuffix('_diff')}: hallucination - fact"
            # The difference of two values of [low, high] lies in [low - high, high - low].
            high = None if low is None or high is None else high - low
            low = None if high is None else -high
        return Column(name, self.kind, self.unit, low, high, doc + ".", self.version, self.analysis)


PAIR_COLUMNS: Final = (
    Column("pair_id", "str", "", None, None, "Name of the pair, unique in the run.", 1, "pair"),
    Column("domain", "category", "", None, None, "Named group of pairs that results are reported for.", 1, "pair"),
    Column("complexity", "int", "dimensionless", 1, 10, "Difficulty as the source gives it, or null.", 1, "pair"),
    Column(
        "group",
        "str",
        "",
        None,
        None,
        "Pairs that share a prompt or a completion have the same label; resampling works on these groups.",
        1,
        "pair",
    ),
    Column("prompt_tokens", "int", "tokens", 0, None, "Tokens of the prompt, without BOS.", 1, "pair"),
    Column(
        "fact_tokens",
        "int",
        "tokens",
        0,
        None,
        "Tokens of prompt + fact beyond the longest token prefix it shares with the prompt.",
        1,
        "pair",
    ),
    Column(
        "hall_tokens",
        "int",
        "tokens",
        0,
        None,
        "Tokens of prompt + hallucination beyond the longest token prefix it shares with the prompt.",
        1,
        "pair",
    ),
    *(
        Column(
            f"{view}_read_token",
            "str",
            "",
            None,
            None,
            f"Text of the (last) token at which the {word} was read.",
            1,
            "pair",
        )
        for view, word in _VIEW_WORDS.items()
    ),
)
"""What identifies a pair, the lengths of its texts, and the tokens that were read."""

_SENSITIVITY: Final = "layer_sensitivity"

LAYER_METRICS: Final = (
    Metric(
        "l0_norm",
        _SENSITIVITY,
        # Not an integer: with position "completion-mean" it is a mean over tokens.
        "float",
        "features",
        0,
        None,
        "Active SAE features of {view}",
    ),
    Metric(
        "reconstruction_error",
        _SENSITIVITY,
        "float",
        "activation units",
        0,
        None,
        "Length of the residual of {view} less the SAE's reconstruction, ||x - y||",
    ),
    Metric(
        "relative_error",
        _SENSITIVITY,
        "float",
        "dimensionless",
        0,
        None,
        "Share of the squared length of {view}'s residual that the SAE misses, ||x - y||^2 / ||x||^2",
    ),
    Metric(
        "gini",
        _SENSITIVITY,
        "float",
        "dimensionless",
        0,
        1,
        "Gini coefficient of the active magnitudes of {view}: 0 when all are equal, near 1 when one dominates",
    ),
    Metric(
        "sphericity",
        _SENSITIVITY,
        "float",
        "dimensionless",
        0,
        1,
        "Third over first axis of the cloud of active decoder directions of {view}, sqrt(l3 / l1); "
        "null below 4 active features",
    ),
    Metric(
        "elongation",
        _SENSITIVITY,
        "float",
        "dimensionless",
        0,
        1,
        "Second over first axis of the cloud of active decoder directions of {view}, sqrt(l2 / l1); "
        "null below 3 active features",
    ),
    Metric(
        "dimensionality",
        _SENSITIVITY,
        "float",
        "dimensionless",
        1,
        None,
        "Participation ratio of the cloud's eigenvalues, (sum l)^2 / sum l^2, of {view}",
    ),
    Metric(
        "eigenvalue_entropy",
        _SENSITIVITY,
        "float",
        "nats",
        0,
        None,
        "Entropy of the normalised eigenvalues of {view}'s cloud",
    ),
    Metric(
        "misalignment_angle",
        _SENSITIVITY,
        "float",
        "degrees",
        0,
        90,
        "Angle between the line of the principal axis of {view}'s cloud and the cloud's centroid",
    ),
    Metric(
        "shape_class",
        _SENSITIVITY,
        "category",
        "",
        None,
        None,
        "Spherical, Oblate, Prolate or Triaxial, from the elongation and sphericity of {view}",
    ),
)
"""Measured at every layer, in each of the three views."""

_STABILITY: Final = Metric(
    "stability",
    "stability",
    "float",
    "dimensionless",
    0,
    1,
    "Mean Jaccard similarity of the top-10 features of {view} with and without noise on the residual, first layer",
)

PAIR_METRICS: Final = (
    Metric(
        "centroid_drift",
        "semantic_misalignment",
        "float",
        "degrees",
        0,
        180,
        "Angle between the centroids of the prompt and of {view}, first layer",
    ),
    Metric(
        "axis_twist",
        "semantic_misalignment",
        "float",
        "degrees",
        0,
        90,
        "Angle between the lines of the principal axes of the prompt and of {view}, first layer",
    ),
    _STABILITY,
    Metric(
        "entropy",
        "entropy",
        "float",
        "nats",
        0,
        math.log(50),
        "Entropy of the top-50 active magnitudes of {view}, first layer",
    ),
    Metric(
        "cross_layer_consistency",
        "cross_layer",
        "float",
        "dimensionless",
        # Features are never negative, so neither is the cosine of two feature vectors.
        0,
        1,
        "Cosine, index by index, of {view}'s feature vectors at the middle and the last layer; "
        "not interpretable (two dictionaries share no index), kept for comparison with earlier work",
    ),
    Metric(
        "cross_layer_alignment",
        "cross_layer",
        "float",
        "dimensionless",
        -1,
        1,
        "Cosine of {view}'s SAE reconstructions at the middle and the last layer, which share the residual basis",
    ),
)
"""One value for the fact and one for the hallucination of a pair, and their difference."""

_LIKELY: Final = "Log-probability of {view} given the prompt"

LOGPROB_METRICS: Final = (
    Metric("logprob", LOGPROB, "float", "nats", None, 0, f"{_LIKELY}, summed over its completion's tokens"),
    Metric("logprob_per_token", LOGPROB, "float", "nats", None, 0, f"{_LIKELY}, mean over its completion's tokens"),
)
"""Measured with ``--logprob``."""

METRICS: Final = LAYER_METRICS + PAIR_METRICS + LOGPROB_METRICS
"""Every metric of the five analyses, in the table's order, and the log-probabilities."""


def layer_columns(layers: Sequence[int]) -> tuple[Column, ...]:
    """Columns ``l{layer}_{view}_{metric}`` of the per-layer metrics: by layer, then view, then metric."""
    return tuple(
        metric.column(f"l{layer}_{view}_{metric.name}", view)
        for layer in layers
        for view in VIEWS
        for metric in LAYER_METRICS
    )


def pair_columns(sweep: Sequence[float] = ()) -> tuple[Column, ...]:
    """Columns ``{metric}_{fact|hall|diff}`` of the other metrics, those of the noise sweep last.

    Args:
        sweep: noise levels s of ``--noise-sweep``; each has the columns ``stability_s{s}_{fact|hall|diff}``
            with s written by ``format(s, "g")``.
    """
    swept = tuple(
        replace(_STABILITY, name=f"stability_s{s:g}", doc=f"{_STABILITY.doc}, at noise s = {s:g}") for s in sweep
    )
    return _compared(PAIR_METRICS + swept)


def logprob_columns() -> tuple[Column, ...]:
    """Columns ``logprob_{fact|hall|diff}`` and ``logprob_per_token_{fact|hall|diff}``."""
    return _compared(LOGPROB_METRICS)


def _compared(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    return tuple(
        metric.column(f"{metric.name}_{part}", part) for metric in metrics for part in ("fact", "hall", "diff")
    )


def table_columns(
    layers: Sequence[int],
    sweep: Sequence[float] = (),
    carried: Iterable[tuple[str, Kind]] = (),
    analyses: Sequence[str] = ANALYSES,
    added: Iterable[Column] = (),
) -> tuple[Column, ...]:
    """All columns of metrics.parquet, in their order.

    Args:
        layers: layers measured, in the user's order.
        sweep: noise levels of ``--noise-sweep``.
        carried: (name, kind) of the source's further columns.
        analyses: names of the analyses that ran, out of `ANALYSES` and `LOGPROB`; the columns of the others are left
            out.
        added: columns of analyses that the user supplied.

    Raises:
        InputError: An unknown analysis, or a column name that would stand twice in the table.
    """
    known = (*ANALYSES, LOGPROB)
    if unknown := [name for name in analyses if name not in known]:
        raise InputError(f"unknown analysis {unknown[0]!r}: expected some of {', '.join(known)}")
    measured = (*layer_columns(layers), *pair_columns(sweep), *logprob_columns())
    extra = [Column(name, kind, "", None, None, "Carried from the input.", 1, "carried") for name, kind in carried]
    columns = (*PAIR_COLUMNS, *(column for column in measured if column.section in analyses), *added, *extra)
    counts = Counter([*SHARD_COLUMNS, *(column.name for column in columns)])
    for name, count in counts.items():
        if count > 1:
            where = "in the data" if any(column.name == name for column in extra) else "in the options"
            raise InputError(f"two columns of the result table would be named {name!r}: rename the one {where}")
    return columns
