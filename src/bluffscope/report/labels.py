"""How metrics, domains and numbers are written for a reader: one way for terminal and figures."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from bluffscope.metrics import declared
from bluffscope.table.metric_pairs import not_interpretable

OTHER_GROUP: Final = "Further columns"


def group_title(metric: str, layer: int | None) -> str:
    """Title of the analysis that a metric belongs to, with the layer where it is of one."""
    known = declared(metric)
    # A name is no proof: only metrics of layers are declared for layers.
    title = known.analysis.title if known and known.analysis.per_layer == (layer is not None) else OTHER_GROUP
    return title if layer is None else f"{title}, layer {layer}"


def doubts(names: Iterable[str]) -> list[str]:
    """A footnote for each metric that is not interpretable: its mark is an asterisk."""
    reasons = {name: not_interpretable(name) for name in names}
    return [f"* {clean(name, 60)} is not interpretable: {reason}." for name, reason in reasons.items() if reason]


def clean(text: str, width: int = 24) -> str:
    """A text on one line of at most `width` characters, without what would disturb the text around it.

    Control characters, line ends and bidirectional overrides go; a long text ends in an ellipsis. An empty
    text becomes "(empty)".
    """
    # Cc, Cf: controls and bidirectional marks; Cs, Cn: what neither a terminal nor an SVG file can hold.
    # Joiners are kept: emoji and several scripts need them.
    kept = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char
        for char in text
        if char in "\u200c\u200d" or unicodedata.category(char) not in ("Cf", "Cs", "Cn", "Co")
    )
    line = " ".join(kept.split())
    if len(line) > width:
        line = line[: width - 1].rstrip() + "…"
    return line or "(empty)"


def distinct(texts: Sequence[str], width: int = 24, reserved: Sequence[str] = ()) -> dict[str, str]:
    """A label for each text by `clean`; labels that would be the same, or `reserved`, are numbered."""
    labels: dict[str, str] = {}
    taken = set(reserved)
    for text in texts:
        label, number = clean(text, width), 2
        while label in taken:
            tail = f" #{number}"
            label, number = clean(text, width - len(tail)) + tail, number + 1
        taken.add(label)
        labels[text] = label
    return labels


def number(value: float | None, *, signed: bool = False) -> str:
    """A number with about three digits, in at most seven characters; "-" where there is none."""
    if value is None or value != value:
        return "-"
    size = abs(value)
    if size != 0 and (size >= 99_999.5 or size < 0.0005):
        style = ".0e"
    else:
        style = next((style for limit, style in _STYLES if size >= limit), ".4f")
    text = f"{value:{'+' if signed else ''}{style}}"
    # "+0.0000" would claim a sign that zero does not have.
    return text.lstrip("+-") if float(text) == 0 else text


_STYLES: Final = ((99.95, ".0f"), (9.995, ".1f"), (0.9995, ".2f"), (0.00995, ".3f"))
