"""Draws docs/images/report.png: the first screen of the demo's report, in a headless Chromium.

    python tools/draw_report.py [--run DIR]

Without --run it measures the bundled pairs with the embedded model, as `make demo` does. The picture carries the page's
sentence, by which `tests/report/test_picture.py` holds it to be current.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import tyro

from bluffscope.report.write import write_report

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "report.png"
WIDTH, MARGIN = 1280, 12
_KEY = b"Description\0\0\0\0\0"
"""Of an iTXt chunk: keyword, not compressed, no language."""


def main(run: Path | None = None) -> None:
    """Open the report and keep its first screen.

    Args:
        run: the folder of a run on the demo.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Browser, executable  # the tests' own, so that no package is needed for pictures

    if (chromium := executable()) is None:
        raise SystemExit("no Chromium or Chrome on this machine")
    with tempfile.TemporaryDirectory() as scratch:
        if run is None:
            words = [sys.executable, "-m", "bluffscope", "analyze", "--preset", "demo", "--out", "demo"]
            subprocess.run(words, cwd=scratch, check=True, timeout=600)
            run = Path(scratch) / "demo"
            page = run / "report.html"  # as the command wrote it, with its own path
        else:
            page = write_report(run).path
        browser = Browser(chromium, Path(scratch) / "profile")
        try:
            browser.ask("Emulation.setScrollbarsHidden", hidden=True)
            browser.open(page, WIDTH)
            height = browser.run("document.getElementById('answer').getBoundingClientRect().bottom")
            browser.open(page, WIDTH, int(height) + MARGIN)
            browser.picture(TARGET)
            sentence = browser.run("document.querySelector('.sentence').textContent")
        finally:
            browser.close()
    TARGET.write_bytes(described(TARGET.read_bytes(), sentence))
    print(f"wrote {TARGET.name}: {sentence}")


def described(picture: bytes, text: str) -> bytes:
    """A PNG that carries a text behind its header."""
    content = b"iTXt" + _KEY + text.encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:33] + chunk + picture[33:]


def description(picture: bytes) -> str:
    """The text that such a PNG carries; empty where there is none."""
    found = re.search(re.escape(b"iTXt" + _KEY), picture)
    if found is None:
        return ""
    (length,) = struct.unpack(">I", picture[found.start() - 4 : found.start()])
    return picture[found.end() : found.start() + 4 + length].decode()


if __name__ == "__main__":
    tyro.cli(main)
