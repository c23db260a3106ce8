"""Scripts beside the package import what the package has, also those that stand in a string for another process."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import bluffscope

PACKAGE = Path(bluffscope.__file__).parent
ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((*ROOT.glob("bench/*.py"), *ROOT.glob("tools/*.py")))
IMPORT = re.compile(r"from bluffscope([\w.]*) import (?:\(([^)]*)\)|([^\n]*))")


def missing(text: str) -> list[str]:
    """What a script imports from the package although it is not there."""
    found = []
    for module, several, one in IMPORT.findall(text):
        folder = PACKAGE.joinpath(*module.split("."))
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        source = file.read_text(encoding="utf-8") if file.exists() else ""
        for name in (part.split(" as ")[0].strip() for part in (several or one).split(",")):
            there = re.search(rf"\b{name}\b", source) or any(folder.glob(f"{name}.py"))
            if name and not there:
                found.append(f"bluffscope{module}.{name}")
    return found


def test_an_import_of_what_is_gone_is_found():
    text = "from bluffscope.machine import peak_rss\nfrom bluffscope.api import run, flee"
    assert missing(text) == ["bluffscope.machine.peak_rss", "bluffscope.api.flee"]
    assert (
        missing("from bluffscope.host.machine import (\n    peak_rss,\n)\nfrom bluffscope.compare import tables") == []
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_what_there_is(script):
    assert missing(script.read_text(encoding="utf-8")) == []


@pytest.mark.thorough
def test_the_measurement_beside_busy_loops_runs_on_the_models_that_it_saves(tmp_path):
    busy = runpy.run_path(str(ROOT / "bench" / "busy.py"))
    busy["save"](tmp_path)
    (found,) = busy["measured"](busy["Case"]("tiny", 5, 4), tmp_path / "tiny", False)
    assert 0 < found["seconds"] < found["total"]
    assert (tmp_path / "mid" / "model" / "config.json").exists()
