"""Which SAE features differ between true and false texts: effects of activations, one layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.features.cells import TextCells, text_cells
from bluffscope.features.ghosts import GHOST_FIRES
from bluffscope.features.label_tail import LabelDesign, drawn_labels, label_design, label_tail, never_all_false
from bluffscope.features.study import (
    MOST_PAIRS,
    Family,
    FeatureStudy,
    Items,
    chosen_layers,
    standardised,
    values_of,
)
from bluffscope.stats.effects import hedges_factor
from bluffscope.stats.sampling import draw_groups, drawn_from
from bluffscope.stats.study import cluster_numbers, label_numbers

_FLOATS: Final = ("share_true", "share_false", "mean_true", "mean_false", "mean_diff", "g", "p", "q")
LABELLED_EFFECTS: Final = pl.Schema(
    dict.fromkeys(("layer", "feature", "n", "fires_true", "fires_false"), pl.Int64())
    | dict.fromkeys(_FLOATS, pl.Float64())
    | {"ghost": pl.Boolean()}
    | dict.fromkeys(("differs_in", "top_texts"), pl.List(pl.String))
    | {"top_activations": pl.List(pl.Float64)}
)
"""docs/features.md says what each holds."""
_DEALS: Final = 1000


def labelled_effects(
    features: pl.LazyFrame,
    texts: pl.DataFrame,
    *,
    layers: Sequence[int] = (),
    by: str = "domain",
    family: Family = "layer",
    seed: int = 0,
    most: int = MOST_PAIRS,
) -> FeatureStudy:
    """Test every feature that fires in at least `FEWEST_FIRED` texts; the labels play no part in that choice.

    p is that of the false texts' activations when labels fall otherwise (`bluffscope.features.label_tail`).

    Args:
        features: `text_id, view, layer, feature, activation`; scanned once for each layer.
        texts: `text_id, label, group`, `domain` where it is known, and the column `by`.
        layers: those looked at, in this order; all where empty.
        by: a column of few values, in each of which the features found are tested again.
        family: what is corrected together: the features of a layer, or of all layers.
        seed: of draws and partners.
        most: texts that are looked at; of more, whole groups are drawn at random.

    Raises:
        InputError: no texts, none of a label, an unknown layer, no column `by`.
    """
    if texts.is_empty():
        raise InputError("no texts are left to look at")
    drawn = texts.filter(draw_groups(texts["group"], most))
    notes = [] if (note := drawn_from(drawn.height, texts.height, of="texts")) is None else [note]
    false = ~drawn["label"].to_numpy().astype(bool)
    if false.all() or not false.any():
        raise InputError(f"all {drawn.height} texts are {'false' if false.all() else 'true'}: nothing to compare")
    domain = drawn["domain"] if "domain" in drawn.columns else pl.Series([""] * drawn.height)
    ids, groups = drawn["text_id"].cast(pl.String), cluster_numbers(drawn["group"])
    known = _Texts(ids, groups, seed, features, false, label_numbers(domain))
    chosen, values = chosen_layers(features, layers), values_of(drawn, by, notes)
    about = {
        "texts": drawn.height,
        "true": int((~false).sum()),
        "false": int(false.sum()),
        "groups": int(groups.max()) + 1,
        "mixed_groups": known.all.mixed_groups,
        "least_p": known.all.least,
    }
    return known.study(chosen, (by, values), family, about, notes)


@dataclass(frozen=True)
class _Texts(Items[TextCells]):
    features: pl.LazyFrame
    false: np.ndarray
    """(text,)"""
    domains: np.ndarray
    """(text,) numbers from 0."""

    schema: ClassVar = LABELLED_EFFECTS
    effect: ClassVar = "g"
    sides: ClassVar = ("true", "false")
    top: ClassVar = ("top_texts", "top_activations")

    @cached_property
    def all(self) -> LabelDesign:
        """How the labels of all texts could have fallen."""
        return label_design(self.false, self.groups, self.domains, self.seed)

    @cached_property
    def deals(self) -> np.ndarray:
        """(deal, text) whether it is true when labels fall otherwise."""
        return drawn_labels(self.all, self.false, _DEALS, np.random.default_rng([self.seed, 1]))

    def cells(self, layer: int) -> TextCells:
        return text_cells(self.features, self.ids, layer)

    def numbers(self, cells: TextCells) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        scatter = np.zeros(len(cells.features))
        for name, side in (("true", ~self.false), ("false", self.false)):
            own, number = side[cells.item], int(side.sum())
            found[f"fires_{name}"] = cells.per_feature(own)
            found[f"share_{name}"] = found[f"fires_{name}"] / number
            found[f"mean_{name}"] = cells.per_feature(own * cells.activation) / number
            scatter += cells.per_feature(own * cells.activation**2) - number * found[f"mean_{name}"] ** 2
        mean, freedom = found["mean_false"] - found["mean_true"], len(self.ids) - 2
        return {**found, "mean_diff": mean, "g": hedges_factor(freedom) * standardised(mean, scatter, freedom)}

    def p_values(self, cells: TextCells, chosen: np.ndarray, used: np.ndarray) -> np.ndarray:
        design = self.all if used.all() else self._design(used)
        p = np.empty(len(chosen))
        for place, feature in enumerate(chosen.tolist()):
            rng = np.random.default_rng([self.seed, cells.layer, int(cells.features[feature])])
            own = slice(cells.starts[feature], cells.starts[feature + 1])
            p[place] = label_tail(design, cells.item[own], cells.activation[own], rng)
        return p

    def _design(self, used: np.ndarray) -> LabelDesign:
        """How the labels of the texts used could have fallen; the others play no part."""
        # Texts that are not used are of a group of one text and one label, in a domain that has no other label.
        groups = np.where(used, self.groups, self.groups.max(initial=0) + 1)
        domains = np.where(used, self.domains, self.domains.max(initial=0) + 1)
        return label_design(self.false & used, groups, domains, self.seed)

    def shown(self, cells: TextCells, higher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Texts of the label with the larger mean.
        return np.where(self.false[cells.item] == higher, cells.activation, -1.0), cells.activation

    def ghost_summary(self, cells: TextCells) -> dict[str, Any]:
        from scipy.sparse import csr_matrix  # a tenth of a second that not every reader of statistics needs

        fires = np.diff(cells.starts)
        true, false = (cells.per_feature(side[cells.item]) for side in (~self.false, self.false))
        likely = fires >= GHOST_FIRES
        candidates = np.flatnonzero(likely).tolist()
        likely[likely] = [not never_all_false(self.all, cells.items_of(place)) for place in candidates]
        kept = likely[cells.feature_of]
        rows = (np.cumsum(likely) - 1)[cells.feature_of[kept]]
        shape = (int(likely.sum()), len(self.ids))
        fired = csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, cells.item[kept])), shape=shape)
        counts: list[np.ndarray] = []
        for start in range(0, len(self.deals), 100):
            in_true = np.asarray(fired @ self.deals[start : start + 100].T.astype(np.float32))  # (candidate, deal)
            counts.append((in_true == 0).sum(axis=0))
        drawn, ghosts = np.concatenate(counts), int(((true == 0) & (false >= GHOST_FIRES)).sum())
        return {
            "ghosts": ghosts,
            "only_in_facts": int(((false == 0) & (true >= GHOST_FIRES)).sum()),
            "ghosts_expected": float(drawn.mean()),
            "ghosts_high": int(np.quantile(drawn, 0.975, method="higher")),
            "ghosts_p": float((1 + (drawn >= ghosts).sum()) / (1 + len(drawn))),
        }
