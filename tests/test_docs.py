"""Every Python block of the documentation runs; the site is built without a warning and fetches nothing."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import bluffscope
import tiny

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_block_after_block(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), namespace)


def test_pages_with_python_are_found():
    assert {"library.md", "own-analysis.md"} <= {page.name for page in PAGES if blocks(page)}


def tool(name: str) -> types.ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_on_memory_is_current(capsys):
    made = tool("make_memory_docs")
    assert made.main(["--check"]) == 0, capsys.readouterr().out
    assert [row[:2] for row in made.kept_peaks(made.TARGET.read_text(encoding="utf-8"))] == [
        [model, made.flags(options)] for model, options in made.RUNS
    ]


def test_the_simulations_on_the_page_are_those_that_were_stored_and_within_their_bounds():
    made = tool("write_simulations")
    cells = made.stored()
    text = made.PAGE.read_text(encoding="utf-8")
    assert made.page(text, cells) == text, "run python tools/write_simulations.py"
    assert len(cells["verdicts"]) > 300 and len(cells["detectors"]) > 50
    assert [cell for own in cells.values() for cell in own if "*" in cell["shown"]] == []
    assert made.PICTURE.stat().st_size > 10_000


@pytest.mark.process
def test_the_simulation_of_verdicts_runs():
    command = [sys.executable, str(ROOT / "tools" / "simulate_verdicts.py"), "--workers", "1", "--share", "0.004"]
    done = subprocess.run(
        [*command, "--only", "closed answers, d_z"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| yes is always right | 0.0 | 100.0 |" in done.stdout
    assert "4 cells, 0 outside their bound" in done.stdout


@pytest.mark.process
def test_the_simulation_of_detectors_goes_on_where_it_ended(tmp_path):
    kept = tmp_path / "cells.json"
    command = [sys.executable, str(ROOT / "tools" / "simulate_detectors.py"), "--workers", "1", "--json", str(kept)]
    for share, data_sets in (("0.01", 10), ("0.02", 20)):
        done = subprocess.run(
            [*command, "--only", "^threshold", "--share", share],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr[-2000:]  # of so few the mean may lie outside
        assert f"| {data_sets} |" in done.stdout and "0 data sets are left" in done.stdout
        cells = json.loads(kept.read_text(encoding="utf-8"))
        assert {cell["tried"] for cell in cells} == {data_sets}


def leftovers(text: str) -> list[str]:
    """Lines in which something is still to be put, and rows of tables whose cells are not those of the header."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [line for line in text.splitlines() if re.fullmatch(r"[A-Z0-9_]{3,}", line) or re.search(_TO_DO, line)]
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = table.splitlines()
        cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows]
        found += [row for row, count in zip(rows, cells, strict=True) if count != cells[0]]
        found += [] if len(rows) > 2 else [rows[0]]
    return found


_TO_DO = re.compile(r"\b(?:TODO|FIXME|TBD|XXX)\b")


def test_no_page_has_a_placeholder_left():
    head = "| a | b |\n|---|---|\n"
    assert leftovers(f"{head}TABLE\n") == ["TABLE", "| a | b |"]
    assert leftovers(f"{head}| MID6 |\n| 1 | 2 |\n") == ["| MID6 |"]
    pages = [*PAGES, *ROOT.glob("*.md"), *(ROOT / "src").rglob("*.md")]
    assert {page.name: found for page in pages if (found := leftovers(page.read_text(encoding="utf-8")))} == {}


def test_the_map_for_contributors_names_only_files_and_folders_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`([\w/.-]+/[\w/.-]*)`", text) if not path.startswith(("/", "."))}
    folders = set(re.findall(r"^\| `([a-z]+)` \|", text, flags=re.MULTILINE))
    package = ROOT / "src" / "bluffscope"
    made = {"site/", "site/index.html", "cli/COMMAND.py"}
    assert [path for path in sorted(named - made) if not ((ROOT / path).exists() or (package / path).exists())] == []
    assert folders == {path.name for path in package.iterdir() if (path / "__init__.py").exists()}


def test_the_changelog_names_each_kind_of_change_once_a_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)", version, flags=re.MULTILINE)
        assert kinds == [kind for kind in ("Added", "Changed", "Removed", "Fixed", "Security") if kind in kinds]


_CITED = re.compile(
    r"\bdocs/[\w.-]+\.md|\b[A-Z_]{4,}(?:\.md|'s)?,? sections? \d|\b(?:DESIGN|GUIDE)\b"
    r"|optimi[sz]ation guide|\bissue #?\d+"
)
"""A document, by its path or by what it was called while the program was written."""


def cites(text: str) -> list[str]:
    """What a text refers to that the repository does not hold."""
    return [found for found in _CITED.findall(text) if not (ROOT / found).is_file()]


def test_no_source_file_cites_a_document_that_the_repository_does_not_hold():
    assert cites("DESIGN section 3, docs/none.md and docs/data.md") == ["DESIGN section 3", "docs/none.md"]
    folders = ("src", "tests", "tools", "bench", "experiments", "examples", "docs")
    files = [path for folder in folders for kind in ("*.py", "*.md", "*.js") for path in (ROOT / folder).rglob(kind)]
    found = {str(path.relative_to(ROOT)): cites(path.read_text(encoding="utf-8")) for path in files}
    assert {name: cited for name, cited in found.items() if cited and name != "tests/test_docs.py"} == {}


