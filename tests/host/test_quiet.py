"""A Python that strips docstrings is named, not the model or SAE that its libraries then fail on."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bluffscope.errors import InputError
from bluffscope.host.quiet import check_docstrings
from made_runs import make_run


def called(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-OO", "-m", "bluffscope", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.process
@pytest.mark.parametrize("command", ["analyze", "report"])
def test_stripped_docstrings_are_named_by_what_needs_them(command, tmp_path):
    words = ["--out", tmp_path / "run"] if command == "analyze" else [make_run(tmp_path / "run", 20, features=4)]
    done = called(command, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"bluffscope {command}: python -OO (PYTHONOPTIMIZE=2) strips the docstrings that")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.process
def test_what_needs_none_works_without_them(tmp_path):
    assert called("lint").returncode == 0


def test_docstrings_are_asked_for_as_python_was_started(monkeypatch):
    check_docstrings()
    monkeypatch.setattr(sys, "flags", SimpleNamespace(optimize=2))
    with pytest.raises(InputError, match="unset it, or use -O"):
        check_docstrings()
