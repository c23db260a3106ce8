"""Run notebooks from top to bottom and store them with what they printed.

    python tools/run_notebooks.py              # all of them, in place
    python tools/run_notebooks.py NAME --out F # one of them, into another file

Gemma's notebook runs with the embedded model unless BLUFFSCOPE_NOTEBOOK_PRESET says otherwise, and its outputs name it.
tests/test_notebooks.py fails where the stored outputs are no longer what a run prints.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
STAND_IN = {"BLUFFSCOPE_NOTEBOOK_PRESET": "demo"}


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in an empty folder.

    Raises:
        CellExecutionError: a cell failed.
        SystemExit: it left files in the folder.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
        if left := os.listdir(folder):
            sys.exit(f"{path.name} leaves files where it was started: {left}")
    notebook.metadata = {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":  # progress and notes go to stderr; times differ from run to run
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of a notebook; all of them unless given")
    parser.add_argument("--out", type=Path, help="file to write instead of the notebook itself")
    args = parser.parse_args()
    if args.out and not args.name:
        parser.error("--out takes one notebook: name it")
    for key, value in STAND_IN.items():
        os.environ.setdefault(key, value)
    for path in [FOLDER / args.name] if args.name else sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path), args.out or path)
        print(args.out or path)


if __name__ == "__main__":
    main()
