"""A page's features one by one: tokens that they promote, how they fire, in which texts, and in which scopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.features.promoted import promoted_in_files
from bluffscope.features.study import FOUND
from bluffscope.report.contents import Contents
from bluffscope.report.sides import IS_FACT
from bluffscope.stats.scopes import POOLED
from bluffscope.table.atomic import table_errors

FEATURES_SHOWN: Final = 15
"""Features of a layer that the page lists."""
MOST_CARDS: Final = 400
"""Features that the page holds cards of: of many layers, fewer of each."""
TEXTS_SHOWN: Final = 5
BINS: Final = 12
_LEADING: Final = 3


@dataclass(frozen=True)
class Firing:
    """Activations of some features in a run's items, 0 where a feature does not fire."""

    fact: np.ndarray
    """(feature, item) in the true side; NaN where the item has none."""
    hall: np.ndarray
    """(feature, item) in the false side, likewise."""

    def scope(self, items: np.ndarray) -> list[list[float | None]]:
        """For each feature the shares of both sides in which it fires, and d_z or g, over some items.

        Args:
            items: (item,) whether it counts.
        """
        sides = [side[:, items] for side in (self.fact, self.hall)]
        sides = [side[:, ~np.isnan(side).any(axis=0)] for side in sides]
        if not all(side.shape[1] for side in sides):
            return [[None] * 3 for _ in self.fact]
        shares = [(side > 0).mean(axis=1) for side in sides]
        return [
            [_rounded(a), _rounded(b), _rounded(effect)]
            for a, b, effect in zip(*shares, self._effects(*sides), strict=True)
        ]

    @cached_property
    def paired(self) -> bool:
        """Whether each item has both sides."""
        return not (np.isnan(self.fact).any() or np.isnan(self.hall).any())

    def _effects(self, fact: np.ndarray, hall: np.ndarray) -> np.ndarray:
        """(feature,) mean difference over its spread; NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.paired:
                difference = hall - fact
                mean, spread = difference.mean(axis=1), difference.std(axis=1, ddof=1) if fact.shape[1] > 1 else np.nan
            else:
                mean = hall.mean(axis=1) - fact.mean(axis=1)
                squares = fact.var(axis=1) * fact.shape[1] + hall.var(axis=1) * hall.shape[1]
                freedom = max(1, fact.shape[1] + hall.shape[1] - 2)
                spread = np.sqrt(squares / freedom) / (1 - 3 / (4 * freedom - 1))  # g: Hedges' correction
            return np.where(spread > 1e-7 * np.abs(mean), mean / spread, np.nan)


def chosen_features(contents: Contents) -> dict[int, list[int]]:
    """The features that the page lists, by layer, the largest effect first."""
    if (study := contents.features) is None:
        return {}
    layers = study.layers["layer"].to_list()
    most = min(FEATURES_SHOWN, max(1, MOST_CARDS // max(1, len(layers))))
    rows = study.rows.group_by("layer", maintain_order=True).head(most)
    found = {layer: rows.filter(layer=layer)["feature"].to_list() for layer in layers}
    return {layer: features for layer, features in found.items() if features}


def feature_cards(contents: Contents) -> list[dict[str, Any]]:
    """A card for each feature that the page lists.

    Returns:
        layer, feature, the study's row (shares, d_z, q, differs_in, ghost), `promotes` (tokens), `texts` (place of the
        item, side, activation; the most active first), `bins` (counts of both sides by activation, of those that
        fire), `most` (the largest activation), `scopes` (both sides' shares and d_z, in the order of the page's
        scopes).
    """
    chosen = chosen_features(contents)
    if contents.features is None or not chosen:
        return []
    names = [(layer, feature) for layer, features in chosen.items() for feature in features]
    promoted = promoted_in_files(contents.run, chosen)
    firing = _firing(contents, names)
    scopes = [firing.scope(items_of(contents, scope)) for scope in contents.scopes]
    rows = {(row["layer"], row["feature"]): row for row in contents.features.rows.iter_rows(named=True)}
    return [
        {
            **{name: rows[name_of][name] for name in ("layer", "feature", "ghost", "differs_in")},
            **{name: _rounded(rows[name_of][name]) for name in ("share_fact", "share_hall", "mean_diff", "dz", "q")},
            "promotes": promoted.get(name_of, []),
            "texts": _strongest(firing, place),
            **_histogram(firing, place),
            "scopes": [scope[place] for scope in scopes],
        }
        for place, name_of in enumerate(names)
    ]


def leading(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cards that the page opens with: those that differ most, of whatever layer; none where none differs."""
    found = [card for card in cards if card["q"] is not None and card["q"] < FOUND and card["dz"] is not None]
    return sorted(found, key=lambda card: -abs(card["dz"]))[:_LEADING]


