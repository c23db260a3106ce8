"""Are the numbers of the whole table plausible? L0, errors, norms and features of all texts, as they were written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.health.check import Check, found, graded, judged
from bluffscope.records import VIEWS

OUTLIER: Final = 20.0
"""A norm is an outlier above so many times the median."""
ALWAYS_ON: Final = 0.9
"""A feature is always on if it is on in more than this share of the texts."""
FEWEST_TEXTS: Final = 24
"""Fewer texts are alike by chance: of them nothing is said about features that are always on."""
NOT_FINITE: Final = re.compile(r"not finite")
"""In the reasons why pairs were quarantined."""

_READ_TOKENS: Final = ("read_token", *(f"{view}_read_token" for view in VIEWS))

Saes = Mapping[int, Mapping[str, Any]]


def check_table(
    metrics: pl.DataFrame, features: pl.LazyFrame, reasons: Mapping[str, int], saes: Saes, bos: str | None
) -> Iterator[Check]:
    """Everything that the tables show, layer by layer.

    Args:
        metrics: the result table.
        features: pair_id, view, layer, feature, activation.
        reasons: how many pairs were quarantined for which reason.
        saes: identity of every layer's SAE.
        bos: the BOS as text, where it is known.
    """
    overflown = sum(number for reason, number in reasons.items() if NOT_FINITE.search(reason))
    pairs = len(metrics) + sum(reasons.values())
    yield judged("overflow", overflown / max(1, pairs), f"{overflown} of {pairs} pairs")
    if metrics.is_empty():
        yield found("pairs measured", True, "none")
        return
    if bos is not None:
        columns = [name for name in _READ_TOKENS if name in metrics.columns]
        at_bos = sum(int((metrics[name] == bos).sum()) for name in columns)
        yield found("read tokens", at_bos > 0, f"{at_bos} of {len(columns) * len(metrics)}", bos=bos)
    constant = _always_on(features, len(_texts(metrics)) * len(metrics))
    for layer, sae in saes.items():
        l0 = _of_texts(metrics, layer, "l0_norm")
        if l0 is None:
            yield found("L0: not measured", "note", "layer sensitivity was not measured", layer=layer)
            continue
        yield check_l0(layer, _mean(l0), sae)
        empty = _mean(l0 == 0)
        yield judged("texts without features", empty, f"{empty:.0%} of {len(l0)}", layer=layer)
        yield from _check_errors(metrics, layer)
        yield _check_always_on(layer, constant.get(layer, 0), l0)


def _texts(metrics: pl.DataFrame) -> list[str]:
    """What stands before a metric's name in the columns of each text of an item: "fact_"; nothing for an only one."""
    if "pair_id" in metrics.columns:
        return [f"{view}_" for view in VIEWS]
    return ["prompt_", ""] if "prompt_tokens" in metrics.columns else [""]


def _of_texts(metrics: pl.DataFrame, layer: int, name: str) -> pl.Series | None:
    """A metric of all texts of all pairs; None where it was not measured."""
    columns = [f"l{layer}_{view}{name}" for view in _texts(metrics)]
    if not set(columns) <= set(metrics.columns):
        return None
    return pl.concat([metrics[column].cast(pl.Float64).alias(name) for column in columns])


def _mean(values: pl.Series) -> float:
    """Mean of the values that are defined; 0 where there is none."""
    defined = values.drop_nulls().cast(pl.Float64).to_numpy()
    return float(defined.mean()) if defined.size else 0.0


def check_l0(layer: int, measured: float, sae: Mapping[str, Any]) -> Check:
    """The mean L0 against the published one; where none is, against the width of what the SAE reads."""
    published = sae.get("published_l0") or sae.get("trained_on", {}).get("k")
    if not published:
        dense = measured > float(sae["d_in"])
        return found("L0: none published", dense, f"{measured:.1f}", layer=layer, width=sae["d_in"])
    ratio = measured / float(published)
    off = max(ratio, 1 / ratio) if ratio > 0 else float("inf")
    severity = graded("L0", off)
    times = f"{ratio:.2f} times" if severity == "ok" else f"{ratio:.2g} times"
    return found("L0", severity, f"{measured:.1f}, {times}", layer=layer, published=f"{float(published):.3g}")


def _check_errors(metrics: pl.DataFrame, layer: int) -> Iterator[Check]:
    relative = _of_texts(metrics, layer, "relative_error")
    distance = _of_texts(metrics, layer, "reconstruction_error")
    if relative is None or distance is None:
        return
    mean = _mean(relative)
    yield judged("relative error", mean, f"{mean:.3f} on average", layer=layer)
    # ||x|| from ||x - y|| and (||x - y|| / ||x||)^2
    norms = (distance / relative.sqrt()).drop_nulls().to_numpy()
    norms = norms[np.isfinite(norms)]
    if norms.size:
        median = float(np.median(norms))
        outliers = int((norms > OUTLIER * median).sum())
        seen = f"{norms.max() / median:.1f} times at most, {outliers} beyond"
        yield judged("norms at read positions", outliers / len(norms), seen, layer=layer, most=OUTLIER)


def _always_on(features: pl.LazyFrame, texts: int) -> dict[int, int]:
    """By layer the features that are on in nearly every text."""
    counts = features.group_by("layer", "feature").agg(pl.len().alias("texts"))
    constant = counts.filter(pl.col("texts") > ALWAYS_ON * texts).group_by("layer").len()
    return {int(layer): int(number) for layer, number in constant.collect(engine="streaming").iter_rows()}


def _check_always_on(layer: int, constant: int, l0: pl.Series) -> Check:
    """How much of what is on is on whatever the text says: at a BOS or a pad it is nearly all."""
    title, mean = "features always on", _mean(l0)
    if len(l0) < FEWEST_TEXTS or mean == 0:
        return found(title, "note", f"only {len(l0)} texts to tell", layer=layer)
    share = constant / mean
    return judged(title, share, f"{constant} of {mean:.1f} ({share:.0%})", layer=layer)
