"""The server: one page, the lines of its table, and the files of the folders in it, for this machine alone.

It answers GET and HEAD, changes nothing, and tells nothing to another site: the name that the browser asked for has to
be this machine's own (a name that somebody else's server points here is not), and what another page asks for is
refused. A report is anybody's: its policy puts it into a sandbox of its own, from which it reaches neither the other
runs nor this page.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import tornado.httpserver
import tornado.iostream
import tornado.web

from bluffscope.errors import InputError
from bluffscope.report.view.catalogue import Catalogue
from bluffscope.report.view.folders import offered, open_inside
from bluffscope.report.view.page import render_page

ADDRESS: Final = "127.0.0.1"
_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine; the port may be another one, that of a tunnel."""
_AHEAD: Final = 0.15
"""Seconds of reading ahead at a time, and of the pause in which a question of the page has its turn."""
_TURN: Final = 0.02
_BLOCK: Final = 256 * 1024
_MOST_HEADERS: Final = 16 * 1024
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_REPORT: Final = (
    "sandbox allow-scripts allow-downloads allow-popups allow-popups-to-escape-sandbox; "
    f"{_NOTHING}; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_FILE: Final = f"sandbox; {_NOTHING}; style-src 'unsafe-inline'; img-src 'self' data:"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    **dict.fromkeys((".json", ".jsonl", ".yaml", ".txt", ".md"), "text/plain; charset=utf-8"),
}
"""Others are downloaded."""


class _Handler(tornado.web.RequestHandler):
    """What every answer has in common; the answer to what is at no address of ours."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in {
            "Content-Security-Policy": _FILE,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if why := refusal(self.request.headers):
            raise tornado.web.HTTPError(403, reason=why)

    async def get(self, *_: str) -> None:
        raise tornado.web.HTTPError(404)

    async def head(self, *_: str) -> None:
        """As GET, whose content is left out."""
        await self.get()

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")

    def compute_etag(self) -> None:
        """None: a second of work on a large file, and nothing is kept anyway."""


class _Page(_Handler):
    def initialize(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    async def get(self, *_: str) -> None:
        page = render_page(self.catalogue.root)
        self.set_header("Content-Security-Policy", page.policy)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        await self.finish(page.content)


class _Rows(_Handler):
    def initialize(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    async def get(self, *_: str) -> None:
        listing = await asyncio.get_running_loop().run_in_executor(None, self.catalogue.listing)
        await self.finish(listing)


class _Files(_Handler):
    def initialize(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    async def get(self, *_: str) -> None:
        # The path as it came: names need not be UTF-8, and an encoded slash is part of a name.
        parts = tuple(unquote(part, errors="surrogateescape") for part in self.request.path.split("/")[2:])
        length = 2 if parts[-2:-1] == ("figures",) else 1
        folder = self.catalogue.folder(parts[:-length])
        name = "/".join(parts[-length:])
        if folder is None or name not in dict(offered(folder)):
            raise tornado.web.HTTPError(404)
        try:
            file = open_inside(self.catalogue.root, parts)
        except OSError as error:
            raise tornado.web.HTTPError(404) from error
        with file, suppress(tornado.iostream.StreamClosedError):  # whoever asked has gone
            size = file.seek(0, 2)
            file.seek(0)
            self._describe(Path(name), size)
            if self.request.method == "HEAD":
                return
            while size > 0 and (block := file.read(min(size, _BLOCK))):
                size -= len(block)
                self.write(block)
                await self.flush()

    def _describe(self, name: Path, size: int) -> None:
        self.set_header("Content-Length", size)
        self.set_header("Content-Type", _TYPES.get(name.suffix, "application/octet-stream"))
        if name.suffix == ".html":
            self.set_header("Content-Security-Policy", _REPORT)
        if name.suffix not in _TYPES:
            self.set_header("Content-Disposition", f'attachment; filename="{name.name}"')


def refusal(headers: Any) -> str | None:
    """Why a request is not answered, in a few words; None where it is.

    Args:
        headers: of the request, by name in any case.
    """
    host = headers.get("Host", "")
    try:
        named = urlsplit(f"//{host}").hostname
    except ValueError:
        named = None
    if named not in _HOSTS:
        return "Not this machine's name"
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        return "Asked for by another site"
    # A link from anywhere may lead here; whoever has it followed learns nothing of what it shows.
    opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not opened:
        return "Asked for by another site"
    return None


def application(catalogue: Catalogue) -> tornado.web.Application:
    """The pages of a catalogue."""
    given = {"catalogue": catalogue}
    return tornado.web.Application(
        [(r"/", _Page, given), (r"/rows\.json", _Rows, given), (r"/files/.*", _Files, given)],
        default_handler_class=_Handler,
        log_function=lambda _: None,
    )


def bound(port: int) -> socket.socket:
    """A socket on loopback.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: the port is taken, or not for this user.
    """
    try:
        place = socket.create_server((ADDRESS, port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "in use" if taken else f"not to be had ({(error.strerror or 'no reason known').lower()})"
        raise InputError(f"--port {port}: {why}; give another, or 0 for any that is free") from error
    place.setblocking(False)
    return place


async def serve(catalogue: Catalogue, place: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until cancelled.

    Args:
        catalogue: what is shown.
        place: see `bound`.
        ready: called once the page can be opened.
    """
    server = tornado.httpserver.HTTPServer(
        application(catalogue),
        max_header_size=_MOST_HEADERS,
        max_body_size=_MOST_HEADERS,
        idle_connection_timeout=300,
        body_timeout=30,
    )
    server.add_socket(place)
    ended = threading.Event()
    reader = threading.Thread(target=_read_ahead, args=(catalogue, ended), daemon=True)
    reader.start()
    try:
        ready()
        await asyncio.Event().wait()
    finally:
        ended.set()
        server.stop()
        await server.close_all_connections()
        await asyncio.to_thread(reader.join)


def _read_ahead(catalogue: Catalogue, ended: threading.Event) -> None:
    """Read all folders while the browser starts, in turn with the page's own questions."""
    while not ended.wait(_TURN) and catalogue.listing(_AHEAD)["pending"]:
        pass
