"""The picture of the demo's report in README: it says what the demo says now."""

from __future__ import annotations

from pathlib import Path

import draw_report as picture
import make_first_lines as pages


def test_the_picture_s_sentence_is_the_one_that_the_demo_prints():
    readme = Path(pages.ROOT / "README.md").read_text("utf-8")
    said = picture.description(picture.TARGET.read_bytes())
    assert said.startswith("Of what the model knows"), "run tools/draw_report.py"
    assert said in " ".join(pages.shown(readme).split()), "run tools/draw_report.py"


def test_a_description_comes_back_and_leaves_the_picture_whole():
    plain = picture.TARGET.read_bytes()
    found = picture.described(plain[:33] + plain[-12:], "d_z −5.21, “large”")
    assert picture.description(found) == "d_z −5.21, “large”"
    assert (found[:33], found[-12:]) == (plain[:33], plain[-12:])
    assert picture.description(plain[:33]) == ""
