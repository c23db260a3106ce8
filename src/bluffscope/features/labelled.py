"""Which SAE features differ between true and false texts: effects of activations, one layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.errors import InputError
from bluffscope.features.ghosts import GHOST_FIRES, GHOST_SCHEMA
from bluffscope.features.label_tail import LabelDesign, drawn_labels, label_design, label_tail, never_all_false
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
from bluffscope.stats.effects import hedges_factor
from bluffscope.stats.multiplicity import benjamini_hochberg, by_family
from bluffscope.stats.sampling import draw_groups
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


@dataclass(frozen=True)
class _Cells:
    """The features of one layer: a cell for each feature and text in which it fires, in this order."""

    features: np.ndarray
    """(feature,) indices in the dictionary, ascending: those that fire in some text."""
    starts: np.ndarray
    """(feature + 1,) borders of each feature's cells."""
    text: np.ndarray
    """(cell,) place of the text."""
    activation: np.ndarray
    """(cell,) more than 0."""

    @property
    def feature_of(self) -> np.ndarray:
        """(cell,) place of its feature."""
        return np.repeat(np.arange(len(self.features)), np.diff(self.starts))

    def texts_of(self, feature: int) -> np.ndarray:
        """(text,) places of the texts in which a feature fires."""
        return self.text[self.starts[feature] : self.starts[feature + 1]]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(feature,) float64 sums of (cell,) values."""
        return np.bincount(self.feature_of, values, len(self.features))


@dataclass(frozen=True)
class _Texts:
    """The texts that are looked at."""

    ids: pl.Series
    false: np.ndarray
    """(text,)"""
    groups: np.ndarray
    """(text,) numbers from 0."""
    domains: np.ndarray
    """(text,) numbers from 0."""
    seed: int

    def design(self, used: np.ndarray) -> LabelDesign:
        """How the labels of the texts used could have fallen; the others play no part."""
        # Texts that are not used are of a group of one text and one label, in a domain that has no other label.
        apart = np.where(used, self.groups, self.groups.max(initial=0) + 1)
        false = self.false & used
        return label_design(false, apart, np.where(used, self.domains, self.domains.max(initial=0) + 1), self.seed)


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
    notes: list[str] = []
    drawn = texts.filter(draw_groups(texts["group"], most))
    if drawn.height < texts.height:
        notes.append(
            f"Of {texts.height:,} texts, {drawn.height:,} were looked at: whole groups drawn at random, seed 0."
        )
    known = _texts(drawn, seed)
    chosen, values = chosen_layers(features, layers), values_of(drawn, by, notes)
    design = known.design(np.ones(drawn.height, dtype=bool))
    deals = drawn_labels(design, known.false, _DEALS, np.random.default_rng([seed, 1]))
    parts = [_tested(layer, _layer_cells(features, known.ids, layer), known, design) for layer in chosen]
    q_values = by_family([part.p for part in parts], "scope" if family == "layer" else "all")
    rows = [pl.DataFrame(schema=LABELLED_EFFECTS)]
    ghosts = [pl.DataFrame(schema={"layer": pl.Int64, **GHOST_SCHEMA})]
    summaries: list[dict[str, Any]] = []
    for part, q in zip(parts, q_values, strict=True):
        rows.append(_table(part, q, known, _differs_in(part, q < FOUND, known, values)))
        ghosts.append(_ghosts(part, known))
        numbers = {"active": len(part.cells.features), "tested": len(part.p), "found": int((q < FOUND).sum())}
        summaries.append({"layer": part.layer, **numbers, **_ghost_summary(part, design, deals)})
    tests = {part.layer: len(part.p) for part in parts}
    about = {
        "texts": drawn.height,
        "true": int((~known.false).sum()),
        "false": int(known.false.sum()),
        "groups": int(known.groups.max()) + 1,
        "mixed_groups": design.mixed_groups,
        "least_p": design.least,
        "family": family,
        "tests": tests if family == "layer" else sum(tests.values()),
        "fewest_fired": FEWEST_FIRED,
        "by": by if values else None,
        "values": list(values),
        "seed": seed,
        "notes": notes,
    }
    return FeatureStudy(pl.concat(rows), pl.concat(ghosts), pl.DataFrame(summaries, schema=LAYER_SCHEMA), about)


def _texts(texts: pl.DataFrame, seed: int) -> _Texts:
    false = ~texts["label"].to_numpy().astype(bool)
    for name, number in (("true", int((~false).sum())), ("false", int(false.sum()))):
        if not number:
            raise InputError(
                f"all {texts.height} texts are {'false' if name == 'true' else 'true'}: nothing to compare"
            )
    domain = texts["domain"] if "domain" in texts.columns else pl.Series([""] * texts.height)
    return _Texts(texts["text_id"].cast(pl.String), false, cluster_numbers(texts["group"]), label_numbers(domain), seed)


def _layer_cells(features: pl.LazyFrame, ids: pl.Series, layer: int) -> _Cells:
    """One layer of a run's features; no other layer is held in memory."""
    places = pl.DataFrame({"text_id": ids, "text": np.arange(len(ids), dtype=np.uint32)})
    frame = (
        features.filter(pl.col("layer") == layer, pl.col("view") == "text")
        .join(places.lazy(), on="text_id", how="inner")
        .select(pl.col("feature").cast(pl.UInt32), "text", "activation")
        .collect(engine="streaming")
        .sort("feature", "text")
    )
    names, starts = np.unique(frame["feature"].to_numpy(), return_index=True)
    activation = frame["activation"].cast(pl.Float64).to_numpy()
    return _Cells(names.astype(np.int64), np.append(starts, frame.height), frame["text"].to_numpy(), activation)


