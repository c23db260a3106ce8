"""Progress: how it is worded, when lines come, and a bar that leaves no trace."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bluffscope.cli import progress
from bluffscope.cli.progress import BarProgress, LineProgress, progress_text


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (80, 200, 9.412, "Progress: 80/200 samples | Rate: 8.5 samples/sec | ETA: 14s"),
        (0, 200, 3.0, "Progress: 0/200 samples | Rate: 0.0 samples/sec | ETA: ?"),
        (1, 2, 0.0, "Progress: 1/2 samples | Rate: 0.0 samples/sec | ETA: ?"),
        (1, 100, 2.0, "Progress: 1/100 samples | Rate: 0.5 samples/sec | ETA: 3m 18s"),
        (1, 10_001, 1.2, "Progress: 1/10001 samples | Rate: 0.8 samples/sec | ETA: 3h 20m"),
    ],
)
def test_what_is_left_is_told_in_seconds_minutes_or_hours(done, total, seconds, text):
    assert progress_text(done, total, seconds) == text


def test_lines_come_now_and_then_and_once_at_the_end(monkeypatch):
    clock, stream = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    told = LineProgress(stream)
    told.tell("Loading")  # for terminals alone
    told.start(4)
    for seconds, pairs in ((1, 1), (2.5, 1), (3, 1), (4, 1), (9, 0)):
        clock[0] = seconds
        told.advance(pairs)
    told.finish()
    assert [line.split(" | ")[0] for line in stream.getvalue().splitlines()] == [
        "Progress: 2/4 samples",
        "Progress: 4/4 samples",
    ]


def test_after_the_last_pair_a_line_names_what_takes_long(monkeypatch):
    clock, stream = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    told = LineProgress(stream)
    told.start(1)
    told.advance(1)
    told.finish()
    for seconds, text in ((1.9, "Report: reading the run"), (2.5, "Report: testing effects"), (3.0, "Report: writing")):
        clock[0] = seconds
        told.tell(text)
    assert stream.getvalue().splitlines()[1:] == ["Report: testing effects"]


def test_progress_is_a_bar_on_terminals_lines_elsewhere_and_nothing_for_who_wants_quiet(capsys):
    terminal = Console(file=io.StringIO(), force_terminal=True)
    for console, quiet, kind in ((terminal, False, "Bar"), (Console(file=io.StringIO()), False, "Line")):
        with progress.shown_progress(console, quiet=quiet) as shown:
            assert type(shown).__name__ == f"{kind}Progress"
            assert shown.moves == (kind == "Bar")
    before = len(terminal.file.getvalue())
    with progress.shown_progress(terminal, quiet=True) as shown:
        shown.start(1)
        shown.advance(1)
        shown.tell("Report: testing effects")
        shown.finish()
    assert len(terminal.file.getvalue()) == before and capsys.readouterr().err == ""


def test_a_reader_who_went_away_does_not_end_the_work():
    stream = io.StringIO()
    told = LineProgress(stream)
    told.start(1)
    stream.close()
    told.advance(1)


def test_a_bar_says_what_is_done_counts_pairs_and_leaves_no_trace():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    bar = BarProgress(console)
    texts = []

    def shown():
        (task,) = bar._bar.tasks
        texts.append((task.description, task.completed, task.total))

    for step in (
        lambda: bar.tell("Loading the model"),
        lambda: bar.start(3),
        lambda: bar.tell("Measuring"),  # not while pairs are counted
        lambda: bar.advance(2),
        bar.finish,
        lambda: bar.tell("Running health checks"),
    ):
        step()
        shown()
    bar.close()
    bar.close()
    counted = [(text.split(" | ")[0], done, total) for text, done, total in texts]
    assert counted == [
        ("Loading the model", 0, None),
        ("Progress: 0/3 samples", 0, 3),
        ("Progress: 0/3 samples", 0, 3),
        ("Progress: 2/3 samples", 2, 3),
        ("Writing tables", 0, None),
        ("Running health checks", 0, None),
    ]
    assert not bar._bar.live.is_started
    assert console.file.getvalue().endswith("\x1b[2K"), "the bar's line is erased"
