"""The command line in this process: what it prints, its exit code, and what it leaves on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import bluffscope.api.closing
from bluffscope.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Statistics, page and figures take seconds; tests that need them ask for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(bluffscope.api.closing, "_report", lambda *_: None)


@pytest.fixture
def drawn():
    """Have the report written."""


@pytest.fixture
def call(capsys, monkeypatch, tmp_path) -> Callable[..., Outcome]:
    """Call `bluffscope` with arguments, in an empty working folder.

    Random SAEs explain nothing, and the health gate says so: analyses of them are allowed to be unsound here.
    """
    (tmp_path / "cwd").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "cwd")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        allowed = ["--allow-unsound"] if arguments[:1] == ("analyze",) else []
        code = main([*(str(argument) for argument in arguments), *allowed])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture
def refused(call, tmp_path) -> Callable[..., str]:
    """Call `bluffscope` with arguments that must be refused; gives the one line that it says."""

    def check(*arguments: object, says: tuple[str, ...] | str = ()) -> str:
        before = set(tmp_path.rglob("*"))
        outcome = call(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert outcome.err.endswith("\n")
        assert len(outcome.err.splitlines()) == 1, outcome.err
        assert set(tmp_path.rglob("*")) == before
        line = outcome.err.strip()
        assert line.startswith(f"bluffscope {arguments[0]}: ")
        assert "Traceback" not in line
        assert "Error(" not in line
        for fragment in (says,) if isinstance(says, str) else says:
            assert fragment in line, line
        return line

    return check


@pytest.fixture
def tiny_flags(tiny_model, tiny_saes, pairs_file, tmp_path) -> list[object]:
    """Flags of a run that works."""
    return ["--model", tiny_model, "--sae", tiny_saes, "--data", pairs_file, "--out", tmp_path / "run"]


@pytest.fixture
def copied(tmp_path) -> Callable[[Path], Path]:
    """A copy of a folder, to be damaged."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / f"copy-{folder.name}"))

    return copy


def table(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "metrics.parquet")
