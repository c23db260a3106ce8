"""A page of what detectors carry over from one data set to another: matrices, and all numbers in a table.

It has no script and makes no request: the matrices are the report's chart, drawn beforehand.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final, NamedTuple

import jinja2
import polars as pl
from markupsafe import Markup

from bluffscope import __version__
from bluffscope.detectors.classifiers import called
from bluffscope.host.terminal import interval
from bluffscope.report.bundle import vl_convert
from bluffscope.report.crossings import clause, sentence
from bluffscope.report.detector_charts import CELL, carried
from bluffscope.report.figures import drawn_svg, labelled
from bluffscope.report.labels import capital, clean, effect
from bluffscope.report.panels import panel
from bluffscope.table.exports import safe_for_spreadsheets

_NAMES: Final = 130
"""Width of the names beside a matrix, in pixels."""


class _Picture(NamedTuple):
    """A matrix of one detector."""

    key: str
    name: str
    title: str
    drawn: Markup
    """SVG."""
    saved: dict[str, str]
    """Addresses of what can be saved, by kind."""
    width: float
    """In pixels, about."""


def transfer_titles(found: pl.DataFrame) -> dict[str, str]:
    """Title of each detector's matrix: what it finds and what carries over.

    Args:
        found: `bluffscope.detectors.transfer.CARRIED_SCHEMA`.
    """
    return {
        str(name): f"{capital(clean(called(str(name)), 40))}: {clause(rows)}"
        for (name,), rows in found.group_by("detector", maintain_order=True)
        if rows["auroc"].count()
    }


def transfer_table(found: pl.DataFrame) -> Markup:
    """All numbers as a table in HTML.

    Args:
        found: `bluffscope.detectors.transfer.CARRIED_SCHEMA`.
    """
    environment = jinja2.Environment(loader=jinja2.BaseLoader(), autoescape=True, undefined=jinja2.StrictUndefined)
    # Every text in it is escaped.
    return Markup(
        environment.from_string(_asset("transfer_table.html.j2")).render(rows=[_shown(row) for row in found.to_dicts()])
    )


def render_transfer_page(found: pl.DataFrame, model: str) -> bytes:
    """The page as UTF-8.

    Args:
        found: `bluffscope.detectors.transfer.CARRIED_SCHEMA`.
        model: whose insides the detectors read.

    Raises:
        InputError: the package that draws is not installed.
    """
    environment = jinja2.Environment(loader=jinja2.BaseLoader(), autoescape=True, undefined=jinja2.StrictUndefined)
    crossed = found.filter(pl.col("train") != pl.col("test"))["verdict"]
    page = environment.from_string(_asset("transfer.html.j2")).render(
        model=clean(model.rstrip("/").rpartition("/")[2] if model.startswith("/") else model, 60),
        sentence=sentence(found),
        kind="some" if crossed.is_in(["carries over", "partly"]).any() else "nothing",
        saved="text" not in found["detector"],
        pictures=list(_pictures(found)),
        table=transfer_table(found),
        csv=_address("text/csv", safe_for_spreadsheets(found).write_csv().encode("utf-8", "backslashreplace")),
        version=__version__,
        style=Markup(_asset("report.css")),
    )
    # A lone surrogate, which UTF-8 cannot encode, becomes an escape instead of an error.
    return page.encode("utf-8", "backslashreplace")


def _pictures(found: pl.DataFrame) -> Iterator[_Picture]:
    """What looks inside first, text alone last."""
    names = sorted(transfer_titles(found).items(), key=lambda item: item[0] == "text")
    short = labelled(found, ("train", "test"), 16)
    for name, title in names:
        rows = short.filter(detector=name)
        width = CELL * rows["test"].n_unique()
        spec = panel(carried(), rows, title, width)
        whole = drawn_svg(spec | {"title": {"text": _lines(title), "anchor": "start"}})
        bare = drawn_svg({key: value for key, value in spec.items() if key != "title"})
        png = vl_convert("--html").svg_to_png(whole, scale=2)
        saved = {"png": _address("image/png", png), "svg": _address("image/svg+xml", whole.encode())}
        # Vega escapes the texts that it draws.
        yield _Picture(name, called(name), title, Markup(bare), saved, width + _NAMES)


def _lines(title: str, width: int = 64) -> list[str]:
    """A title in lines; spaces at their ends keep names apart from those that every object has."""
    lines = [""]
    for word in clean(title, 400).split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return lines


def _shown(row: dict[str, Any]) -> dict[str, str]:
    def number(name: str) -> str:
        return "" if row[name] is None else f"{row[name]:.2f}"

    crossed = row["train"] != row["test"]
    return {
        "detector": called(row["detector"]),
        "train": clean(row["train"], 80),
        "test": clean(row["test"], 80),
        "reason": "" if row["reason"] is None else clean(row["reason"], 200),
        "auroc": number("auroc"),
        "ends": interval(row),
        "own": number("own"),
        "loss": effect(row["loss"]) if crossed and row["loss"] is not None else "",
        "text": number("text"),
        "gain": "" if row["gain"] is None else effect(row["gain"]),
        "verdict": row["verdict"] or "",
    }


def _asset(name: str) -> str:
    return (files("bluffscope.report") / "templates" / name).read_text("utf-8")


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
