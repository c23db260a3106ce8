"""The benchmark as figures: the ladder, batch sizes, growth and sharing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import vl_convert as vlc

from bluffscope.table.atomic import write_bytes

Record = Mapping[str, Any]
Spec = dict[str, Any]

_KEYS: Final = ("step", "strategy", "batch_size", "sharing", "pairs", "seconds", "seconds_per_pair", "peak_bytes")
_BLUE: Final = {"value": "#0072B2"}  # Okabe and Ito's, told apart by everyone
_BY_STRATEGY: Final[Spec] = {
    "field": "strategy",
    "type": "nominal",
    "title": None,
    "scale": {"domain": ["batched", "packed"], "range": ["#D55E00", "#0072B2"]},
}
_LOG: Final = {"type": "log"}


def write_figures(lists: Mapping[str, Sequence[Record]], folder: Path) -> list[Path]:
    """Draw a figure for every list that has records, as PNG and SVG; gives the paths.

    Raises:
        RunFolderError: a file cannot be written.
    """
    draw: dict[str, Callable[[], Spec]] = {
        "ladder": _ladder,
        "batch_sizes": _batch_sizes,
        "growth": _growth,
        "sharing": _sharing,
    }
    written: list[Path] = []
    for name, chart in draw.items():
        if not lists.get(name):
            continue
        rows = [
            {key: record[key] for key in _KEYS}
            | {"batch_size": str(record["batch_size"]), "gigabytes": (record["peak_bytes"] or 0) / 1e9}
            for record in lists[name]
        ]
        spec = {**chart(), "data": {"values": rows}, "config": {"view": {"stroke": None}, "background": "white"}}
        svg = vlc.vegalite_to_svg(spec, vl_version="6.1", allowed_base_urls=[])
        for path, content in (
            (folder / f"{name}.svg", svg.encode()),
            (folder / f"{name}.png", vlc.svg_to_png(svg, scale=2)),
        ):
            write_bytes(path, content)
            written.append(path)
    return written


def _ladder() -> Spec:
    encoding = {
        "y": {"field": "step", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 220}},
        "x": _number("seconds_per_pair", "seconds a pair (logarithmic)", _LOG),
    }
    label = {"field": "label", "type": "nominal"}
    return {
        "title": "The ladder",
        "width": 520,
        "transform": [{"calculate": "format(datum.seconds_per_pair, '.3~g') + ' s'", "as": "label"}],
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "point", "filled": True, "size": 90}, "encoding": {"color": _BLUE}},
            {"mark": {"type": "text", "align": "left", "dx": 8}, "encoding": {"text": label}},
        ],
    }


def _batch_sizes() -> Spec:
    # Numbers as numbers, "auto" behind them.
    order: dict[str, Any] = {
        "field": "batch_size",
        "type": "nominal",
        "title": "pairs a forward",
        "axis": {"labelAngle": 0},
    }
    order["sort"] = {"op": "min", "field": "place"}
    place = "datum.batch_size === 'auto' ? 1e9 : toNumber(datum.batch_size)"
    memory = _number("gigabytes", "peak memory, GB", {"zero": False})
    return {
        "transform": [{"calculate": place, "as": "place"}],
        "hconcat": [
            _lines(order, _number("seconds_per_pair", "seconds a pair"), _BY_STRATEGY),
            _lines(order, memory, _BY_STRATEGY),
        ],
    }


def _growth() -> Spec:
    pairs = _number("pairs", "pairs", _LOG)
    seconds, memory = _number("seconds", "seconds", _LOG), _number("gigabytes", "peak memory, GB")
    return {"hconcat": [_lines(pairs, seconds, _BLUE), _lines(pairs, memory, _BLUE)]}


def _sharing() -> Spec:
    return {
        "width": 520,
        "mark": "bar",
        "encoding": {
            "y": {"field": "sharing", "type": "nominal", "sort": None, "title": "shared prompt"},
            "yOffset": {"field": "strategy", "type": "nominal"},
            "x": _number("seconds_per_pair", "seconds a pair"),
            "color": _BY_STRATEGY,
        },
    }


def _lines(x: Spec, y: Spec, colour: Spec) -> Spec:
    return {"width": 280, "mark": {"type": "line", "point": True}, "encoding": {"x": x, "y": y, "color": colour}}


def _number(field: str, title: str, scale: Spec | None = None) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": scale or {}}
