"""How metrics, domains and numbers are written for a reader: one way for terminal and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from bluffscope.host.terminal import clean, interval
from bluffscope.metrics import declared
from bluffscope.table.metric_pairs import MetricPair, layer_of, not_interpretable

OTHER_GROUP: Final = "Further columns"
Item = TypeVar("Item")


def group_title(metric: str, layer: int | None) -> str:
    """Title of the analysis that a metric belongs to, with the layer where it is of one."""
    known = declared(metric)
    # A user's column may have a built-in name: only metrics of layers are declared for layers.
    title = known.analysis.title if known and known.analysis.per_layer == (layer is not None) else OTHER_GROUP
    return title if layer is None else f"{title}, layer {layer}"


def in_words(metric: str, value: float, label: str = "") -> str:
    """A difference without its column's name: "feature cloud less round at layer 5".

    Args:
        metric: a metric, with its layer where it is of one.
        value: the difference; its sign counts.
        label: what a metric is called that is not built in; its name where empty.
    """
    layer, name = layer_of(metric)
    known = declared(name)
    if known and known.metric.higher and known.analysis.per_layer == (layer is not None):
        said = known.metric.higher if value > 0 else known.metric.lower
        said += f" of s = {known.level:g}" if known.level else ""
    else:
        said = f"{clean(label or name, 40)} {'higher' if value > 0 else 'lower'}"
    return said if layer is None else f"{said} at layer {layer}"


def size(value: float) -> str:
    """A standardised effect's size in words, by Cohen's limits."""
    return next((word for least, word in _SIZES if abs(value) >= least), "negligible")


_SIZES: Final = ((0.8, "large"), (0.5, "medium"), (0.2, "small"))


def by_analysis(pairs: Iterable[MetricPair]) -> dict[str, list[MetricPair]]:
    """Metrics by the title of their analysis: those of a noise sweep join stability, wherever they are in the table."""
    groups: dict[str, list[MetricPair]] = {}
    for pair in pairs:
        groups.setdefault(group_title(pair.metric, pair.layer), []).append(pair)
    return groups


def largest(sizes: Mapping[Item, float], most: int) -> list[Item]:
    """The names with the largest sizes, at most so many, in their own order; of equal ones the first."""
    kept = set(sorted(sizes, key=sizes.__getitem__, reverse=True)[:most])
    return [name for name in sizes if name in kept]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """All items, or evenly spaced ones where there are more than `most`; the first and the last always."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def listed(texts: Iterable[str], most: int) -> str:
    """The first texts, with an ellipsis where there are more."""
    shown = list(texts)
    return ", ".join([*shown[:most], "..."] if len(shown) > most else shown)


def effect(value: float | None) -> str:
    """An effect size or a gain, always with its sign."""
    return "-" if value is None else f"{value:+.2f}"


def percent(share: float) -> str:
    """A share in per cent: "0 %" only where it is none, "100 %" only where it is all."""
    if 0 < share < 0.005:
        return "< 1 %"
    # Halves go up, as in the page's script.
    return "> 99 %" if 0.995 < share < 1 else f"{int(100 * share + 0.5)} %"


def ending(text: str, width: int) -> str:
    """The same of the text's end, where a completion begins: a long text begins with an ellipsis."""
    line = clean(text, len(text) + 1)
    if len(line) <= width:
        return line
    end = line[1 - width :]
    # A word that is cut goes, where there is another to begin with.
    return f"…{end.partition(' ')[2] or end}"


def capital(text: str) -> str:
    """A text as a sentence begins."""
    return text[:1].upper() + text[1:]


def auroc(row: Mapping[str, Any]) -> str:
    """`0.90 (0.85 to 0.95)`, of a row with auroc, lo and hi; without an interval where it has none."""
    return f"{row['auroc']:.2f}{'' if row['lo'] is None else f' ({interval(row)})'}"


def gain(row: Mapping[str, Any]) -> str:
    """`+0.10 (+0.02 to +0.18)`, of a row with gain, gain_lo and gain_hi."""
    return f"{effect(row['gain'])} ({interval(row, 'gain_', '+.2f')})"


def areas(row: Mapping[str, Any]) -> list[str]:
    """AUROC and its interval, and where there is one the gain and its interval, as cells of a table."""
    cells = [f"{row['auroc']:.2f}", interval(row)]
    return cells if row["gain"] is None else [*cells, effect(row["gain"]), interval(row, "gain_", "+.2f")]


def doubts(names: Iterable[str]) -> list[str]:
    """A footnote for each metric that is not interpretable: its mark is an asterisk."""
    reasons = {name: not_interpretable(name) for name in names}
    return [f"* {clean(name, 60)} is not interpretable: {reason}." for name, reason in reasons.items() if reason]


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
