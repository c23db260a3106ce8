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
_KEYS = ("step", "strategy", "batch_size", "sharing", "pairs", "seconds", "seconds_per_pair", "peak_bytes")
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by everyone


def write_figures(lists: Mapping[str, Sequence[Record]], folder: Path) -> list[Path]:
    """Draw a figure for every list that has records, as PNG and SVG; gives the paths.

    Raises:
        RunFolderError: a file cannot be written.
    """
    draw: dict[str, Callable[[pl.DataFrame], Any]] = {
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
        keys = ("step", "strategy", "batch_size", "sharing", "pairs", "seconds", "seconds_per_pair", "peak_bytes")
        table = pl.DataFrame(
            [{key: str(r[key]) if key == "batch_size" else r[key] for key in keys} for r in lists[name]]
        )
        spec = chart(table).configure_view(stroke=None).to_dict()
        svg = vlc.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
        for path, content in (
            (folder / f"{name}.svg", svg.encode()),
            (folder / f"{name}.png", vlc.svg_to_png(svg, scale=2)),
        ):
            write_bytes(path, content)
            written.append(path)
    return written


def _ladder(table: pl.DataFrame) -> Any:
    table = table.with_columns(label=pl.col("seconds_per_pair").map_elements(_label, pl.String))
    base = alt.Chart(table).encode(
        y=alt.Y("step:N", sort=None, title=None, axis=alt.Axis(labelLimit=220)),
        x=alt.X("seconds_per_pair:Q", scale=alt.Scale(type="log"), title="seconds a pair (logarithmic)"),
    )
    bars = base.mark_point(filled=True, size=90, color=_BLUE)
    return (bars + base.mark_text(align="left", dx=8).encode(text="label:N")).properties(width=520, title="The ladder")


def _batch_sizes(table: pl.DataFrame) -> Any:
    sizes = sorted(table["batch_size"].unique().to_list(), key=lambda size: (size == "auto", size.zfill(9)))
    table = table.with_columns(gigabytes=pl.col("peak_bytes") / 1e9)
    x = alt.X("batch_size:N", sort=sizes, title="pairs a forward", axis=alt.Axis(labelAngle=0))
    color = _by_strategy()
    base = alt.Chart(table)
    rate = base.mark_line(point=True).encode(x=x, y=alt.Y("seconds_per_pair:Q", title="seconds a pair"), color=color)
    memory = base.mark_line(point=True).encode(
        x=x, y=alt.Y("gigabytes:Q", title="peak memory, GB", scale=alt.Scale(zero=False)), color=color
    )
    return rate.properties(width=280) | memory.properties(width=280)


def _growth(table: pl.DataFrame) -> Any:
    table = table.with_columns(gigabytes=pl.col("peak_bytes") / 1e9)
    x = alt.X("pairs:Q", scale=alt.Scale(type="log"), title="pairs")
    base = alt.Chart(table).mark_line(point=True, color=_BLUE)
    time = base.encode(x=x, y=alt.Y("seconds:Q", scale=alt.Scale(type="log"), title="seconds"))
    memory = base.encode(x=x, y=alt.Y("gigabytes:Q", title="peak memory, GB"))
    return time.properties(width=280) | memory.properties(width=280)


def _sharing(table: pl.DataFrame) -> Any:
    return (
        alt.Chart(table)
        .mark_bar()
        .encode(
            y=alt.Y("sharing:N", sort=None, title="shared prompt"),
            yOffset="strategy:N",
            x=alt.X("seconds_per_pair:Q", title="seconds a pair"),
            color=_by_strategy(),
        )
        .properties(width=520)
    )


def _by_strategy() -> alt.Color:
    scale = alt.Scale(domain=["batched", "packed"], range=[_ORANGE, _BLUE])
    return alt.Color("strategy:N", scale=scale, title=None)


def _label(seconds: float) -> str:
    return f"{seconds:.3g} s"
