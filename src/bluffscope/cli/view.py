"""`bluffscope view`: a page over a folder of runs, for this machine alone."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import tyro

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import Command
from bluffscope.errors import InputError

_HIGHEST: Final = 65535


@dataclass(frozen=True, kw_only=True)
class View(Command):
    """Show all runs of a folder in the browser: filter, sort, open reports, follow a run under way.

    Studies and detectors too, however deep they lie. Nothing is written, and only this machine can open the page.
    """

    folder: tyro.conf.Positional[Path] = Path("runs")
    """The folder; it is searched through."""
    port: int = 8577
    """Of the address http://127.0.0.1:PORT; 0 takes any that is free."""
    browser: bool = True
    """Whether a browser opens the page."""

    def execute(self) -> int:
        """Serve until Ctrl-C."""
        root = self.folder.expanduser()
        if not root.is_dir():
            what = "is a file" if root.exists() else "no such folder"
            raise InputError(f"{root}: {what}; give the folder that your runs are in")
        if not 0 <= self.port <= _HIGHEST:
            raise InputError(f"--port {self.port}: expected 0 to {_HIGHEST}")
        if find_spec("tornado") is None:
            raise InputError("it needs Tornado; run: pip install 'bluffscope[view]'")
        # Optional, and polars takes half a second: --help and a mistyped flag should not.
        from bluffscope.report.view.catalogue import Catalogue
        from bluffscope.report.view.server import ADDRESS, bound, serve

        logging.getLogger("tornado").setLevel(logging.ERROR)  # malformed requests are nobody's news
        place = bound(self.port)
        address = f"http://{ADDRESS}:{place.getsockname()[1]}/"

        def ready() -> None:
            output_console().say(f"Runs in {root}: {address} (Ctrl-C ends it)")
            if self.browser and _has_screen():
                threading.Thread(target=_open, args=(address,), daemon=True).start()

        with suppress(KeyboardInterrupt):
            asyncio.run(serve(Catalogue(root.resolve()), place, ready))
        return exit_codes.DONE


def _has_screen() -> bool:
    """Whether a browser has a window to open in: one in a terminal would take the terminal over."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))


def _open(address: str) -> None:
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(address)


COMMAND = View
