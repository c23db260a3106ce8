"""Which SAE features differ between fact and hallucination: paired effects of activations, one layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.features.cells import PairCells, in_groups, pair_cells
from bluffscope.features.ghosts import ghost_summary
from bluffscope.features.labelled import labelled_effects
from bluffscope.features.study import (
    MOST_PAIRS,
    Family,
    FeatureStudy,
    Items,
    chosen_layers,
    standardised,
    values_of,
)
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.flips import flip_tail
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
    chosen, values = chosen_layers(features, layers), values_of(drawn, by, notes)
    groups = label_numbers(drawn["group"])
    about = {"pairs": drawn.height, "groups": int(groups.max()) + 1}
    return _Pairs(drawn["pair_id"], groups, seed, features).study(chosen, (by, values), family, about, notes)


@dataclass(frozen=True)
class _Pairs(Items[PairCells]):
    features: pl.LazyFrame

    schema: ClassVar = EFFECT_SCHEMA
    effect: ClassVar = "dz"
    sides: ClassVar = ("fact", "hall")
    top: ClassVar = ("top_pairs", "top_diffs")

    def cells(self, layer: int) -> PairCells:
        return pair_cells(self.features, self.ids, layer)

    def numbers(self, cells: PairCells) -> dict[str, np.ndarray]:
        pairs = len(self.ids)
        found: dict[str, np.ndarray] = {}
        for side, active, activation in (("fact", cells.fact, cells.in_fact), ("hall", cells.hall, cells.in_hall)):
            found[f"fires_{side}"] = cells.per_feature(active)
            found[f"share_{side}"] = found[f"fires_{side}"] / pairs
            found[f"mean_{side}"] = cells.per_feature(activation) / pairs
        mean = found["mean_hall"] - found["mean_fact"]
        squares = cells.per_feature((cells.in_hall - cells.in_fact) ** 2) - pairs * mean**2
        return {**found, "mean_diff": mean, "dz": standardised(mean, squares, pairs - 1)}

    def p_values(self, cells: PairCells, chosen: np.ndarray, used: np.ndarray) -> np.ndarray:
        sums, starts = in_groups(cells, self.groups, used)
        p = np.empty(len(chosen))
        for place, feature in enumerate(chosen.tolist()):
            rng = np.random.default_rng([self.seed, cells.layer, int(cells.features[feature])])
            p[place] = flip_tail(sums[starts[feature] : starts[feature + 1]], rng)
        return p

    def shown(self, cells: PairCells, higher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        difference = cells.in_hall - cells.in_fact
        return difference * np.where(higher, 1, -1), difference

    def ghost_summary(self, cells: PairCells) -> dict[str, Any]:
        return ghost_summary(cells, self.groups, np.random.default_rng([self.seed, cells.layer]))