def _firing(contents: Contents, names: Sequence[tuple[int, int]]) -> Firing:
    """Activations of features (layer, index) in the page's items."""
    words, key = contents.words, contents.words.key
    wanted = pl.DataFrame({"place": range(len(names))}).with_columns(
        pl.Series("layer", [layer for layer, _ in names], pl.Int64),
        pl.Series("feature", [feature for _, feature in names], pl.Int64),
    )
    items = contents.pairs.select(pl.col(key).cast(pl.String), item=pl.int_range(pl.len()))
    with table_errors(contents.run.path / "features.parquet"):
        rows = (
            contents.run.features.filter(pl.col("view") != "prompt")
            .with_columns(pl.col("layer", "feature").cast(pl.Int64))
            .join(wanted.lazy(), on=["layer", "feature"])
            .join(items.lazy(), on=key)
            .select("place", "item", "view", pl.col("activation").cast(pl.Float32))
            .collect()
        )
    is_fact = np.ones(items.height, bool) if words.paired else contents.metrics[IS_FACT].to_numpy()
    in_fact = (rows["view"] != "hall").to_numpy() & is_fact[rows["item"].to_numpy()]
    sides: list[np.ndarray] = []
    for of_side, there in ((in_fact, is_fact), (~in_fact, is_fact if words.paired else ~is_fact)):
        side = np.zeros((len(names), items.height), dtype=np.float32)
        side[:, ~there] = np.nan
        part = rows.filter(pl.Series(of_side))
        side[part["place"].to_numpy(), part["item"].to_numpy()] = part["activation"].to_numpy()
        sides.append(side)
    return Firing(*sides)


def items_of(contents: Contents, scope: str) -> np.ndarray:
    """(item,) whether it is of a scope of the statistics."""
    column, equals, value = scope.partition("=")
    everything = np.ones(contents.pairs.height, bool)
    if scope == POOLED:
        return everything
    table = contents.pairs if equals and column in contents.pairs.columns else contents.metrics
    name, wanted = (column, value) if equals and column in table.columns else ("domain", scope)
    if name not in table.columns:
        return ~everything
    return table[name].cast(pl.String).fill_null("null").eq(wanted).to_numpy()


def _strongest(firing: Firing, place: int) -> list[list[float]]:
    """Item, side (1 is the false one) and activation of the texts in which a feature fires most."""
    both = np.nan_to_num(np.stack([firing.fact[place], firing.hall[place]])).ravel()
    order = np.argsort(-both, kind="stable")[:TEXTS_SHOWN]
    count = firing.fact.shape[1]
    return [[i % count, i // count, float(f"{both[i]:.3g}")] for i in order.tolist() if both[i] > 0]


def _histogram(firing: Firing, place: int) -> dict[str, Any]:
    sides = [side[place][side[place] > 0] for side in (firing.fact, firing.hall)]
    most = float(max((side.max() for side in sides if len(side)), default=0))
    bins = [np.histogram(side, BINS, (0, most or 1))[0].tolist() for side in sides]
    return {"bins": bins, "most": float(f"{most:.3g}")}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.3g}")
