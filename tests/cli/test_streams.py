"""Standard output and error that cannot be written: one line, an exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bluffscope.cli.main import guarded, main
from made_runs import make_run

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
LINE = "standard output cannot be written (No space left on device); redirect it to a file with free space"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", 40, features=6)


COMMANDS = {
    **{name: [name] for name in ("--version", "--help", "presets", "schemas")},
    **{f"{name} --help": [name, "--help"] for name in ("analyze", "lint", "stats", "verify")},
    "lint": ["lint"],
    "lint as JSON": ["lint", "--format", "json"],
    "stats": ["stats", "RUN"],
    "features": ["features", "RUN"],
    "features as JSON": ["features", "RUN", "--format", "json"],
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_full_device_costs_every_command_one_line(name, run, monkeypatch, capsys):
    words = [str(run) if word == "RUN" else word for word in COMMANDS[name]]
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == 1
    assert sys.stdout is full  # as it was before
    program = "bluffscope" if name.startswith("--") else f"bluffscope {words[0]}"
    assert capsys.readouterr().err == f"{program}: {LINE}\n"


def started(words: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    shell = f"exec {sys.executable} -m bluffscope {' '.join(words)} {redirection}"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, env=buffered)


@pytest.mark.thorough
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["nonsense"]], ids=" ".join)
def test_a_process_whose_streams_are_full_or_closed_ends_without_a_traceback(words):
    wrong = 2 if words == ["nonsense"] else 0
    assert (done := started(words, "> /dev/full")).returncode == (wrong or 1)
    assert len(done.stderr.splitlines()) == 1
    for redirection, code in (("2> /dev/full", wrong), ("> /dev/full 2>&1", wrong or 1), (">&- 2>&-", wrong)):
        done = started(words, redirection)
        assert (done.returncode, done.stderr) == (code, ""), redirection


def test_a_pipe_that_nobody_reads_is_no_error_of_ours(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["--help"]) == 1
    assert capsys.readouterr().err == ""


def test_a_file_of_the_command_s_own_that_cannot_be_written_is_not_taken_for_standard_output():
    with pytest.raises(OSError, match="No space left"):
        guarded("x", lambda: FULL.write_text("x"))
