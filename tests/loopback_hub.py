"""A hub on 127.0.0.1 that speaks enough of the Hugging Face API for downloads, refusals and interruptions.

Commands that know no other hub are run in processes of their own; what is cheap is asked of it in this process.

It always ends: every connection has a time limit, its threads are daemons, and closing it waits for none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, hf_api

TOKEN = "hf_" + "plantedSecret0123456789"
SECONDS = 10
"""A connection that is silent for so long is closed."""
_FILE = re.compile(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_API = re.compile(r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)(?:/(?:revision|tree)/([^/]+))?(.*)")


@dataclass(frozen=True)
class Request:
    """What came."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class LoopbackHub:
    """The server; use it as a context manager."""

    repositories: dict[str, Path] = field(default_factory=dict)
    """Folder of each repository's files, on the branch main; a dataset's name begins with datasets/."""
    private: dict[str, str] = field(default_factory=dict)
    """The token that a repository asks for."""
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and error code with which a repository is refused to all."""
    breaks: dict[str, list[int]] = field(default_factory=dict)
    """By repository/file: after how many bytes each of the next downloads of it breaks off."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> LoopbackHub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(SECONDS)
        self._server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def commit(self, repository: str) -> str:
        """The only commit of a repository."""
        return hashlib.sha1(repository.encode(), usedforsecurity=False).hexdigest()

    def downloads(self, file: str) -> list[Request]:
        """The GET requests for a file, by the end of its path."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(file)]


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    timeout = SECONDS  # of the connection, as socketserver has it

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), token))
        match = _FILE.fullmatch(path) or _API.fullmatch(path)
        if match is None:
            return self._send(200, b"a hub")
        repository, revision, rest = match.groups()
        if repository in self.hub.refusals:
            return self._refuse(*self.hub.refusals[repository])
        if repository not in self.hub.repositories:
            return self._refuse(401 if token is None else 404, "RepoNotFound")
        if (asked := self.hub.private.get(repository)) and token != f"Bearer {asked}":
            return self._refuse(401 if token is None else 403, "GatedRepo")
        if revision not in (None, "main", self.hub.commit(repository)):
            return self._refuse(404, "RevisionNotFound")
        if path.startswith("/api/"):
            return self._api(repository, rest)
        return self._file(repository, rest)

    def _api(self, repository: str, rest: str) -> None:
        folder = self.hub.repositories[repository]
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        if "/tree/" not in self.path:
            siblings = [{"rfilename": name} for name in files]
            described = {"id": repository, "sha": self.hub.commit(repository), "siblings": siblings, "tags": []}
            return self._send(200, json.dumps(described).encode(), "application/json")
        below = {name: path for name, path in files.items() if not rest or name.startswith(f"{rest.strip('/')}/")}
        if rest.strip("/") and not below:
            return self._refuse(404, "EntryNotFound")
        entries = [
            {
                "type": "file",
                "path": name,
                "size": path.stat().st_size,
                "oid": _etag(path)[:40],
                "lfs": {"oid": _etag(path), "size": path.stat().st_size, "pointerSize": 100},
            }
            for name, path in below.items()
        ]
        return self._send(200, json.dumps(entries).encode(), "application/json")

    def _file(self, repository: str, name: str) -> None:
        path = self.hub.repositories[repository] / name
        if not path.is_file():
            self._refuse(404, "EntryNotFound", repository)
            return
        content = path.read_bytes()
        start, end = 0, len(content)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(asked[1]), min(end, int(asked[2]) + 1) if asked[2] else end
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", self.hub.commit(repository))
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{_etag(path)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            breaks = self.hub.breaks.get(f"{repository}/{name}")
            self.wfile.write(content[start:end][: breaks.pop(0)] if breaks else content[start:end])

    def _refuse(self, status: int, code: str, repository: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        if repository:
            self.send_header("X-Repo-Commit", self.hub.commit(repository))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def use_here(hub: LoopbackHub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Have this process know this hub alone, as long as the patch lasts; what it downloads goes into `cache`."""
    for name in ("NO_PROXY", "no_proxy"):
        patch.setenv(name, "*")
    of_a_file = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "ENDPOINT", hub.url)
    # Clients that were made earlier keep the address of then.
    patch.setattr(hf_api.api, "endpoint", hub.url)
    patch.setattr("transformers.utils.hub._hf_api", None)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + of_a_file)


# Every command in one process: imports take seconds, and the hub's address is read at import.
SCRIPT = """
import contextlib, io, json, sys, urllib.request, bluffscope.api.closing
from bluffscope.cli.main import main
bluffscope.api.closing._report = lambda *_: None
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """Of a process that knows this hub and no other, and waits for nothing longer than seconds."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING")) and name.lower() not in ("http_proxy", "https_proxy", "all_proxy")
    }
    limits = {"HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DISABLE_XET": "1"}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", "no_proxy": "*", "OMP_NUM_THREADS": "2"}
    return kept | limits | quiet | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint} | more


def calls(runs: dict[str, list[str]], home: Path, endpoint: str, **more: str) -> dict[str, tuple[int, str, str]]:
    """Exit code, stdout and stderr of each command, by name."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(list(runs.values()))],
        capture_output=True,
        text=True,
        timeout=150,
        env=environment(home, endpoint, **more),
        cwd=home.parent,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {name: tuple(line) for name, line in zip(runs, lines, strict=True)}
