"""The benchmark as figures: the ladder, batch sizes, growth and sharing, as charts.json describes them in Vega-Lite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import vl_convert as vlc

from bluffscope.table.atomic import write_bytes

_KEYS: Final = ("step", "strategy", "batch_size", "sharing", "pairs", "seconds", "seconds_per_pair", "peak_bytes")


def write_figures(lists: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> list[Path]:
    """Draw a figure for every list that has records, as PNG and SVG; returns the paths.

    Raises:
        RunFolderError: a file cannot be written.
    """
    charts = json.loads(resources.files("bluffscope.compare.bench").joinpath("charts.json").read_text("utf-8"))
    written: list[Path] = []
    for name, chart in charts.items():
        if not lists.get(name):
            continue
        rows = [
            {key: record[key] for key in _KEYS}
            | {"batch_size": str(record["batch_size"]), "gigabytes": (record["peak_bytes"] or 0) / 1e9}
            for record in lists[name]
        ]
        spec = {**chart, "data": {"values": rows}, "config": {"view": {"stroke": None}, "background": "white"}}
        svg = vlc.vegalite_to_svg(spec, vl_version="6.1", allowed_base_urls=[])
        for suffix, content in (("svg", svg.encode()), ("png", vlc.svg_to_png(svg, scale=2))):
            written.append(folder / f"{name}.{suffix}")
            write_bytes(written[-1], content)
    return written
