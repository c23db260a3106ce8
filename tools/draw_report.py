"""Draws the first screens of two reports in a headless Chromium: docs/images/report.png and own-answers.png.

    python tools/draw_report.py [--run DIR]     # the demo, in README
    python tools/draw_report.py --study DIR     # the study of docs/own-answers.md, which takes half an hour

Without --run it measures the bundled pairs with the embedded model, as `make demo` does. Each picture carries the
page's sentences, by which `tests/test_pictures.py` holds it to be current.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

from bluffscope.report.write import write_report
from described_png import described

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
REPORT, STUDY = IMAGES / "report.png", IMAGES / "own-answers.png"
WIDTH, MARGIN = 1280, 12
_SAID = "[...document.querySelectorAll('{}')].map(one => one.textContent).join(' ')"


def main(run: Path | None = None, study: Path | None = None) -> None:
    """Open the report and keep its first screen.

    Args:
        run: the folder of a run on the demo.
        study: the folder that `bluffscope study` wrote.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from browser import Browser, executable  # the tests' own, so that no package is needed for pictures

    if (chromium := executable()) is None:
        raise SystemExit("no Chromium or Chrome on this machine")
    target, sentences = (REPORT, "#answer .sentence") if study is None else (STUDY, "#answer .own li")
    with tempfile.TemporaryDirectory() as scratch:
        if study is not None:
            shutil.copytree(study, Path(scratch) / "own")  # the page's commands name no path of this machine
            with contextlib.chdir(scratch):
                page = write_report(Path("own")).path.resolve()
        elif run is not None:
            page = write_report(run).path
        else:
            words = [sys.executable, "-m", "bluffscope", "analyze", "--preset", "demo", "--out", "demo"]
            subprocess.run(words, cwd=scratch, check=True, timeout=600)
            page = Path(scratch) / "demo" / "report.html"  # as the command wrote it, with its own path
        browser = Browser(chromium, Path(scratch) / "profile")
        try:
            browser.ask("Emulation.setScrollbarsHidden", hidden=True)
            browser.open(page, WIDTH)
            height = browser.run("document.getElementById('answer').getBoundingClientRect().bottom")
            browser.open(page, WIDTH, int(height) + MARGIN)
            said = browser.run(_SAID.format(sentences))
            if not said:
                raise SystemExit(f"{page}: not the page of a study over a model's own answers")
            browser.picture(target)
        finally:
            browser.close()
    target.write_bytes(described(target.read_bytes(), said))
    print(f"wrote {target.name}: {said}")


if __name__ == "__main__":
    tyro.cli(main)
