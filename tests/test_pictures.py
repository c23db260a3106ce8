"""Every picture in README and docs is drawn by one command, and shows what its page says now."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

import draw_bench
import draw_report
import draw_view
import draw_watch
import make_first_lines as pages
import write_simulations
from described_png import described, description

DOCS = pages.ROOT / "docs"
DRAWN_BY = {
    "report.png": "python tools/draw_report.py",
    "own-answers.png": "python tools/draw_report.py --study",
    "view.png": "python tools/draw_view.py",
    "watch.svg": "python tools/draw_watch.py",
    "verdicts.svg": "python tools/write_simulations.py",
    "bench-ladder.png": "python tools/draw_bench.py",
    "bench-batch_sizes.png": "python tools/draw_bench.py",
    "bench-sharing.png": "python tools/draw_bench.py",
}


def readme() -> str:
    return " ".join(pages.shown((pages.ROOT / "README.md").read_text("utf-8")).split())


def test_every_picture_that_a_page_shows_is_there_and_its_command_stands_in_the_documentation():
    texts = {page.name: page.read_text("utf-8") for page in (pages.ROOT / "README.md", *DOCS.glob("*.md"))}
    shown = [name for text in texts.values() for name in re.findall(r"!\[[^]]*\]\((?:docs/)?images/([^)]+)\)", text)]
    assert sorted(shown) == sorted(DRAWN_BY) == sorted(path.name for path in (DOCS / "images").iterdir())
    said = "\n".join([*texts.values(), (pages.ROOT / "CONTRIBUTING.md").read_text("utf-8")])
    assert {name: command for name, command in DRAWN_BY.items() if command not in said} == {}


def test_the_picture_of_the_demo_s_report_says_what_the_demo_prints():
    said = description(draw_report.REPORT.read_bytes())
    assert said.startswith("Of what the model knows"), "run tools/draw_report.py"
    assert said in readme(), "run tools/draw_report.py"


def test_the_picture_of_the_study_says_what_its_page_prints():
    said = description(draw_report.STUDY.read_bytes())
    assert said.startswith("The model gave"), "run tools/draw_report.py --study DIR"
    page = " ".join((DOCS / "own-answers.md").read_text("utf-8").split())
    assert said in page, "run tools/draw_report.py --study DIR"


def test_the_picture_of_all_runs_has_today_s_headings_and_the_demo_s_numbers():
    heads, line = description(draw_view.TARGET.read_bytes()).splitlines()
    script = (pages.ROOT / "src/bluffscope/report/view/templates/view.js").read_text("utf-8")
    titles = re.findall(r'\{ id: "\w+", title: "([^"]+)"', script)
    assert [head.rstrip(" ▾▴") for head in heads.split(" | ")] == titles, "run tools/draw_view.py"
    cells, said = line.split(" | "), readme()
    place = next(k for k, cell in enumerate(cells) if cell.startswith("known: "))
    words, number = cells[place].removeprefix("known: "), cells[place + 1]
    assert words in said and number.split(",")[0] in said, "run tools/draw_view.py"
    areas = [place for place, cell in enumerate(cells) if ": AUROC " in cell]
    assert len(areas) == 2 and f"AUROC {cells[areas[0]].split()[-1]} ({cells[areas[0] + 1]}) known" in said


@pytest.mark.parametrize("name", draw_bench.TABLES)
def test_the_pictures_of_speed_show_the_tables_of_their_page(name):
    assert len(draw_bench.rows(name)) >= 6
    assert description(draw_bench.target(name).read_bytes()) == draw_bench.said(name), "run tools/draw_bench.py"


@pytest.mark.soak
@pytest.mark.process
def test_the_picture_of_a_model_that_writes_is_what_it_writes_now():
    draw_watch.main(check=True)


def test_the_picture_of_the_simulations_shows_the_stored_cells():
    cells = write_simulations.stored()["verdicts"]
    stored = "".join(ET.fromstring(write_simulations.PICTURE.read_bytes()).itertext())
    assert "".join(ET.fromstring(write_simulations.drawn(cells)).itertext()) == stored, "run tools/write_simulations.py"


def test_a_description_comes_back_and_leaves_the_picture_whole():
    plain = draw_report.REPORT.read_bytes()
    found = described(plain[:33] + plain[-12:], "d_z −5.21, “large”")
    assert description(found) == "d_z −5.21, “large”"
    assert (found[:33], found[-12:]) == (plain[:33], plain[-12:])
    assert description(plain[:33]) == ""
