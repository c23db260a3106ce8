"""Are the numbers of the whole table plausible? L0, errors, norms and features of all texts, as they were written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.health.check import Check, Severity
from bluffscope.records import VIEWS

L0_FACTORS: Final = (2.0, 4.0)
"""How far measured and published L0 may be apart before there is a warning, and an error."""
MOST_ERROR: Final = (0.5, 1.0)
"""Mean relative error above which there is a warning, and an error: at 1 a reconstruction is no better than 0."""
EMPTY_SHARE: Final = (0.05, 0.5)
"""Share of texts without an active feature above which there is a warning, and an error."""
OUTLIER: Final = 20.0
"""A norm is an outlier above so many times the median."""
ALWAYS_ON: Final = 0.9
"""A feature is always on if it is on in more than this share of the texts."""
ALWAYS_SHARE: Final = (0.5, 0.9)
"""Share of the mean L0 taken up by such features above which there is a warning, and an error."""
FEWEST_TEXTS: Final = 24
"""Fewer texts are alike by chance: of them nothing is said about features that are always on."""
NOT_FINITE: Final = re.compile(r"not finite")
"""In the reasons why pairs were quarantined."""
MOST_NOT_FINITE: Final = 0.01
"""Share of the pairs above which overflow is an error."""

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
    yield _check_quarantine(len(metrics), reasons)
    if metrics.is_empty():
        yield Check(
            check="pairs measured",
            severity="error",
            expected="at least one",
            seen="none",
            means="Nothing was measured",
            do="See quarantine.parquet for the reasons",
        )
        return
    if bos is not None:
        yield _check_read_tokens(metrics, bos)
    constant = _always_on(features, 3 * len(metrics))
    for layer, sae in saes.items():
        l0 = _of_texts(metrics, layer, "l0_norm")
        if l0 is None:
            seen = "layer sensitivity was not measured"
            yield Check(check="L0", layer=layer, severity="note", expected="a measured L0", seen=seen)
            continue
        yield check_l0(layer, _mean(l0), sae)
        yield _check_empty(layer, l0)
        yield from _check_errors(metrics, layer)
        yield _check_always_on(layer, constant.get(layer, 0), l0)


def _of_texts(metrics: pl.DataFrame, layer: int, name: str) -> pl.Series | None:
    """A metric of all texts of all pairs; None where it was not measured."""
    columns = [f"l{layer}_{view}_{name}" for view in VIEWS]
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
        return Check(
            check="L0",
            layer=layer,
            severity="error" if dense else "ok",
            expected=f"none published; at most {sae['d_in']}",
            seen=f"{measured:.1f}",
            means="More features are active than the residual has dimensions: no sparse code",
            do=_L0_DO,
        )
    ratio = measured / float(published)
    off = max(ratio, 1 / ratio) if ratio > 0 else float("inf")
    severity = _graded(off, L0_FACTORS, inclusive=True)
    times = f"{ratio:.2g} times" if severity != "ok" else f"{ratio:.2f} times"
    return Check(
        check="L0",
        layer=layer,
        severity=severity,
        expected=f"about {float(published):.3g} (published)",
        seen=f"{measured:.1f}, {times}",
        means="The SAE is not given what it was trained on, or is not computed as it was",
        do=_L0_DO,
    )


_L0_DO: Final = "Check layer, hook point, BOS, read position and the SAE's architecture"


def _graded(value: float, limits: tuple[float, float], *, inclusive: bool = False) -> Severity:
    warn, fail = limits
    if value > fail or (inclusive and value >= fail):
        return "error"
    return "warning" if value > warn or (inclusive and value >= warn) else "ok"


def _check_empty(layer: int, l0: pl.Series) -> Check:
    share = _mean(l0 == 0)
    severity = _graded(share, EMPTY_SHARE)
    return Check(
        check="texts without features",
        layer=layer,
        severity=severity,
        expected=f"at most {EMPTY_SHARE[0]:.0%}",
        seen=f"{share:.0%} of {len(l0)}",
        means="The SAE is dead there: every metric of its features is undefined",
        do=_L0_DO,
    )


def _check_errors(metrics: pl.DataFrame, layer: int) -> Iterator[Check]:
    relative = _of_texts(metrics, layer, "relative_error")
    distance = _of_texts(metrics, layer, "reconstruction_error")
    if relative is None or distance is None:
        return
    mean = _mean(relative)
    severity = _graded(mean, MOST_ERROR)
    yield Check(
        check="relative error",
        layer=layer,
        severity=severity,
        expected=f"at most {MOST_ERROR[0]:g}",
        seen=f"{mean:.3f} on average",
        means="The reconstruction misses most of what is read",
        do="Check model, layer, hook point and BOS of the SAE",
    )
    # ||x|| from ||x - y|| and (||x - y|| / ||x||)^2
    norms = (distance / relative.sqrt()).drop_nulls().drop_nans()
    norms = norms.filter(norms.is_finite())
    if norms.is_empty():
        return
    sizes = norms.to_numpy()
    median = float(np.median(sizes))
    outliers = int((sizes > OUTLIER * median).sum())
    yield Check(
        check="norms at read positions",
        layer=layer,
        severity="error" if outliers > 0.01 * len(norms) else "warning" if outliers else "ok",
        expected=f"at most {OUTLIER:g} times the median",
        seen=f"{sizes.max() / median:.1f} times at most, {outliers} beyond",
        means="Such norms belong to tokens that hold no text, like BOS",
        do="Look at the read_token columns of these pairs",
    )


def _always_on(features: pl.LazyFrame, texts: int) -> dict[int, int]:
    """By layer the features that are on in nearly every text."""
    counts = features.group_by("layer", "feature").agg(pl.len().alias("texts"))
    constant = counts.filter(pl.col("texts") > ALWAYS_ON * texts).group_by("layer").len()
    return {int(layer): int(number) for layer, number in constant.collect(engine="streaming").iter_rows()}


def _check_always_on(layer: int, constant: int, l0: pl.Series) -> Check:
    """How much of what is on is on whatever the text says: at a BOS or a pad it is nearly all."""
    row: dict[str, Any] = {
        "check": "features always on",
        "layer": layer,
        "expected": f"at most {ALWAYS_SHARE[0]:.0%} of the mean L0",
    }
    mean = _mean(l0)
    if len(l0) < FEWEST_TEXTS or mean == 0:
        return Check(**row, severity="note", seen=f"only {len(l0)} texts to tell")
    share = constant / mean
    severity = _graded(share, ALWAYS_SHARE)
    return Check(
        **row,
        severity=severity,
        seen=f"{constant} of {mean:.1f} ({share:.0%})",
        means="The same features are active for every text",
        do="Check that no BOS, pad or other constant token is read (read_token columns)",
    )


def _check_read_tokens(metrics: pl.DataFrame, bos: str) -> Check:
    """That no pair of the whole table was read at a BOS."""
    columns = [name for view in VIEWS if (name := f"{view}_read_token") in metrics.columns]
    at_bos = sum(int((metrics[name] == bos).sum()) for name in columns)
    return Check(
        check="read tokens",
        severity="error" if at_bos else "ok",
        expected=f"never {bos}",
        seen=f"{at_bos} of {len(columns) * len(metrics)}",
        means="A BOS was read: it is the same for every text",
        do="Report this: the read positions are computed, not chosen",
    )


def _check_quarantine(measured: int, reasons: Mapping[str, int]) -> Check:
    overflown = sum(number for reason, number in reasons.items() if NOT_FINITE.search(reason))
    pairs = measured + sum(reasons.values())
    severity: Severity = "ok"
    if overflown:
        severity = "error" if overflown > MOST_NOT_FINITE * pairs else "warning"
    return Check(
        check="overflow",
        severity=severity,
        expected="no pair with values that are not finite",
        seen=f"{overflown} of {pairs} pairs",
        means="Activations leave the range of this precision",
        do="Use --dtype bfloat16 or float32",
    )
