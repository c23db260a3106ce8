"""An ablation in a terminal: changes of log-probability without the top features, and without random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bluffscope.features.ablation import Ablation

_PLAIN: Final[dict[str, Any]] = {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False, "header_style": "underline"}
_SHOWN: Final = 12


class AblationView:
    """A rich renderable of one layer's ablation."""

    def __init__(self, ablation: Ablation) -> None:
        self.ablation = ablation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found, effects = self.ablation, self.ablation.effects
        named = ", ".join(map(str, found.features[:_SHOWN])) + (", ..." if len(found.features) > _SHOWN else "")
        yield Text(
            f"\nLayer {found.layer} without its {len(found.features)} strongest features ({named or 'none'})",
            style="bold",
        )
        yield Text(
            f"{effects.pairs:,} pairs in {effects.groups:,} groups; log-probability untouched: fact "
            f"{effects.untouched[0]:.2f}, hallucination {effects.untouched[1]:.2f}. Change in nats, 95 % over groups:"
        )
        table = Table(title=None, **_PLAIN)
        for name in ("removed", "fact", "hallucination", "hallucination - fact", "of the residual"):
            table.add_column(name, justify="left" if name == "removed" else "right")
        shares = {"top": f"{effects.removed[0]:.0%}", "random": f"{effects.removed[1]:.0%}", "top - random": ""}
        labels = {"random": f"random ({len(found.random)} sets)"}
        for removed, share in shares.items():
            cells = [_cell(effects.of(removed, side)) for side in ("fact", "hall", "difference")]
            table.add_row(labels.get(removed, removed), *cells, share)
        yield table
        before, after = effects.preferred
        yield Text(f"The fact is the more probable in {before:.0%} of pairs, without the features in {after:.0%}.")
        yield Text(effects.conclusion, style="bold")
        if found.skipped:
            yield Text(f"{found.skipped} pairs were left out: their completions have no log-probability.", style="dim")


def _cell(row: dict[str, Any]) -> str:
    if row["lo"] is None:
        return f"{row['mean']:+.3f}"
    return f"{row['mean']:+.3f}\n{row['lo']:+.3f} to {row['hi']:+.3f}"
