"""How a command ends: what went wrong is one line, and the exit code says which kind it was."""

from __future__ import annotations

import signal

import pytest

from bluffscope.cli.main import MOST_SAID, guarded
from bluffscope.errors import InputError, RunFolderError, RunStopped


def raising(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such file\nor\x1b[2J folder"), 2, r"no such file\nor\x1b[2J folder"),
        (RunFolderError("the disk is full"), 2, "the disk is full"),
        (
            RunStopped(signal.SIGTERM, "bluffscope analyze --resume x"),
            143,
            "stopped; committed shards are kept; resume with: bluffscope analyze --resume x",
        ),
        (RunStopped(signal.SIGINT), 130, "stopped; committed shards are kept"),
        (KeyboardInterrupt(), 130, "stopped before it finished"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_ends_a_command_is_one_line_with_its_exit_code(capsys, error, code, line):
    assert guarded("bluffscope try", raising(error)) == code
    assert capsys.readouterr() == ("", f"bluffscope try: {line}\n")


def test_a_reader_who_went_away_is_told_nothing(capsys):
    assert guarded("bluffscope try", raising(BrokenPipeError())) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("given", "code"), [(3, 3), (None, 0), ("text", 0)])
def test_an_exit_inside_a_command_is_its_exit_code(given, code):
    assert guarded("bluffscope try", raising(SystemExit(given))) == code


def test_a_line_of_thousands_of_characters_keeps_its_beginning_and_its_end(capsys):
    guarded("bluffscope try", raising(InputError("begin " + "x" * 2 * MOST_SAID + " end")))
    line = capsys.readouterr().err
    assert line.startswith("bluffscope try: begin xxx")
    assert line.endswith("xxx end\n")
    assert MOST_SAID < len(line) < MOST_SAID + 10
