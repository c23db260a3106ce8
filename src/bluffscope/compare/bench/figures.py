"""The benchmark as figures: the ladder, batch sizes, growth and sharing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import vl_convert as vlc

from bluffscope.table.atomic import write_bytes

Record = Mapping[str, Any]
_KEYS = ("step", "strategy", "sharing", "pairs", "seconds", "seconds_per_pair", "peak_bytes")
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by everyone


def write_figures(lists: Mapping[str, Sequence[Record]], folder: Path) -> list[Path]:
    """Draw a figure for every list that has records, as PNG and SVG; gives the paths.

    Raises:
        RunFolderError: a file cannot be written.
    """
    draw: dict[str, Callable[[alt.Chart, pl.DataFrame], Any]] = {
        "ladder": _ladder,
        "batch_sizes": _batch_sizes,
        "growth": _growth,
        "sharing": _sharing,
    }
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    written: list[Path] = []
    for name, chart in draw.items():
        if not lists.get(name):
            continue
        rows = [{key: r[key] for key in _KEYS} | {"batch_size": str(r["batch_size"])} for r in lists[name]]
        table = pl.DataFrame(rows).with_columns(gigabytes=pl.col("peak_bytes") / 1e9)
        spec = chart(alt.Chart(table), table).configure_view(stroke=None).to_dict()
        svg = vlc.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
        for path, content in (
            (folder / f"{name}.svg", svg.encode()),
            (folder / f"{name}.png", vlc.svg_to_png(svg, scale=2)),
        ):
            write_bytes(path, content)
            written.append(path)
    return written


def _ladder(chart: alt.Chart, _: pl.DataFrame) -> Any:
    base = chart.encode(
        y=alt.Y("step:N", sort=None, title=None, axis=alt.Axis(labelLimit=220)),
        x=alt.X("seconds_per_pair:Q", scale=alt.Scale(type="log"), title="seconds a pair (logarithmic)"),
    )
    bars = base.mark_point(filled=True, size=90, color=_BLUE)
    labels = base.transform_calculate(label="format(datum.seconds_per_pair, '.3~g') + ' s'").encode(text="label:N")
    return (bars + labels.mark_text(align="left", dx=8)).properties(width=520, title="The ladder")


def _batch_sizes(chart: alt.Chart, table: pl.DataFrame) -> Any:
    sizes = sorted(table["batch_size"].unique().to_list(), key=lambda size: (size == "auto", size.zfill(9)))
    line = chart.mark_line(point=True).encode(
        x=alt.X("batch_size:N", sort=sizes, title="pairs a forward", axis=alt.Axis(labelAngle=0)), color=_by_strategy()
    )
    rate = line.encode(y=alt.Y("seconds_per_pair:Q", title="seconds a pair"))
    memory = line.encode(y=alt.Y("gigabytes:Q", title="peak memory, GB", scale=alt.Scale(zero=False)))
    return rate.properties(width=280) | memory.properties(width=280)


def _growth(chart: alt.Chart, _: pl.DataFrame) -> Any:
    line = chart.mark_line(point=True, color=_BLUE).encode(
        x=alt.X("pairs:Q", scale=alt.Scale(type="log"), title="pairs")
    )
    time = line.encode(y=alt.Y("seconds:Q", scale=alt.Scale(type="log"), title="seconds"))
    memory = line.encode(y=alt.Y("gigabytes:Q", title="peak memory, GB"))
    return time.properties(width=280) | memory.properties(width=280)


def _sharing(chart: alt.Chart, _: pl.DataFrame) -> Any:
    bars = chart.mark_bar().encode(
        y=alt.Y("sharing:N", sort=None, title="shared prompt"),
        yOffset="strategy:N",
        x=alt.X("seconds_per_pair:Q", title="seconds a pair"),
        color=_by_strategy(),
    )
    return bars.properties(width=520)


def _by_strategy() -> alt.Color:
    scale = alt.Scale(domain=["batched", "packed"], range=[_ORANGE, _BLUE])
    return alt.Color("strategy:N", scale=scale, title=None)
