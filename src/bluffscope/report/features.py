"""Features in a terminal: what differs at each layer, ghosts and their number by chance, and what ablation changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from bluffscope.features.effects import FOUND, FeatureStudy
from bluffscope.features.ghosts import GHOST_FIRES
from bluffscope.host.terminal import Row, count, interval, table
from bluffscope.report.labels import clean, listed, number

if TYPE_CHECKING:
    from bluffscope.features.ablation import Ablation

_GHOSTS_SHOWN: Final = 8
_ABLATED_SHOWN: Final = 12
_LEGEND: Final = (
    "fact, halluc.: share of the texts in which it fires; diff: mean of hallucination - fact, activations with "
    "their zeros; d_z: diff over the spread of the differences; * a ghost."
)
_LEGEND_OF_TEXTS: Final = (
    "true, false: share of the texts in which it fires; diff: mean of false - true texts, activations with their "
    "zeros; g: diff over the spread of either label's texts; * a ghost."
)
_SIDES: Final = ("fact", "hall", "difference")


@group()
def render_features(
    study: FeatureStudy, top: int, pages: Mapping[int, str], promoted: Mapping[tuple[int, int], list[str]]
) -> Iterator[RenderableType]:
    """The features that differ most, to be printed by a rich console of any width from 60 columns.

    Args:
        study: the features.
        top: features a layer.
        pages: address of a layer's feature pages, by layer.
        promoted: tokens by layer and feature; empty where they were not asked for.
    """
    about = study.about
    if labelled := "texts" in about:
        sides = f"{about['true']:,} true and {about['false']:,} false texts"
        yield Text(f"{sides} in {about['groups']:,} groups; {_family(about)}.")
    else:
        yield Text(f"{about['pairs']:,} pairs in {about['groups']:,} groups; {_family(about)}.")
    for layer in study.layers.iter_rows(named=True):
        rows = study.rows.filter(layer=layer["layer"])
        found = found_in_texts(layer, about) if labelled else found_sentence(layer, about["groups"])
        yield Text(f"\nLayer {layer['layer']}: {found}", style="bold")
        if not rows.is_empty():
            yield _table(rows.head(top), about, promoted)
        yield Text(ghosts_in_texts(layer) if labelled else ghost_sentence(layer))
        ghosts = study.ghosts.filter(layer=layer["layer"]).select("feature", "fires").iter_rows()
        if named := listed((f"{feature} ({fires})" for feature, fires in ghosts), _GHOSTS_SHOWN):
            side = "false texts" if labelled else "hallucinations"
            yield Text(f"Ghosts and the {side} that they fire in: {named}", style="dim")
        if page := pages.get(layer["layer"]):
            yield Text(f"Pages: {page}/FEATURE")
    yield Text("")
    yield Text(_LEGEND_OF_TEXTS if labelled else _LEGEND, style="dim")
    yield from map(Text, about["notes"])


def _table(rows: pl.DataFrame, about: Mapping[str, Any], promoted: Mapping[tuple[int, int], list[str]]) -> Table:
    by = about["by"]
    labelled = "texts" in about
    sides, effect = (("true", "false"), "g") if labelled else (("fact", "hall"), "dz")
    heads = ["feature", *(sides if labelled else ("fact", "halluc.")), "diff", "g" if labelled else "d_z", "p", "q"]
    heads += [] if by is None else [f"differs in ({clean(by, 12)})"]
    heads.append("promotes" if promoted else f"strongest {'texts' if labelled else 'pairs'}")

    def shown(row: dict[str, Any]) -> Row:
        cells = [f"{row['feature']}{'*' if row['ghost'] else ' '}"]
        cells += [f"{100 * row[name]:.0f} %" for name in (f"share_{side}" for side in sides)]
        cells += [number(row["mean_diff"], signed=True), number(row[effect], signed=True)]
        cells += [chance(row[name]) for name in ("p", "q")]
        cells += [] if by is None else [_places(row["differs_in"] or (), about["values"])]
        pairs = ", ".join(clean(pair, 18) for pair in (row["top_texts" if labelled else "top_pairs"] or ())[:2])
        tokens = " ".join(f"'{clean(token, 14)}'" for token in promoted.get((row["layer"], row["feature"]), ()))
        return Row([*cells, tokens if promoted else pairs], "bold" if row["q"] < FOUND else "dim")

    return table(heads, map(shown, rows.to_dicts()), left=range(7, len(heads)))


def _places(found: Sequence[str], values: Sequence[str]) -> str:
    if len(found) == len(values):
        return f"all {len(values)}"
    return ", ".join(clean(value, 14) for value in found) or "-"


def _family(about: Mapping[str, Any]) -> str:
    fires = f"tested: features that fire in at least {about['fewest_fired']} texts"
    if about["family"] == "layer":
        return f"{fires}; q corrected within each layer"
    return f"{fires}; q corrected over the {about['tests']:,} tests of all layers"


def found_sentence(layer: Mapping[str, Any], groups: int) -> str:
    """How many of a layer's features differ, or why that cannot be judged."""
    if not layer["tested"]:
        return f"cannot be judged: no feature fires often enough to be tested ({layer['active']:,} fire at all)"
    if (least := 2.0 ** (1 - groups)) >= FOUND:
        return f"cannot be judged: with {count(groups, 'group')} of pairs no p is below {least:g}"
    if not layer["found"]:
        return f"none of {layer['tested']:,} tested features differs between fact and hallucination (q < {FOUND})"
    return f"{layer['found']:,} of {layer['tested']:,} tested features differ (q < {FOUND})"


