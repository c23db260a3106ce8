"""An ablation in a terminal: changes of log-probability without the top features, and without random ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from rich.console import RenderableType, group
from rich.text import Text

from bluffscope.host.terminal import interval, table

if TYPE_CHECKING:
    from bluffscope.features.ablation import Ablation

_SHOWN: Final = 12
_SIDES: Final = ("fact", "hall", "difference")


@group()
def render_ablation(found: Ablation) -> Iterator[RenderableType]:
    """One layer's ablation, to be printed by a rich console."""
    effects = found.effects
    named = ", ".join(map(str, found.features[:_SHOWN])) + (", ..." if len(found.features) > _SHOWN else "")
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
        (labels.get(removed, removed), *(_cell(effects.of(removed, side)) for side in _SIDES), share)
        for removed, share in shares.items()
    )
    yield table(["removed", "fact", "hallucination", "hallucination - fact", "of the residual"], rows, gap=2)
    before, after = effects.preferred
    yield Text(f"The fact is the more probable in {before:.0%} of pairs, without the features in {after:.0%}.")
    yield Text(effects.conclusion, style="bold")
    if found.skipped:
        yield Text(f"{found.skipped} pairs were left out: their completions have no log-probability.", style="dim")


def _cell(row: dict[str, Any]) -> str:
    if row["lo"] is None:
        return f"{row['mean']:+.3f}"
    return f"{row['mean']:+.3f}\n{interval(row, style='+.3f')}"
