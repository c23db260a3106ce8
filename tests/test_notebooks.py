"""The notebooks run from top to bottom, and are stored with what a run of them prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import hub_cache

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
TOOL = FOLDER.parent / "tools" / "run_notebooks.py"
DEMO, GEMMA = "01_first_steps_demo.ipynb", "02_gemma_2_2b_gemma_scope.ipynb"
BY_HAND = "03_verdicts_by_hand.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
RULE = re.compile(r"[─═┌┬┐└┴┘╞╪╡]+| +")


def run(name: str, folder: Path, environment: dict[str, str]) -> nbformat.NotebookNode:
    """The notebook with what it printed; a cell that raises fails the test, with its error."""
    # In a process of its own: the hub's constants are read at import, and a kernel's client starts threads and sockets.
    done = subprocess.run(
        [sys.executable, TOOL, name, "--out", folder / name],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return nbformat.read(folder / name, as_version=4)


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """Of each code cell, all it showed as text."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not any(output.output_type == "error" for output in cell.outputs)
            texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
            shown.append("\n".join(texts))
    return shown


def assert_current(name: str, notebook: nbformat.NotebookNode) -> None:
    """The stored notebook's cells print what this run printed; rounding on another machine is no change."""
    stored = nbformat.read(FOLDER / name, as_version=4)
    for cell, ours, theirs in zip(
        [cell for cell in stored.cells if cell.cell_type == "code"], printed(notebook), printed(stored), strict=True
    ):
        again = f"what this cell prints is out of date; run python tools/run_notebooks.py\n{cell.source}"
        # The width of a table's columns follows from its numbers' digits.
        words = [NUMBER.sub("0", RULE.sub(" ", text)) for text in (ours, theirs)]
        assert words[0] == words[1], again
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=5e-3, abs=1e-6), again


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_stored_whole_and_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "not run from top to bottom"
    assert sum(bool(cell.outputs) for cell in code) >= len(code) - 3
    assert path.stat().st_size < 200_000


def test_first_steps_find_the_planted_structure(tmp_path):
    notebook = run(DEMO, tmp_path, {})
    assert_current(DEMO, notebook)
    shown = "\n".join(printed(notebook))
    assert "warning, answer-in-prompt: " in shown
    assert "warning, same-last-word: " in shown
    assert "(200, " in shown
    table = next(text for text in printed(notebook) if "known=true" in text)
    lines = [[cell.strip() for cell in line.strip("│").split("┆")] for line in table.splitlines() if "┆" in line]
    known, unseen = (next(line for line in lines if line[0] == scope) for scope in ("known=true", "known=false"))
    separates = lines[0].index("separates")
    assert int(known[separates]) >= 15
    assert int(unseen[separates]) <= 1
    pictures = [
        output.data.get("image/svg+xml")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    assert [len(picture) > 10_000 for picture in pictures if picture] == [True]


def test_verdicts_by_hand_come_to_those_of_the_table(tmp_path):
    notebook = run(BY_HAND, tmp_path, {})  # its cells assert
    assert_current(BY_HAND, notebook)
    assert "the same as stats.parquet" in "\n".join(printed(notebook))


def test_gemma_s_notebook_runs_with_a_stand_in_and_says_so(tmp_path):
    notebook = run(GEMMA, tmp_path, {})
    assert_current(GEMMA, notebook)
    shown = "\n".join(printed(notebook))
    assert "200 pairs, 0 quarantined, in bluffscope-demo, layers [2, 5, 8]" in shown
    assert "no pages on Neuronpedia" in shown


def test_gemma_s_notebook_runs_by_its_real_names_out_of_a_cache(tmp_path):
    home = tmp_path / "home"
    hub_cache.add_gemma_2_2b(home, tmp_path / "scratch")
    environment = {**dict.fromkeys(os.environ.keys() - hub_cache.offline(home).keys(), ""), **hub_cache.offline(home)}
    environment |= {"BLUFFSCOPE_NOTEBOOK_PRESET": "gemma-2-2b", "BLUFFSCOPE_NOTEBOOK_LIMIT": "12"}
    shown = "\n".join(printed(run(GEMMA, tmp_path, environment)))
    assert "12 pairs, 0 quarantined, in google/gemma-2-2b, layers [5, 12, 20]" in shown
    assert "https://neuronpedia.org/gemma-2-2b/" in shown
