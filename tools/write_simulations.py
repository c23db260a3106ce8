"""The simulations of docs/statistics.md: tables and picture, from what the tools wrote that simulate.

python tools/simulate_verdicts.py --json docs/assets/simulated_verdicts.json
python tools/simulate_detectors.py --json docs/assets/simulated_detectors.json
python tools/write_simulations.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import altair as alt
import polars as pl
import vl_convert as vlc

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
CELLS: Final = {name: DOCS / "assets" / f"simulated_{name}.json" for name in ("verdicts", "detectors")}
"""Files of cells, by the marks between which their tables stand."""
PAGE: Final = DOCS / "statistics.md"
PICTURE: Final = DOCS / "images" / "verdicts.svg"


def tables(cells: list[dict[str, Any]]) -> str:
    """All tables in Markdown."""
    lines: list[str] = []
    for title in dict.fromkeys(cell["table"] for cell in cells):
        inside = [cell for cell in cells if cell["table"] == title]
        columns = list(dict.fromkeys(cell["column"] for cell in inside))
        shown = {(cell["row"], cell["column"]): cell["shown"] for cell in inside}
        unit = "" if inside[0]["truth"] is not None else ", %"
        lines += ["", f"**{title[0].upper()}{title[1:]}**{unit}", "", f"| | {' | '.join(columns)} |"]
        lines.append(f"|---|{'---:|' * len(columns)}")
        for row in dict.fromkeys(cell["row"] for cell in inside):
            lines.append(f"| {row} | {' | '.join(shown.get((row, column), '') for column in columns)} |")
    return "\n".join(lines)


def page(text: str, cells: dict[str, list[dict[str, Any]]]) -> str:
    """The page with the tables between their marks."""
    for name, own in cells.items():
        start, end = f"<!-- simulated {name} -->\n", f"<!-- /simulated {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}{tables(own)}\n\n{end}{rest.split(end)[1]}"
    return text


def stored() -> dict[str, list[dict[str, Any]]]:
    """All cells, by the names of `CELLS`."""
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in CELLS.items()}


def drawn(cells: list[dict[str, Any]]) -> str:
    """The picture as SVG."""
    return vlc.vegalite_to_svg(picture(cells).to_dict(), allowed_base_urls=[])


def picture(cells: list[dict[str, Any]]) -> alt.VConcatChart:
    """Shares of false findings: without an effect, and where length is all there is."""
    rows = pl.DataFrame(cells, infer_schema_length=None).with_columns(percent=100 * pl.col("share"))
    parts = [
        ("no effect: adj_p < .05", "no effect: adjusted p < .05", 20),
        ("no effect: families with `separates`", "no effect: families of 20 with a finding", 20),
        ("length alone, 0.5 sd: the straight line's p < .05", "length alone: p < .05, straight line", 100),
        ("length alone, 0.5 sd: adj_p < .05", "length alone: p < .05, this model", 100),
    ]
    charts = [_dots(rows.filter(pl.col("table") == table), title, most) for table, title, most in parts]
    pairs = alt.vconcat(alt.hconcat(*charts[:2]), alt.hconcat(*charts[2:]))
    return pairs.configure_view(stroke=None).configure(font="Verdana, Arial, sans-serif", background="white")


def _dots(rows: pl.DataFrame, title: str, most: int) -> alt.LayerChart:
    x = alt.X("percent:Q", title="%", scale=alt.Scale(domain=[0, most], clamp=True))
    dots = alt.Chart(rows.select("row", "column", "percent")).mark_point(filled=True, size=45, opacity=0.7)
    line = alt.Chart(pl.DataFrame({"percent": [5]})).mark_rule(strokeDash=[4, 3]).encode(x="percent:Q")
    y = alt.Y("row:N", title=None, sort=rows["row"].unique(maintain_order=True).to_list())
    return (
        alt.layer(line, dots.encode(x=x, y=y, color=alt.Color("column:N", title=None, sort=None)))
        .properties(title=title, width=190, height=alt.Step(20))
        .resolve_scale(color="independent")
    )


def main() -> None:
    """Write page and picture."""
    cells = stored()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), cells), encoding="utf-8")
    PICTURE.write_text(drawn(cells["verdicts"]), encoding="utf-8")


if __name__ == "__main__":
    main()