@dataclass(frozen=True)
class _Layer:
    """A layer's cells, and the tests of its features."""

    layer: int
    cells: _Cells
    numbers: dict[str, np.ndarray]
    """(feature,) columns of `LABELLED_EFFECTS`."""
    tested: np.ndarray
    """(test,) places among the features."""
    p: np.ndarray
    """(test,)"""


def _tested(layer: int, cells: _Cells, texts: _Texts, design: LabelDesign) -> _Layer:
    numbers: dict[str, np.ndarray] = {}
    scatter = np.zeros(len(cells.features))
    for name, side in (("true", ~texts.false), ("false", texts.false)):
        own, number = side[cells.text], int(side.sum())
        numbers[f"fires_{name}"] = cells.sums(own)
        numbers[f"share_{name}"] = numbers[f"fires_{name}"] / number
        numbers[f"mean_{name}"] = cells.sums(own * cells.activation) / number
        scatter += cells.sums(own * cells.activation**2) - number * numbers[f"mean_{name}"] ** 2
    mean = numbers["mean_false"] - numbers["mean_true"]
    freedom = len(texts.false) - 2
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(np.maximum(scatter, 0) / freedom)
        # Rounding leaves a spread where there is none.
        numbers["g"] = np.where(sd > 1e-7 * np.abs(mean), hedges_factor(freedom) * mean / sd, np.nan)
    numbers["mean_diff"] = mean
    tested = np.flatnonzero(numbers["fires_true"] + numbers["fires_false"] >= FEWEST_FIRED)
    return _Layer(layer, cells, numbers, tested, _p_values(layer, cells, tested, design, texts.seed))


def _p_values(layer: int, cells: _Cells, chosen: np.ndarray, design: LabelDesign, seed: int) -> np.ndarray:
    """(chosen,) p of some features. A feature's p depends on no other feature."""
    p = np.empty(len(chosen))
    for place, feature in enumerate(chosen.tolist()):
        rng = np.random.default_rng([seed, layer, int(cells.features[feature])])
        own = slice(cells.starts[feature], cells.starts[feature + 1])
        p[place] = label_tail(design, cells.texts_of(feature), cells.activation[own], rng)
    return p


def _table(part: _Layer, q: np.ndarray, texts: _Texts, differs_in: list[list[str] | None]) -> pl.DataFrame:
    """`LABELLED_EFFECTS` of a layer."""
    numbers = {name: column[part.tested] for name, column in part.numbers.items()}
    columns = {
        "layer": np.full(len(part.tested), part.layer),
        "feature": part.cells.features[part.tested],
        "n": np.full(len(part.tested), len(texts.ids)),
        **numbers,
        "p": part.p,
        "q": q,
        "ghost": (numbers["fires_true"] == 0) & (numbers["fires_false"] >= GHOST_FIRES),
        "differs_in": pl.Series(differs_in, dtype=pl.List(pl.String)),
        **_top_texts(part, texts),
    }
    frame = pl.DataFrame(columns).with_columns(pl.col("g").fill_nan(None))
    frame = frame.select(pl.col(name).cast(kind) for name, kind in LABELLED_EFFECTS.items())
    return frame.sort(pl.col("g").abs(), "feature", descending=[True, False], nulls_last=True)


