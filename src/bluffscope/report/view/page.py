"""The page over all runs: one file whose script asks this server for the lines, and nobody for anything else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import jinja2

from bluffscope import __version__
from bluffscope.report.labels import clean

_POLICY: Final = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Page(NamedTuple):
    """The page, and what it may do."""

    content: bytes
    policy: str
    """Its Content-Security-Policy."""


def render_page(root: Path) -> Page:
    """The page of a folder; it looks as reports do."""
    style, script = _style(), _asset("view", "templates", "view.js")
    environment = jinja2.Environment(
        loader=jinja2.BaseLoader(), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    text = environment.from_string(_asset("view", "templates", "view.html.j2")).render(
        folder=clean(root.name or str(root), 80), style=style, script=script, version=__version__
    )
    return Page(text.encode("utf-8", "backslashreplace"), _POLICY.format(script=_digest(script), style=_digest(style)))


def _style() -> str:
    return f"{_asset('templates', 'report.css')}\n{_asset('view', 'templates', 'view.css')}"


@cache
def _asset(*names: str) -> str:
    return files("bluffscope.report").joinpath(*names).read_text("utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
