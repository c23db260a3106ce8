"""How metrics, domains and numbers are written for a reader: one way for terminal and figures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

GROUPS: Final = (
    ("Semantic misalignment", ("centroid_drift", "axis_twist")),
    ("Stability", ("stability",)),
    ("Entropy", ("entropy",)),
    ("Cross-layer", ("cross_layer_consistency", "cross_layer_alignment")),
    ("Log-probability", ("logprob", "logprob_per_token")),
)
"""Title of each analysis with one value a text, and its metrics; a noise sweep stands with stability. The last is
there in runs with ``--logprob`` only."""

LAYER_GROUP: Final = "Layer sensitivity"
OTHER_GROUP: Final = "Further columns"

NOT_INTERPRETABLE: Final = "cross_layer_consistency"
"""Compares two dictionaries index by index, which share no index."""

_SWEEP: Final = re.compile(r"stability_s.+")


def group_title(metric: str, layer: int | None) -> str:
    """Title of the analysis that a metric belongs to; the layer is not part of it."""
    if layer is not None:
        return LAYER_GROUP
    if _SWEEP.fullmatch(metric):
        return GROUPS[1][0]
    return next((title for title, metrics in GROUPS if metric in metrics), OTHER_GROUP)


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
