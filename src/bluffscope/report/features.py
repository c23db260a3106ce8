"""Features in a terminal: what differs at each layer, ghosts and their number by chance, and what ablation changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from bluffscope.features.ghosts import GHOST_FIRES
from bluffscope.features.study import FOUND, FeatureStudy
from bluffscope.host.terminal import Row, count, interval, table
from bluffscope.report.labels import clean, listed, number, percent
from bluffscope.report.sides import LABELLED, PAIRED, Words, sided_statistics

if TYPE_CHECKING:
    from bluffscope.features.ablation import Ablation

_GHOSTS_SHOWN: Final = 8
_ABLATED_SHOWN: Final = 12
_SIDES: Final = ("fact", "hall", "difference")


def words_of_study(about: Mapping[str, Any]) -> Words:
    """How to speak of a study of features."""
    return LABELLED if LABELLED.items in about else PAIRED


def sided_study(study: FeatureStudy) -> FeatureStudy:
    """A study of labelled texts under the names of pairs."""
    return replace(study, rows=sided_statistics(study.rows), layers=sided_statistics(study.layers))


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
    study, about = sided_study(study), study.about
    words = words_of_study(about)
    number = words.number(*(about["pairs"],) * 2 if words.paired else (about["true"], about["false"]))
    yield Text(f"{number} in {about['groups']:,} groups; {_family(about)}.")
    for layer in study.layers.iter_rows(named=True):
        rows = study.rows.filter(layer=layer["layer"])
        yield Text(
            f"\nLayer {layer['layer']}: {found_sentence(layer, about['groups'], words, about.get('least_p'))}",
            style="bold",
        )
        if not rows.is_empty():
            yield _table(rows.head(top), about, promoted)
        yield Text(ghost_sentence(layer, words))
        ghosts = study.ghosts.filter(layer=layer["layer"]).select("feature", "fires").iter_rows()
        if named := listed((f"{feature} ({fires})" for feature, fires in ghosts), _GHOSTS_SHOWN):
            yield Text(f"Ghosts and the {words.halls} that they fire in: {named}", style="dim")
        if page := pages.get(layer["layer"]):
            yield Text(f"Pages: {page}/FEATURE")
    yield Text("")
    spread = "the spread of the differences" if words.paired else "the spread of either label's texts"
    yield Text(
        f"{words.fact}, {words.short}: share of the texts in which it fires; diff: mean of {words.difference}, "
        f"activations with their zeros; {words.symbol}: diff over {spread}; * a ghost.",
        style="dim",
    )
    yield from map(Text, about["notes"])


def _table(rows: pl.DataFrame, about: Mapping[str, Any], promoted: Mapping[tuple[int, int], list[str]]) -> Table:
    by, words = about["by"], words_of_study(about)
    heads = ["feature", words.fact, words.short, "diff", words.symbol, "p", "q"]
    heads += [] if by is None else [f"differs in ({clean(by, 12)})"]
    heads.append("promotes" if promoted else f"strongest {words.items}")

    def shown(row: dict[str, Any]) -> Row:
        cells = [f"{row['feature']}{'*' if row['ghost'] else ' '}"]
        cells += [percent(row[name]) for name in ("share_fact", "share_hall")]
        cells += [number(row["mean_diff"], signed=True), number(row["dz"], signed=True)]
        cells += [chance(row[name]) for name in ("p", "q")]
        cells += [] if by is None else [_places(row["differs_in"] or (), about["values"])]
        pairs = ", ".join(clean(pair, 18) for pair in (row["top_pairs"] or ())[:2])
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


def found_sentence(layer: Mapping[str, Any], groups: int, words: Words = PAIRED, least_p: float | None = None) -> str:
    """How many of a layer's features differ, or why that cannot be judged.

    Args:
        layer: its row of the study.
        groups: of the items.
        words: how to speak of them.
        least_p: the smallest that p can be; by default that of sign flips of the groups.
    """
    if not layer["tested"]:
        return f"cannot be judged: no feature fires often enough to be tested ({layer['active']:,} fire at all)"
    if (least := 2.0 ** (1 - groups) if least_p is None else least_p) >= FOUND:
        few = f"{count(groups, 'group')} of pairs" if words.paired else "labels in so few groups of texts"
        return f"cannot be judged: with {few} no p is below {least:g}"
    if not layer["found"]:
        return f"none of {layer['tested']:,} tested features differs between {words.between} (q < {FOUND})"
    return f"{layer['found']:,} of {layer['tested']:,} tested features differ (q < {FOUND})"


def ghost_sentence(layer: Mapping[str, Any], words: Words = PAIRED) -> str:
    """How many features fire in texts of the false side only, and how many would by chance."""
    ghosts, none = layer["ghosts"], "no fact" if words.paired else "no true text"
    found = f"{count(ghosts, 'ghost feature')} (in {GHOST_FIRES} or more {words.halls}, in {none})"
    labels = f"labels {'flipped' if words.paired else 'drawn'} at random"
    chance_alone = f"with {labels}: {layer['ghosts_expected']:.1f} (97.5 %: {layer['ghosts_high']})"
    more = "more than chance" if ghosts > layer["ghosts_high"] else "no more than chance"
    return f"{found}; {chance_alone}: {more}. {layer['only_in_facts']:,} fire in {words.facts} only."


def chance(value: float | None) -> str:
    """A p or q value."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


@group()
def render_ablation(found: Ablation) -> Iterator[RenderableType]:
    """One layer's ablation, to be printed by a rich console."""
    effects = found.effects
    words = PAIRED if effects.paired else LABELLED
    true, false = effects.texts
    named = listed(map(str, found.features), _ABLATED_SHOWN)
    yield Text(
        f"\nLayer {found.layer} without its {len(found.features)} strongest features ({named or 'none'})",
        style="bold",
    )
    yield Text(
        f"{words.number(true, false)} in {effects.groups:,} groups; log-probability untouched: {words.fact} "
        f"{effects.untouched[0]:.2f}, {words.hall} {effects.untouched[1]:.2f}. Change in nats, 95 % over groups:"
    )
    shares = {"top": f"{effects.removed[0]:.0%}", "random": f"{effects.removed[1]:.0%}", "top - random": ""}
    labels = {"random": f"random ({len(found.random)} sets)"}
    rows = (
        (labels.get(removed, removed), *(_change(effects.of(removed, side)) for side in _SIDES), share)
        for removed, share in shares.items()
    )
    yield table(["removed", words.fact, words.hall, words.difference, "of the residual"], rows, gap=2)
    before, after = effects.preferred
    what = "The fact is the more probable in {} of pairs"
    if not words.paired:
        what = "Of a true and a false text, the true one is the more probable in {} of cases"
    yield Text(f"{what.format(f'{before:.0%}')}, without the features in {after:.0%}.")
    yield Text(effects.conclusion, style="bold")
    if found.skipped:
        yield Text(f"{words.count(found.skipped)} left out: no log-probability.", style="dim")


def _change(row: dict[str, Any]) -> str:
    if row["lo"] is None:
        return f"{row['mean']:+.3f}"
    return f"{row['mean']:+.3f}\n{interval(row, style='+.3f')}"
