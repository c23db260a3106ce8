"""Terminals, pipes and Ctrl-C: what a run says where, and that nobody's going away costs it its results."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading

import polars as pl
import pytest

import tiny
from bluffscope.cli.main import main
from bluffscope.cli.progress import LineProgress, progress_text

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
LONGEST = 120
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (80, 200, 80 / 8.5, "Progress: 80/200 samples | Rate: 8.5 samples/sec | ETA: 14s"),
        (0, 200, 0.0, "Progress: 0/200 samples | Rate: 0.0 samples/sec | ETA: ?"),
        (200, 200, 50.0, "Progress: 200/200 samples | Rate: 4.0 samples/sec | ETA: 0s"),
        (1, 91, 1.0, "Progress: 1/91 samples | Rate: 1.0 samples/sec | ETA: 1m 30s"),
        (1, 7500, 1.0, "Progress: 1/7500 samples | Rate: 1.0 samples/sec | ETA: 2h 04m"),
    ],
)
def test_progress_reads_as_the_guide_writes_it(done, total, seconds, line):
    assert progress_text(done, total, seconds) == line


def test_progress_lines_come_every_other_second_and_at_the_end(monkeypatch, tmp_path):
    now = iter([100.0, 101.0, 102.5, 103.0, 104.4, 104.6])
    monkeypatch.setattr("bluffscope.cli.progress.time.perf_counter", lambda: next(now))
    with (tmp_path / "log").open("w") as stream:
        progress = LineProgress(stream)
        progress.start(10)
        for _ in range(5):
            progress.advance(2)
        progress.advance(0)  # Ray's engine: nothing new
        progress.finish()
    counts = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert counts == ["4/10", "10/10"]


@pytest.fixture
def command(tmp_path, tiny_model, tiny_saes):
    """The command line of a run on so many pairs, in a process of its own."""

    def build(count: int, *flags: object) -> list[str]:
        pairs = [tiny.PAIRS[index % 5] | {"id": str(index)} for index in range(count)]
        data = tiny.write_pairs(tmp_path / "many.jsonl", pairs)
        given = ["--model", tiny_model, "--sae", tiny_saes, "--data", data, "--out", tmp_path / "run", *flags]
        given.append("--allow-unsound")  # random SAEs explain nothing
        return [sys.executable, "-m", "bluffscope", "analyze", *map(str, given)]

    return build


def heeds_ctrl_c():
    """What a shell started in the background ignores it, and so does what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start():
    """Start a process; what is still there after `LONGEST` seconds, or at the test's end, is killed."""
    started = []

    def run(arguments, environment=ENVIRONMENT, **streams):
        process = subprocess.Popen(arguments, env=environment, preexec_fn=heeds_ctrl_c, **streams)
        timer = threading.Timer(LONGEST, process.kill)
        timer.start()
        started.append((process, timer))
        return process

    yield run
    for process, timer in started:
        timer.cancel()
        process.kill()
        with process:  # closes its pipes
            pass


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(command, start, tmp_path):
    leader, follower = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = start(command(400, "--full"), environment, stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    said = b""
    while select.select([leader], [], [], LONGEST)[0]:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        said += chunk
    os.close(leader)
    assert process.wait(60) == 0
    text = said.decode()
    bar, summary = text[: text.index("Summary of")], text[text.index("Summary of") :]
    # What takes less than a tenth of a second may not be drawn.
    doing = ["Starting", "Loading the model", "samples/sec", "Report: "]
    assert sorted(map(bar.index, doing)) == list(map(bar.index, doing))
    assert "/400 samples | Rate: " in bar
    assert "\x1b[?25l" in bar  # the cursor is hidden while the bar moves,
    assert bar.rindex("\x1b[?25h") > bar.rindex("\x1b[?25l")  # shown again,
    assert "\x1b[2K" in bar[bar.rindex("samples/sec") :]  # and the bar's line is cleared
    assert "Progress:" not in summary
    assert "Summary of 400 pairs" in summary
    assert CONTROL.sub("", summary).rstrip().splitlines()[-2] == f"Run: {tmp_path / 'run'}"
    assert "Traceback" not in text


def test_ctrl_c_ends_a_run_with_one_line_and_code_130(command, start, tmp_path):
    long = command(4000, "--batch-size", 1, "--noise-draws", 50)
    process = start(long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()
    assert first.startswith("Progress: ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    *progress, last = err.splitlines()
    assert all(line.startswith("Progress: ") for line in progress)
    assert last.startswith(
        "bluffscope analyze: stopped; committed shards are kept; resume with: bluffscope analyze --resume "
    )


def test_nothing_but_progress_is_on_stderr_whatever_the_architecture(tmp_path, tiny_saes, pairs_file):
    script = (
        "import json, sys, bluffscope.api.closing\n"
        "from bluffscope.cli.main import main\n"
        "bluffscope.api.closing._report = lambda *_: None\n"
        "sys.exit(sum(main(arguments) for arguments in json.loads(sys.argv[1])))\n"
    )
    runs = [
        ["analyze", "--model", str(tiny.save_model(tmp_path / name, name)), "--sae", str(tiny_saes)]
        + ["--data", str(pairs_file), "--out", str(tmp_path / f"run-{name}"), "--allow-unsound"]
        for name in tiny.ARCHITECTURES
    ]
    process = subprocess.run(
        [sys.executable, "-c", script, json.dumps(runs)], capture_output=True, text=True, timeout=240, env=ENVIRONMENT
    )
    assert process.returncode == 0
    lines = process.stderr.splitlines()
    assert len(lines) == len(runs), process.stderr
    assert all(line.startswith("Progress: 5/5 samples | Rate: ") for line in lines)


@pytest.fixture
def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        yield stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_pipe_that_nobody_reads_does_not_cost_a_run_its_results(monkeypatch, closed_pipe, tiny_flags, tmp_path, name):
    monkeypatch.setattr(sys, name, closed_pipe)
    assert main(["analyze", *map(str, tiny_flags), "--allow-unsound"]) == 0
    assert pl.read_parquet(tmp_path / "run" / "metrics.parquet").height == 5
    assert (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_closed_by_the_caller_does_not_cost_a_run_its_results(monkeypatch, tiny_flags, tmp_path, name):
    monkeypatch.setattr(sys, name, None)
    assert main(["analyze", *map(str, tiny_flags), "--allow-unsound"]) == 0
    assert pl.read_parquet(tmp_path / "run" / "metrics.parquet").height == 5
    getattr(sys, name).close()


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "--help"], ["presets"]], ids=str)
def test_help_into_a_closed_pipe_ends_quietly(monkeypatch, closed_pipe, capsys, arguments):
    monkeypatch.setattr(sys, "stdout", closed_pipe)
    assert main(arguments) in (0, 1)
    assert capsys.readouterr().err == ""


def test_an_error_with_nobody_to_hear_it_still_has_its_code(monkeypatch, closed_pipe):
    monkeypatch.setattr(sys, "stderr", closed_pipe)
    assert main(["analyze", "--data", "nowhere.jsonl"]) == 2


def test_a_console_that_knows_no_unicode_costs_characters_not_the_run(call, monkeypatch, tiny_flags, tmp_path):
    pairs = [pair | {"domain": "\N{SNOWFLAKE}"} for pair in tiny.PAIRS]
    data = tiny.write_pairs(tmp_path / "snow.jsonl", pairs)
    with (tmp_path / "out.txt").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert (
            main(
                [
                    "analyze",
                    *map(str, tiny_flags[:4]),
                    "--data",
                    str(data),
                    *map(str, tiny_flags[6:]),
                    "--allow-unsound",
                    "--full",
                ]
            )
            == 0
        )
    assert r"\u2744" in (tmp_path / "out.txt").read_text("ascii")


def test_a_stop_before_the_first_pair_is_one_line_too(call, monkeypatch, tiny_flags):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("bluffscope.runs.workers.build_worker", interrupted)
    outcome = call("analyze", *tiny_flags)
    assert (outcome.code, outcome.err) == (130, "bluffscope analyze: stopped before it finished\n")
