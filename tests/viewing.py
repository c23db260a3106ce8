"""A folder of runs under `bluffscope view`: served on a free port of loopback, asked byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bluffscope.report.view.catalogue import Catalogue
from bluffscope.report.view.server import bound, serve


@contextlib.contextmanager
def served(root: Path) -> Iterator[int]:
    """Serve a folder from a thread; the port."""
    place = bound(0)
    port = place.getsockname()[1]
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        await serve(Catalogue(root), place, started.set)

    task = loop.create_task(main())

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        assert not thread.is_alive()


def asked(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def sent(port: int, request: bytes) -> bytes:
    """The answer to a request of any bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def rows(port: int) -> list[dict[str, Any]]:
    """The lines of the table, once all are read."""
    while True:
        status, _, content = asked(port, "/rows.json")
        assert status == 200
        listing = json.loads(content)
        if not listing["pending"]:
            return listing["rows"]


def copies(run: Path, root: Path, number: int) -> None:
    """So many runs in a folder, alike but for name, date and size."""
    manifest = json.loads((run / "manifest.json").read_text())
    for place in range(number):
        folder = root / f"set-{place % 5}" / f"run-{place:03d}"
        folder.mkdir(parents=True)
        for file in run.iterdir():
            if file.is_file() and file.name not in ("manifest.json", "report.html"):
                shutil.copy(file, folder)
        (folder / "report.html").write_text(f"<title>run {place}</title>")
        about = {"created": f"2026-03-{1 + place % 28:02d}T10:{place % 60:02d}:00+00:00", "counts": {"measured": place}}
        (folder / "manifest.json").write_text(json.dumps(manifest | about))