def texts_of_the_program() -> str:
    """Every text in the source; a null character where a value is put in."""
    found: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_that_the_faq_explains_are_those_of_the_program():
    headings = re.findall(r"^### (.*)", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(messages) > 15
    program = texts_of_the_program()
    parts = {part for message in messages for part in re.split(r"\.\.\.|'\w+'|\d+|[A-Z]{3,}", message) if len(part) > 7}
    assert [part for part in sorted(parts) if part not in program] == []


def test_the_page_on_own_analyses_shows_the_example_as_it_is():
    example = (ROOT / "examples" / "own_analysis.py").read_text(encoding="utf-8")
    _, function, columns, _ = blocks(ROOT / "docs" / "own-analysis.md")
    assert function.partition("\n\n\n")[2] in example
    assert columns in example


def test_ten_lines_put_an_analysis_of_one_s_own_into_the_report(tmp_path, monkeypatch):
    block, *_ = blocks(ROOT / "docs" / "own-analysis.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "own-analysis.md", "exec"), {"__name__": "own"})
    page = (tmp_path / "runs" / "peak" / "report.html").read_text(encoding="utf-8")
    assert page.count(">Peak activation</summary>") == 3  # layers 2, 5 and 8
    assert "Largest activation of any feature at the token that was read. Unit: activation units." in page
    rows = bluffscope.read_run(tmp_path / "runs" / "peak").table("stats.parquet")
    assert {f"l{layer}_peak" for layer in (2, 5, 8)} <= set(rows["metric"])


def test_the_example_s_analysis_is_what_the_kept_features_give(tiny_model, tiny_saes, tmp_path):
    example = runpy.run_path(str(ROOT / "examples" / "own_analysis.py"))
    layers = (0, 1, 3)
    added = [bluffscope.UserAnalysis(example["novelty"], example["declared"])]
    for position in ("last", "divergence"):
        table = bluffscope.analyze(
            tiny.PAIRS,
            model=tiny_model,
            sae=tiny_saes,
            position=position,
            added=added,
            analyses=(),
            out=tmp_path / position,
        )
        features = bluffscope.read_run(tmp_path / position).features.collect()
        for layer in layers:
            at = features.filter(layer=layer)
            for view in ("fact", "hall"):
                of_view = at.filter(view=view)
                new = of_view.join(at.filter(view="prompt"), on=["pair_id", "feature"], how="anti")
                share = {
                    pair: new.filter(pair_id=pair)["activation"].sum()
                    / of_view.filter(pair_id=pair)["activation"].sum()
                    for pair in table["pair_id"]
                }
                assert table[f"l{layer}_{view}_novelty"].to_list() == pytest.approx(list(share.values()), rel=1e-5)
                assert 0 < np.mean(list(share.values())) < 1


def test_the_example_runs_and_tests_its_metric_on_the_demo(capsys):
    runpy.run_path(str(ROOT / "examples" / "own_analysis.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["l2_novelty", "l5_novelty", "l8_novelty"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


class _Page(HTMLParser):
    """What a page loads, and its paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.paragraphs: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loaded.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loaded.append(str(given["href"]))
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.paragraphs[-1] += data


def test_the_site_holds_every_page_and_loads_nothing_from_elsewhere(site):
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    expected = {f"{page.stem}.html" for page in PAGES if page.name != "README.md"}
    expected |= {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert built >= expected | {
        "index.html",
        "contributing.html",
        "changelog.html",
        "model-card.html",
        "benchmark.html",
        "security.html",
    }
    for name in built:
        page = _Page((site / name).read_text(encoding="utf-8"))
        assert page.loaded
        assert not [source for source in page.loaded if re.match(r"(https?:)?//", source)], name


def test_search_works_in_a_page_opened_as_a_file(site, browser):
    browser.ask("Emulation.setFocusEmulationEnabled", enabled=True)
    browser.ask("Page.navigate", url=f"{(site / 'faq.html').resolve().as_uri()}?q=sphericity")
    browser.wait("document.querySelectorAll('.md-search-result__item').length > 0")
    found = browser.run("[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)")
    assert any("definitions.html" in address for address in found)
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith(("file:", "data:"))] == []


def test_no_list_or_table_is_left_in_a_paragraph_by_the_site_s_markdown(site):
    for path in site.rglob("*.html"):
        page = _Page(path.read_text(encoding="utf-8"))
        lost = [text for text in page.paragraphs if re.search(r"(?:^|\n)(?:[-*] |\d+\. |\|)", text)]
        assert not lost, f"{path.name}: {lost[0]!r}; a blank line is missing before a list or table"


def test_pages_named_in_the_text_are_links(site):
    text = (site / "library.html").read_text(encoding="utf-8")
    assert '<a href="run-folder.html"><code>docs/run-folder.md</code></a>' in text
    assert 'href="contributing.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_every_public_name_has_its_place_in_the_reference(site):
    reference = (site / "api.html").read_text(encoding="utf-8")
    for name in bluffscope.__all__:
        home = getattr(bluffscope, name)
        place = f"{bluffscope._HOMES[name]}.{name}" if name in bluffscope._HOMES else None
        if place is not None:
            assert f'id="bluffscope.{name}"' in reference or f'id="{place}"' in reference, name
        if callable(home):
            assert home.__doc__, name
