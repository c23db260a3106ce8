"""Features in a terminal: what differs at each layer, what fires in hallucinations only, and what chance would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import polars as pl
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from bluffscope.features.effects import FOUND, FeatureStudy
from bluffscope.features.ghosts import GHOST_FIRES
from bluffscope.report.labels import clean, number

_PLAIN: Final[dict[str, Any]] = {"box": None, "padding": (0, 1, 0, 0), "pad_edge": False, "header_style": "underline"}
_GHOSTS_SHOWN: Final = 8


class FeaturesView:
    """A rich renderable of the features that differ most, for any width from 60 columns."""

    def __init__(
        self, study: FeatureStudy, top: int, pages: Mapping[int, str], promoted: Mapping[tuple[int, int], list[str]]
    ) -> None:
        """What is shown.

        Args:
            study: the features.
            top: features a layer.
            pages: address of a layer's feature pages, by layer.
            promoted: tokens by layer and feature; empty where they were not asked for.
        """
        self.study = study
        self.top = top
        self.pages = pages
        self.promoted = promoted

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        about = self.study.about
        yield Text(f"{about['pairs']:,} pairs in {about['groups']:,} groups; {_family(about)}.")
        for layer in self.study.layers.iter_rows(named=True):
            rows = self.study.rows.filter(layer=layer["layer"])
            yield Text(f"\nLayer {layer['layer']}: {found_sentence(layer, about['groups'])}", style="bold")
            if not rows.is_empty():
                yield self._table(rows.head(self.top))
            yield Text(ghost_sentence(layer))
            yield from self._ghosts(layer["layer"])
            if page := self.pages.get(layer["layer"]):
                yield Text(f"Pages: {page}/FEATURE")
        yield Text("")
        yield Text(
            "fact, halluc.: share of the texts in which it fires; diff: mean of hallucination - fact, activations with "
            "their zeros; d_z: diff over the spread of the differences; * a ghost.",
            style="dim",
        )
        for note in about["notes"]:
            yield Text(note)

    def _table(self, rows: pl.DataFrame) -> Table:
        by = self.study.about["by"]
        table = Table(title=None, **_PLAIN)
        for name in ("feature", "fact", "halluc.", "diff", "d_z", "p", "q"):
            table.add_column(name, justify="right", no_wrap=True)
        if by is not None:
            table.add_column(Text(f"differs in ({clean(by, 12)})"), overflow="fold")
        table.add_column("promotes" if self.promoted else "strongest pairs", overflow="fold")
        for row in rows.iter_rows(named=True):
            cells = [Text(f"{row['feature']}{'*' if row['ghost'] else ' '}")]
            cells += [Text(f"{100 * row[name]:.0f} %") for name in ("share_fact", "share_hall")]
            cells += [Text(number(row["mean_diff"], signed=True)), Text(number(row["dz"], signed=True))]
            cells += [Text(chance(row[name])) for name in ("p", "q")]
            if by is not None:
                cells.append(Text(_places(row["differs_in"] or (), self.study.about["values"])))
            if self.promoted:
                tokens = self.promoted.get((row["layer"], row["feature"]), [])
                cells.append(Text(" ".join(f"'{clean(token, 14)}'" for token in tokens)))
            else:
                cells.append(Text(", ".join(clean(pair, 18) for pair in (row["top_pairs"] or ())[:2])))
            table.add_row(*cells, style="bold" if row["q"] < FOUND else "dim")
        return table

    def _ghosts(self, layer: int) -> Iterator[Text]:
        ghosts = self.study.ghosts.filter(layer=layer)
        if ghosts.is_empty():
            return
        named = [f"{row['feature']} ({row['fires']})" for row in ghosts.head(_GHOSTS_SHOWN).iter_rows(named=True)]
        more = ", ..." if ghosts.height > _GHOSTS_SHOWN else ""
        yield Text(f"Ghosts and the hallucinations that they fire in: {', '.join(named)}{more}", style="dim")


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
        return f"cannot be judged: with {groups} group{'s' * (groups != 1)} of pairs no p is below {least:g}"
    if not layer["found"]:
        return f"none of {layer['tested']:,} tested features differs between fact and hallucination (q < {FOUND})"
    return f"{layer['found']:,} of {layer['tested']:,} tested features differ (q < {FOUND})"


def ghost_sentence(layer: Mapping[str, Any]) -> str:
    """How many features fire in hallucinations only, and how many chance alone would give."""
    ghosts = layer["ghosts"]
    told = f"{ghosts:,} ghost feature{'s' * (ghosts != 1)} (in {GHOST_FIRES} or more hallucinations, in no fact)"
    chance_alone = f"labels flipped at random give {layer['ghosts_expected']:.1f} (97.5 %: {layer['ghosts_high']})"
    more = "more than chance" if ghosts > layer["ghosts_high"] else "no more than chance"
    return f"{told}; {chance_alone}: {more}. {layer['only_in_facts']:,} fire in facts only."


def chance(value: float | None) -> str:
    """A p or q value."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