def _differs_in(
    part: _Layer, found: np.ndarray, texts: _Texts, values: dict[str, np.ndarray]
) -> list[list[str] | None]:
    """For each feature found the values of `by` in which it differs too, corrected over these tests of the layer."""
    listed: list[list[str] | None] = [None] * len(part.tested)
    if not values or not found.any():
        return listed
    chosen = part.tested[found]
    designs = [texts.design(used) for used in values.values()]
    p = np.stack([_p_values(part.layer, part.cells, chosen, design, texts.seed) for design in designs], axis=1)
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    for row, significant in zip(np.flatnonzero(found).tolist(), q < FOUND, strict=True):
        listed[row] = [name for name, there in zip(values, significant, strict=True) if there]
    return listed


def _top_texts(part: _Layer, texts: _Texts) -> dict[str, pl.Series]:
    """The texts of the label with the larger mean in which each tested feature is most active."""
    cells, feature = part.cells, part.cells.feature_of
    sought = texts.false[cells.text] == (part.numbers["mean_diff"] >= 0)[feature]
    order = np.lexsort((-cells.activation, ~sought, feature))
    rank = np.arange(len(order)) - np.repeat(cells.starts[:-1], np.diff(cells.starts))
    order = order[(rank < TOP_PAIRS) & sought[order]]
    top = {"top_texts": texts.ids.gather(cells.text[order]), "top_activations": cells.activation[order]}
    frame = pl.DataFrame({"place": feature[order], **top}).group_by("place", maintain_order=True).agg(*top)
    listed = pl.DataFrame({"place": part.tested}).join(frame, on="place", how="left", maintain_order="left")
    return {name: listed[name] for name in top}


def _ghosts(part: _Layer, texts: _Texts) -> pl.DataFrame:
    """`GHOST_SCHEMA` of every ghost, the most frequent first."""
    cells, fires = part.cells, part.numbers["fires_false"]
    ghosts = np.flatnonzero((part.numbers["fires_true"] == 0) & (fires >= GHOST_FIRES))
    groups = [
        len(np.unique(texts.groups[cells.text[cells.starts[place] : cells.starts[place + 1]]])) for place in ghosts
    ]
    columns = {"feature": cells.features[ghosts], "fires": fires[ghosts], "groups": groups}
    frame = pl.DataFrame(columns, schema=GHOST_SCHEMA, strict=False)
    return frame.sort("fires", "feature", descending=[True, False]).insert_column(
        0, pl.lit(part.layer, pl.Int64).alias("layer")
    )


def _ghost_summary(part: _Layer, design: LabelDesign, deals: np.ndarray) -> dict[str, Any]:
    """`LAYER_GHOSTS`: a layer's ghosts, those of true texts, and their number when labels fall otherwise.

    Args:
        part: the layer.
        design: of the texts.
        deals: (deal, text) whether it is true.
    """
    from scipy.sparse import csr_matrix  # a tenth of a second that not every reader of statistics needs

    cells, fires = part.cells, np.diff(part.cells.starts)
    true, false = part.numbers["fires_true"], part.numbers["fires_false"]
    likely = fires >= GHOST_FIRES
    likely[likely] = [not never_all_false(design, cells.texts_of(place)) for place in np.flatnonzero(likely).tolist()]
    kept = likely[cells.feature_of]
    rows = (np.cumsum(likely) - 1)[cells.feature_of[kept]]
    shape = (int(likely.sum()), deals.shape[1])
    fired = csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, cells.text[kept])), shape=shape)
    numbers = np.zeros(len(deals), dtype=np.int64)
    for start in range(0, len(deals), 100):
        in_true = np.asarray(fired @ deals[start : start + 100].T.astype(np.float32))  # (candidate, deal)
        numbers[start : start + 100] = (in_true == 0).sum(axis=0)
    ghosts = int(((true == 0) & (false >= GHOST_FIRES)).sum())
    return {
        "ghosts": ghosts,
        "only_in_facts": int(((false == 0) & (true >= GHOST_FIRES)).sum()),
        "ghosts_expected": float(numbers.mean()),
        "ghosts_high": int(np.quantile(numbers, 0.975, method="higher")),
        "ghosts_p": float((1 + (numbers >= ghosts).sum()) / (1 + len(deals))),
    }