def ghost_sentence(layer: Mapping[str, Any]) -> str:
    """How many features fire in hallucinations only, and how many would by chance."""
    ghosts = layer["ghosts"]
    found = f"{count(ghosts, 'ghost feature')} (in {GHOST_FIRES} or more hallucinations, in no fact)"
    chance_alone = f"with labels flipped at random: {layer['ghosts_expected']:.1f} (97.5 %: {layer['ghosts_high']})"
    more = "more than chance" if ghosts > layer["ghosts_high"] else "no more than chance"
    return f"{found}; {chance_alone}: {more}. {layer['only_in_facts']:,} fire in facts only."


def found_in_texts(layer: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """`found_sentence` of labelled texts."""
    if layer["tested"] and about["least_p"] >= FOUND:
        return f"cannot be judged: with labels in so few groups of texts no p is below {about['least_p']:g}"
    if layer["tested"] and not layer["found"]:
        return f"none of {layer['tested']:,} tested features differs between true and false texts (q < {FOUND})"
    return found_sentence(layer, about["texts"])


def ghosts_in_texts(layer: Mapping[str, Any]) -> str:
    """`ghost_sentence` of labelled texts."""
    ghosts = layer["ghosts"]
    found = f"{count(ghosts, 'ghost feature')} (in {GHOST_FIRES} or more false texts, in no true text)"
    chance_alone = f"with labels drawn at random: {layer['ghosts_expected']:.1f} (97.5 %: {layer['ghosts_high']})"
    more = "more than chance" if ghosts > layer["ghosts_high"] else "no more than chance"
    return f"{found}; {chance_alone}: {more}. {layer['only_in_facts']:,} fire in true texts only."


def chance(value: float | None) -> str:
    """A p or q value."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


@group()
def render_ablation(found: Ablation) -> Iterator[RenderableType]:
    """One layer's ablation, to be printed by a rich console."""
    effects = found.effects
    named = listed(map(str, found.features), _ABLATED_SHOWN)
    yield Text(
        f"\nLayer {found.layer} without its {len(found.features)} strongest features ({named or 'none'})",
        style="bold",
    )
    yield Text(
        f"{effects.pairs:,} pairs in {effects.groups:,} groups; log-probability untouched: fact "
        f"{effects.untouched[0]:.2f}, hallucination {effects.untouched[1]:.2f}. Change in nats, 95 % over groups:"
    )
    shares = {"top": f"{effects.removed[0]:.0%}", "random": f"{effects.removed[1]:.0%}", "top - random": ""}
    labels = {"random": f"random ({len(found.random)} sets)"}
    rows = (
        (labels.get(removed, removed), *(_change(effects.of(removed, side)) for side in _SIDES), share)
        for removed, share in shares.items()
    )
    yield table(["removed", "fact", "hallucination", "hallucination - fact", "of the residual"], rows, gap=2)
    before, after = effects.preferred
    yield Text(f"The fact is the more probable in {before:.0%} of pairs, without the features in {after:.0%}.")
    yield Text(effects.conclusion, style="bold")
    if found.skipped:
        yield Text(f"{found.skipped} pairs were left out: their completions have no log-probability.", style="dim")


def _change(row: dict[str, Any]) -> str:
    if row["lo"] is None:
        return f"{row['mean']:+.3f}"
    return f"{row['mean']:+.3f}\n{interval(row, style='+.3f')}"
