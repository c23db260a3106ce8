"""Draws docs/images/watch.svg: what `bluffscope detect watch` shows in a terminal, with the demo's detector.

    python tools/draw_watch.py [--detector DIR] [--check]

Without --detector it measures the bundled pairs with the embedded model and trains one on those that it knows, as
docs/detect.md does; that takes half a minute. --check compares the picture with the one that is there.
"""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path

import tyro

import bluffscope
from bluffscope.cli import watch
from bluffscope.cli.console import LastingConsole
from bluffscope.cli.main import main as command

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "watch.svg"
PROMPTS = ("The capital of France is", "The capital of Italy is", "The capital of Japan is")
FLAGS = ("--temperature", "1.2", "--seed", "3", "--max-new-tokens", "3")


def main(detector: Path | None = None, check: bool = False) -> None:
    """Write with the detector, and keep the terminal as SVG.

    Args:
        detector: its folder.
        check: change nothing; fail where the picture is out of date.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if detector is None:
            run, detector = Path(scratch) / "demo", Path(scratch) / "known"
            bluffscope.analyze("bluff200", preset="demo", out=str(run), figures=False)
            command(["detect", "train", str(run), "--out", str(detector), "--where", "known=true"])
        picture = drawn(detector)
    if not check:
        TARGET.write_text(picture, encoding="utf-8")
    elif picture != TARGET.read_text(encoding="utf-8"):
        raise SystemExit(f"{TARGET.name} is out of date: run tools/draw_watch.py")
    print(f"{TARGET.name} is current" if check else f"wrote {TARGET.name}")


def drawn(detector: Path) -> str:
    """The picture, with a detector of the embedded model."""
    console = LastingConsole(
        file=io.StringIO(), record=True, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    words = " ".join(f'"{prompt}"' for prompt in PROMPTS)
    console.say(
        "$ bluffscope detect watch detectors/known \\", f"    --prompt {words} \\", f"    {' '.join(FLAGS)}", ""
    )
    watch.output_console = lambda: console
    if code := command(["detect", "watch", str(detector), "--prompt", *PROMPTS, *FLAGS]):
        raise SystemExit(code)
    picture = console.export_svg(title="bluffscope detect watch", unique_id="watch")
    # no font is fetched
    picture = re.sub(r"@font-face \{.*?\}\s*|<!-- Generated.*?-->\s*", "", picture, flags=re.DOTALL)
    return picture.replace("Fira Code, monospace", "monospace")


if __name__ == "__main__":
    tyro.cli(main)
