"""Which SAE features differ between fact and hallucination: paired effects of activations, one layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.features.cells import FeatureCells, in_groups, layer_cells
from bluffscope.features.ghosts import GHOST_FIRES, GHOST_SCHEMA, ghost_summary, ghosts_of
from bluffscope.features.labelled import labelled_effects
from bluffscope.features.study import (
    FEWEST_FIRED,
    FOUND,
    LAYER_SCHEMA,
    MOST_PAIRS,
    TOP_PAIRS,
    Family,
    FeatureStudy,
    chosen_layers,
    values_of,
)
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.flips import flip_tail
from bluffscope.stats.multiplicity import benjamini_hochberg, by_family
from bluffscope.stats.sampling import draw_groups, drawn_from
from bluffscope.stats.study import label_numbers

_FLOATS: Final = ("share_fact", "share_hall", "mean_fact", "mean_hall", "mean_diff", "dz", "p", "q")
EFFECT_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("layer", "feature", "n", "fires_fact", "fires_hall"), pl.Int64())
    | dict.fromkeys(_FLOATS, pl.Float64())
    | {"ghost": pl.Boolean()}
    | dict.fromkeys(("differs_in", "top_pairs"), pl.List(pl.String))
    | {"top_diffs": pl.List(pl.Float64)}
)
"""docs/features.md says what each holds."""


@exclusive()
def feature_effects(
    features: pl.LazyFrame,
    pairs: pl.DataFrame,
    *,
    layers: Sequence[int] = (),
    by: str = "domain",
    family: Family = "layer",
    seed: int = 0,
    most: int = MOST_PAIRS,
) -> FeatureStudy:
    """Test every feature that fires in at least `FEWEST_FIRED` texts; the labels play no part in that choice.

    d_i = activation in the hallucination - activation in the fact of pair i, 0 where it does not fire. p is that of
    the mean when whole groups of pairs change sign (`flip_tail`).

    Args:
        features: `pair_id, view, layer, feature, activation`; scanned once for each layer.
        pairs: `pair_id, group` and the column `by`: the pairs that are looked at. Labelled texts have `text_id` and
            `label`, and go to `labelled_effects`.
        layers: those looked at, in this order; all where empty.
        by: a column of few values, in each of which the features found are tested again.
        family: what is corrected together: the features of a layer, or of all layers.
        seed: of the draws behind p and of the flips behind the ghosts.
        most: pairs that are looked at; of more, whole groups are drawn at random.

    Raises:
        InputError: no pairs, an unknown layer, no column `by`.
    """
    if "text_id" in pairs.columns:
        return labelled_effects(features, pairs, layers=layers, by=by, family=family, seed=seed, most=most)
    if pairs.is_empty():
        raise InputError("no pairs are left to look at")
    drawn = pairs.filter(draw_groups(pairs["group"], most))
    notes = [] if (note := drawn_from(drawn.height, pairs.height)) is None else [note]
    pairs = drawn
    chosen = chosen_layers(features, layers)
    values = values_of(pairs, by, notes)
    groups = label_numbers(pairs["group"])
    parts = [_tested(layer, layer_cells(features, pairs["pair_id"], layer), groups, seed) for layer in chosen]
    q_values = by_family([part.p for part in parts], "scope" if family == "layer" else "all")
    rows = [pl.DataFrame(schema=EFFECT_SCHEMA)]
    ghosts = [pl.DataFrame(schema={"layer": pl.Int64, **GHOST_SCHEMA})]
    summaries: list[dict[str, Any]] = []
    for part, q in zip(parts, q_values, strict=True):
        differs_in = _differs_in(part, q < FOUND, groups, values, seed)
        rows.append(_table(part, q, pairs["pair_id"], differs_in))
        ghosts.append(ghosts_of(part.cells, groups).select(pl.lit(part.layer, pl.Int64).alias("layer"), pl.all()))
        numbers = {"active": len(part.cells.features), "tested": len(part.p), "found": int((q < FOUND).sum())}
        flipped = ghost_summary(part.cells, groups, np.random.default_rng([seed, part.layer]))
        summaries.append({"layer": part.layer, **numbers, **flipped})
    tests = {part.layer: len(part.p) for part in parts}
    about = {
        "pairs": pairs.height,
        "groups": int(groups.max()) + 1,
        "family": family,
        "tests": tests if family == "layer" else sum(tests.values()),
        "fewest_fired": FEWEST_FIRED,
        "by": by if values else None,
        "values": list(values),
        "seed": seed,
        "notes": notes,
    }
    return FeatureStudy(pl.concat(rows), pl.concat(ghosts), pl.DataFrame(summaries, schema=LAYER_SCHEMA), about)


@dataclass(frozen=True)
class _Layer:
    """A layer's cells, and the tests of its features."""

    layer: int
    cells: FeatureCells
    numbers: dict[str, np.ndarray]
    """(feature,) columns of `EFFECT_SCHEMA`."""
    tested: np.ndarray
    """(test,) places among the features."""
    p: np.ndarray
    """(test,)"""


