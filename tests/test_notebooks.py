"""The notebooks run from top to bottom, and are stored without what a run of them printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import hub_cache

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
DEMO, GEMMA = "01_first_steps_demo.ipynb", "02_gemma_2_2b_gemma_scope.ipynb"

# In a process of its own: the hub's constants are read at import, and a kernel's client starts threads and sockets.
SCRIPT = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": sys.argv[3]}}).execute()
nbformat.write(notebook, sys.argv[2])
"""


def run(name: str, folder: Path, environment: dict[str, str]) -> nbformat.NotebookNode:
    """The notebook with what it printed, run in an empty folder; a cell that raises fails the test, with its error."""
    here = folder / "cwd"
    here.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, FOLDER / name, folder / name, here],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(here.iterdir()) == [], "a notebook leaves files where it was started"
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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_stored_whole_and_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.source


def test_first_steps_find_the_planted_structure(tmp_path):
    notebook = run(DEMO, tmp_path, {})
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
    images = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(images) == 1
    assert len(images[0]["data"]["image/png"]) > 10_000


def test_gemma_s_notebook_runs_with_a_stand_in_and_says_so(tmp_path):
    shown = "\n".join(
        printed(run(GEMMA, tmp_path, {"BLUFFSCOPE_NOTEBOOK_PRESET": "demo", "BLUFFSCOPE_NOTEBOOK_LIMIT": "20"}))
    )
    assert "20 pairs, 0 quarantined, in bluffscope-demo, layers [2, 5, 8]" in shown
    assert "no pages on Neuronpedia" in shown


def test_gemma_s_notebook_runs_by_its_real_names_out_of_a_cache(tmp_path):
    home = tmp_path / "home"
    hub_cache.add_gemma_2_2b(home, tmp_path / "scratch")
    environment = {**dict.fromkeys(os.environ.keys() - hub_cache.offline(home).keys(), ""), **hub_cache.offline(home)}
    shown = "\n".join(printed(run(GEMMA, tmp_path, {**environment, "BLUFFSCOPE_NOTEBOOK_LIMIT": "12"})))
    assert "12 pairs, 0 quarantined, in google/gemma-2-2b, layers [5, 12, 20]" in shown
    assert "https://neuronpedia.org/gemma-2-2b/" in shown
