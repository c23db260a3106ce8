"""Draws docs/images/view.png: `bluffscope view` over a few runs of the demo model, one of them under way.

    python tools/draw_view.py

It measures the bundled pairs in several ways, trains a detector and stops a run halfway, which takes two minutes. It
needs a Chromium. The picture carries the headings and the line of one run, by which `tests/test_pictures.py` holds it
to be current.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from described_png import described

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "view.png"
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, executable  # noqa: E402 (of the tests)
from viewing import rows, served  # noqa: E402

DEMO = ("analyze", "--preset", "demo")
RUN = "last-token"
RUNS = {
    RUN: DEMO,
    "completion-mean": (*DEMO, "--position", "completion-mean", "--seed", "3"),
    "without-saes": (*DEMO, "--sae", "none", "--layers", "all"),
    "forty-pairs": (*DEMO, "--limit", "40"),
}
HALF, LIMIT = 40, 300
"""Shards of a run of which the picture is taken; seconds that any command may take."""
LINE = """(() => {
  const parts = (row) => [...row.cells].flatMap((cell) => cell.innerText.split("\\n")).map((part) => part.trim());
  const row = [...document.querySelectorAll("#rows tr")].find((one) => one.cells[0].innerText.startsWith("RUN"));
  return [parts(document.getElementById("heads")), parts(row)].map((all) => all.join(" | ")).join("\\n");
})()"""
LOG = Path(tempfile.gettempdir()) / f"draw_view-{os.getpid()}.log"
RUNNING = "document.querySelectorAll('#rows .badge.running').length"


def main() -> None:
    """Make the runs, and take the picture while the last one is under way."""
    if (chromium := executable()) is None:
        raise SystemExit("no Chromium or Chrome on this machine")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        for name, options in RUNS.items():
            bluffscope(*options, "--out", str(root / name))
        known = ("--where", "known=true", "--allow-weak", "--out", str(root / "detectors" / "known"))
        bluffscope("detect", "train", str(root / "completion-mean"), *known)
        with half(root / "interrupted") as run:
            run.send_signal(signal.SIGINT)
        with half(root / "under-way") as run:
            run.send_signal(signal.SIGSTOP)  # it holds still for its picture, however busy the machine is
            try:
                said = drawn(root, chromium, Path(scratch) / "profile")
            finally:
                run.kill()
    print(f"wrote {TARGET.name}: {said}")


def drawn(root: Path, chromium: str, profile: Path) -> str:
    """Take the picture; what it carries."""
    with served(root) as port:
        rows(port)
        page = Browser(chromium, profile)
        try:
            page.visit(f"http://127.0.0.1:{port}/", 1280, 1180)
            if page.run(RUNNING) != 1:
                raise SystemExit("no run is shown as running")
            page.picture(TARGET)
            said = page.run(LINE.replace("RUN", RUN))
        finally:
            page.close()
    TARGET.write_bytes(described(TARGET.read_bytes(), said))
    return said


def half(out: Path) -> subprocess.Popen[bytes]:
    """A run of one small shard after the other, once about half of them are done."""
    run = start(*DEMO, "--shard-pairs", "2", "--out", str(out))
    end = time.monotonic() + LIMIT
    while len(list(out.glob("shards/*.parquet"))) < HALF:
        if run.poll() is not None or time.monotonic() > end:
            run.kill()
            raise SystemExit(f"the run {out.name} was not halfway after {LIMIT} s, or ended before it was: {last()}")
        time.sleep(0.02)
    return run


def bluffscope(*words: str) -> None:
    """Run a command to its end."""
    run = start(*words)
    try:
        code = run.wait(LIMIT)
    except subprocess.TimeoutExpired:
        run.kill()
        code = f"none after {LIMIT} s"
    if code:
        raise SystemExit(f"bluffscope {' '.join(words)}: exit code {code}: {last()}")


def start(*words: str) -> subprocess.Popen[bytes]:
    """Run a command; what it prints goes into a file, since nobody reads a pipe meanwhile."""
    with LOG.open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "bluffscope", *words], stdout=log, stderr=log)


def last() -> str:
    """The last line that the last command printed."""
    return (LOG.read_text("utf-8", "replace").strip().splitlines() or ["it printed nothing"])[-1]


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, OSError) as error:  # of the browser
        raise SystemExit(f"{TARGET.name} was not drawn: {error or type(error).__name__}") from error
    finally:
        LOG.unlink(missing_ok=True)
