"""Draws docs/images/view.png: `bluffscope view` over a few runs of the demo model, one of them under way.

    python tools/draw_view.py

It measures the bundled pairs in several ways, trains a detector and stops a run halfway, which takes two minutes. It
needs a Chromium.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "view.png"
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, executable  # noqa: E402 (of the tests)
from viewing import rows, served  # noqa: E402

DEMO = ("analyze", "--preset", "demo")
RUNS = {
    "last-token": DEMO,
    "completion-mean": (*DEMO, "--position", "completion-mean", "--seed", "3"),
    "without-saes": (*DEMO, "--sae", "none", "--layers", "all"),
    "forty-pairs": (*DEMO, "--limit", "40"),
}


def main() -> None:
    """Make the runs, and take the picture while the last one is under way."""
    browser = executable()
    if browser is None:
        raise SystemExit("no Chromium or Chrome on this machine")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        for name, options in RUNS.items():
            bluffscope(*options, "--out", str(root / name))
        known = ("--where", "known=true", "--out", str(root / "detectors" / "known"))
        bluffscope("detect", "train", str(root / "completion-mean"), *known)
        with half(root / "interrupted") as run:
            run.send_signal(signal.SIGINT)
        with half(root / "under-way") as run, served(root) as port:
            rows(port)
            page = Browser(browser, Path(scratch) / "profile")
            page.visit(f"http://127.0.0.1:{port}/", 1280, 1080)
            page.picture(TARGET)
            page.close()
            run.kill()


def half(out: Path) -> subprocess.Popen[bytes]:
    """A run of one small shard after the other, once about half of them are done."""
    run = start(*DEMO, "--shard-pairs", "2", "--out", str(out))
    while len(list(out.glob("shards/*.parquet"))) < 40:
        if run.poll() is not None:
            raise SystemExit("the run ended before it was halfway")
        time.sleep(0.02)
    return run


def bluffscope(*words: str) -> None:
    """Run a command to its end."""
    if code := start(*words).wait():
        raise SystemExit(f"bluffscope {words[0]} ended with exit code {code}")


def start(*words: str) -> subprocess.Popen[bytes]:
    """Run a command."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "bluffscope", *words], **silent)


if __name__ == "__main__":
    main()
