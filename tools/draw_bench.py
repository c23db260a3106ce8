"""Draws the pictures of docs/speed.md from the tables of that page, as `bluffscope bench` draws what it measured.

    python tools/draw_bench.py

Each picture carries its table's rows, by which `tests/test_pictures.py` holds it to be current.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from bluffscope.compare.bench.figures import write_figures
from described_png import described

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
TABLES: Final = {
    "ladder": ("The ladder, ", {"step": "step", "s a pair": "seconds_per_pair"}),
    "batch_sizes": (
        "Pairs a forward, ",
        {"strategy": "strategy", "batch size": "batch_size", "s a pair": "seconds_per_pair", "peak GB": "peak_bytes"},
    ),
    "sharing": (
        "Prefix sharing, ",
        {"shared prompt": "sharing", "strategy": "strategy", "s a pair": "seconds_per_pair"},
    ),
}
"""How the table of each figure begins, and its columns by the names that figures know."""
_RECORD: Final = ("step", "strategy", "batch_size", "sharing", "pairs", "seconds", "seconds_per_pair", "peak_bytes")


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a table of the page."""
    title, columns = TABLES[name]
    lines = (DOCS / "speed.md").read_text("utf-8").split(f"\n{title}")[1].split("└")[0].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines if line[:1] in "┃│"
    ]
    found: list[dict[str, Any]] = []
    for row in (dict(zip(cells[0], line, strict=True)) for line in cells[1:]):
        if not row["s a pair"]:  # the second line of a name
            found[-1][next(iter(columns.values()))] += f" {next(iter(row.values()))}"
            continue
        known = {called: row[column] for column, called in columns.items()}
        known["seconds_per_pair"] = float(known["seconds_per_pair"])
        if "peak_bytes" in known:
            known["peak_bytes"] = 1e9 * float(known["peak_bytes"])
        found.append(dict.fromkeys(_RECORD) | known)
    return found


def said(name: str) -> str:
    """What the picture of a table carries."""
    return json.dumps([{key: value for key, value in row.items() if value is not None} for row in rows(name)])


def target(name: str) -> Path:
    """The picture of a table."""
    return DOCS / "images" / f"bench-{name}.png"


def main() -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as scratch:
        write_figures({name: rows(name) for name in TABLES}, Path(scratch))
        for name in TABLES:
            target(name).write_bytes(described((Path(scratch) / f"{name}.png").read_bytes(), said(name)))
            print(f"wrote {target(name).name}: {len(rows(name))} rows")


if __name__ == "__main__":
    main()