def _tested(layer: int, cells: FeatureCells, groups: np.ndarray, seed: int) -> _Layer:
    pairs = len(groups)
    numbers = {
        "fires_fact": cells.per_feature(cells.fact),
        "fires_hall": cells.per_feature(cells.hall),
        "mean_fact": cells.per_feature(cells.in_fact) / pairs,
        "mean_hall": cells.per_feature(cells.in_hall) / pairs,
    }
    mean = numbers["mean_hall"] - numbers["mean_fact"]
    squares = cells.per_feature((cells.in_hall - cells.in_fact) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(np.maximum(squares - pairs * mean**2, 0) / (pairs - 1))
        # Rounding leaves a spread where there is none.
        numbers["dz"] = np.where(sd > 1e-7 * np.abs(mean), mean / sd, np.nan)
    numbers["mean_diff"] = mean
    tested = np.flatnonzero(numbers["fires_fact"] + numbers["fires_hall"] >= FEWEST_FIRED)
    p = _flip_p(layer, cells, groups, tested, np.ones(pairs, dtype=bool), seed)
    return _Layer(layer, cells, numbers, tested, p)


def _flip_p(
    layer: int, cells: FeatureCells, groups: np.ndarray, chosen: np.ndarray, used: np.ndarray, seed: int
) -> np.ndarray:
    """(chosen,) p of some features over the pairs used. A feature's p depends on no other feature."""
    sums, starts = in_groups(cells, groups, used)
    p = np.empty(len(chosen))
    for place, feature in enumerate(chosen.tolist()):
        rng = np.random.default_rng([seed, layer, int(cells.features[feature])])
        p[place] = flip_tail(sums[starts[feature] : starts[feature + 1]], rng)
    return p


def _table(part: _Layer, q: np.ndarray, ids: pl.Series, differs_in: list[list[str] | None]) -> pl.DataFrame:
    """`EFFECT_SCHEMA` of a layer."""
    tested, pairs = part.tested, len(ids)
    numbers = {name: column[tested] for name, column in part.numbers.items()}
    columns = {
        "layer": np.full(len(tested), part.layer),
        "feature": part.cells.features[tested],
        "n": np.full(len(tested), pairs),
        **numbers,
        "share_fact": numbers["fires_fact"] / pairs,
        "share_hall": numbers["fires_hall"] / pairs,
        "p": part.p,
        "q": q,
        "ghost": (numbers["fires_fact"] == 0) & (numbers["fires_hall"] >= GHOST_FIRES),
        "differs_in": pl.Series(differs_in, dtype=pl.List(pl.String)),
        **_top_pairs(part.cells, part.numbers["mean_diff"], tested, ids),
    }
    frame = pl.DataFrame(columns).with_columns(pl.col("dz").fill_nan(None))
    frame = frame.select(pl.col(name).cast(kind) for name, kind in EFFECT_SCHEMA.items())
    return frame.sort(pl.col("dz").abs(), "feature", descending=[True, False], nulls_last=True)


def _differs_in(
    part: _Layer, found: np.ndarray, groups: np.ndarray, values: dict[str, np.ndarray], seed: int
) -> list[list[str] | None]:
    """For each feature found the values of `by` in which it differs too, corrected over these tests of the layer."""
    listed: list[list[str] | None] = [None] * len(part.tested)
    if not values or not found.any():
        return listed
    chosen = part.tested[found]
    p = np.stack([_flip_p(part.layer, part.cells, groups, chosen, used, seed) for used in values.values()], axis=1)
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    for row, significant in zip(np.flatnonzero(found).tolist(), q < FOUND, strict=True):
        listed[row] = [name for name, there in zip(values, significant, strict=True) if there]
    return listed


def _top_pairs(cells: FeatureCells, mean: np.ndarray, tested: np.ndarray, ids: pl.Series) -> dict[str, pl.Series]:
    """The pairs that differ most in the direction in which the feature differs, for each tested feature."""
    difference = cells.in_hall - cells.in_fact
    feature = cells.feature_of
    directed = difference * np.where(mean >= 0, 1, -1)[feature]
    order = np.lexsort((-directed, feature))
    rank = np.arange(len(order)) - np.repeat(cells.starts[:-1], np.diff(cells.starts))
    order = order[(rank < TOP_PAIRS) & (directed[order] > 0)]
    top = {"top_pairs": ids.cast(pl.String).gather(cells.pair[order]), "top_diffs": difference[order]}
    frame = pl.DataFrame({"place": feature[order], **top}).group_by("place", maintain_order=True).agg(*top)
    listed = pl.DataFrame({"place": tested}).join(frame, on="place", how="left", maintain_order="left")
    return {name: listed[name] for name in top}
