"""Two calls in two threads of one process: equal results, separate logs, and the process as it was; and forks."""

from __future__ import annotations

import ast
import csv
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import huggingface_hub
import polars as pl
import pytest
import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from polars.testing import assert_frame_equal

import bluffscope
import tiny
from bluffscope import InputError
from bluffscope.features.effects import feature_effects
from bluffscope.host.exclusive import exclusive
from bluffscope.host.quiet import environment, libraries_quiet
from bluffscope.pairs.delimited import _next_row
from bluffscope.report.write import write_report
from bluffscope.runs.log import RunLog, logging_to
from bluffscope.stats import analyse_table

SECONDS = 250
"""After which a thread counts as hanging."""
LOGGERS = ("", "bluffscope", "transformers", "huggingface_hub", "torchao", "bitsandbytes", "torch.utils._pytree")

Call = Callable[[], Any]


def state_of_the_process() -> dict[str, Any]:
    """What a call may change for a while, and has to put back."""
    mask = os.umask(0o22)
    os.umask(mask)
    logs = {name: logging.getLogger(name) for name in LOGGERS}
    return {
        "warnings": (list(warnings.filters), warnings.showwarning, warnings._showwarnmsg_impl),
        "csv": csv.field_size_limit(),
        "logging": {name: (list(log.handlers), log.level, log.propagate) for name, log in logs.items()},
        "torch.load": torch.load,
        "torch": (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()),
        "transformers": (
            transformers.utils.logging.get_verbosity(),
            transformers.utils.logging.is_progress_bar_enabled(),
        ),
        "hub": (huggingface_hub.utils.logging.get_verbosity(), are_progress_bars_disabled()),
        "hub constants": (constants.HF_HUB_OFFLINE, constants.DEFAULT_REVISION),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "polars": pl.Config.state(if_set=True),
        "place": (os.getcwd(), mask, sys.excepthook, threading.excepthook),
        "threads": sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("bluffscope")),
    }


def together(first: Call, second: Call) -> tuple[Any, Any]:
    """What two calls give that begin at the same moment, each in a thread; an exception is what it gave."""
    start = threading.Barrier(2)

    def begun(call: Call) -> Any:
        start.wait(SECONDS)
        try:
            return call()
        except InputError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(begun, call) for call in (first, second)]
        one, other = (future.result(SECONDS) for future in futures)
    return one, other


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model, SAEs, pairs and a finished run in reduced precision."""
    folder = tmp_path_factory.mktemp("threads")
    tiny.save_model(folder / "model", "gemma2")
    tiny.save_saes(folder / "sae")
    long = {"id": "long", "domain": "geo", "prompt": "x" * 200_000, "fact": "a", "hallucination": "b"}
    rows = [*tiny.PAIRS, long]  # longer than what Python's CSV reader takes by default
    pl.DataFrame(rows).write_csv(folder / "pairs.csv")
    analyze(folder, out=folder / "run", dtype="bfloat16")
    write_report(folder / "run")
    return folder


def analyze(place: Path, data: Any = tiny.PAIRS, **options: Any) -> pl.DataFrame:
    return bluffscope.analyze(data, model=place / "model", sae=place / "sae", batch_tokens=256, **options)


def statistics(place: Path) -> pl.DataFrame:
    run = bluffscope.read_run(place / "run")
    return analyse_table(run.metrics, run.pairs).rows


def features(place: Path) -> pl.DataFrame:
    run = bluffscope.read_run(place / "run")
    return feature_effects(run.features, run.pairs.join(run.metrics.select("pair_id"), on="pair_id")).rows


CALLS: dict[str, Callable[[Path], Any]] = {
    "analyze": analyze,
    "analyze in bfloat16": lambda place: analyze(place, dtype="bfloat16"),
    "analyze in float64": lambda place: analyze(place, dtype="float64"),
    "analyze a CSV file": lambda place: analyze(place, place / "pairs.csv"),
    "analyze what is not there": lambda place: bluffscope.analyze(tiny.PAIRS, model=place / "none", sae=place / "sae"),
    "lint": lambda place: bluffscope.lint(limit=60).as_dict(9),
    "lint a CSV file": lambda place: bluffscope.lint(place / "pairs.csv").as_dict(9),
    "lint in tokens": lambda place: bluffscope.lint(tiny.PAIRS, model=str(place / "model")).as_dict(9),
    "stats": statistics,
    "features": features,
    "fidelity": lambda place: bluffscope.measure_fidelity(place / "run", pairs=2).table,
    "report": lambda place: write_report(place / "run").sentence,
}


def assert_same(got: Any, expected: Any) -> None:
    if isinstance(expected, pl.DataFrame):
        assert_frame_equal(got, expected, check_exact=True)
    elif isinstance(expected, InputError):
        assert (type(got), str(got)) == (InputError, str(expected))
    else:
        assert got == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("analyze", "analyze"),
        ("analyze in float64", "analyze in bfloat16"),
        ("analyze", "analyze what is not there"),
        ("analyze", "lint in tokens"),
        ("analyze a CSV file", "lint a CSV file"),
        ("lint a CSV file", "lint a CSV file"),
        ("analyze", "report"),
        ("analyze", "stats"),
        ("stats", "stats"),
        ("features", "stats"),
        ("fidelity", "lint"),
        ("report", "analyze what is not there"),
    ],
)
def test_two_calls_at_once_give_what_each_gives_alone_and_leave_the_process_as_it_was(place, first, second):
    alone = [together(CALLS[name].__get__(place), lambda: None)[0] for name in (first, second)]
    before = state_of_the_process()
    for got, expected in zip(together(*(CALLS[name].__get__(place) for name in (first, second))), alone, strict=True):
        assert_same(got, expected)
    assert state_of_the_process() == before


def test_two_runs_on_ray_take_turns_too(place):
    pytest.importorskip("ray")
    local = analyze(place)
    before = state_of_the_process()
    for table in together(*[lambda: analyze(place, engine="ray", workers=1)] * 2):
        assert_frame_equal(table, local, check_exact=True)
    assert state_of_the_process() == before


def entered(manager: Callable[[], Any]) -> tuple[bool, bool]:
    """Whether a second thread comes into a block while a first is in it, and after it."""
    inside, leave = threading.Event(), threading.Event()

    def hold(meanwhile: threading.Event) -> None:
        with manager():
            inside.set()
            meanwhile.wait(SECONDS)

    first = threading.Thread(target=hold, args=(leave,), daemon=True)
    first.start()
    assert inside.wait(SECONDS)
    inside.clear()
    second = threading.Thread(target=hold, args=(leave,), daemon=True)
    second.start()
    meanwhile = inside.wait(0.3)
    leave.set()
    first.join(SECONDS)
    second.join(SECONDS)
    return meanwhile, inside.is_set()


@pytest.mark.parametrize("manager", [exclusive, libraries_quiet, lambda: environment({"BLUFFSCOPE_TEST": "1"})])
def test_what_changes_the_process_is_entered_by_one_thread_at_a_time(manager):
    before = state_of_the_process()
    assert entered(manager) == (False, True)
    assert state_of_the_process() == before


def test_the_second_call_says_in_one_line_that_it_waits_and_not_in_the_log_of_the_first(caplog):
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(bluffscope.lint(tiny.PAIRS)), daemon=True)
    with exclusive(), logging_to(RunLog()) as log:
        waiting.start()
        waiting.join(1.5)
        assert caplog.messages == ["waiting for another call of bluffscope in this process: there is one at a time"]
        assert (log._early, found) == ([], [])
    waiting.join(SECONDS)
    assert len(found) == 1


def test_every_call_waits_its_turn(place, caplog):
    calls = [CALLS[name].__get__(place) for name in ("analyze", "lint", "stats", "features", "fidelity", "report")]
    with ThreadPoolExecutor(len(calls)) as pool:
        with exclusive():
            futures = [pool.submit(call) for call in calls]
            assert not wait(futures, timeout=3).done
            assert len(caplog.messages) == len(calls)
        for future in futures:
            future.result(SECONDS)


def test_no_generator_holds_the_turn_of_a_call_while_its_user_has_it():
    source = Path(bluffscope.__file__).parent
    wrong = []
    for path in source.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and any(
                "exclusive()" in ast.unparse(d) for d in function.decorator_list
            ):
                wrong += [
                    f"{path.name}: {function.name}"
                    for node in ast.walk(function)
                    if isinstance(node, ast.Yield | ast.YieldFrom)
                ]
    assert wrong == []


def test_a_run_s_log_holds_what_its_own_threads_say_and_nothing_of_another_s(place, tmp_path):
    logger = logging.getLogger("bluffscope.test")

    class Meanwhile:
        """While the run is under way, its own thread says something, and so does a stranger."""

        def start(self, total: int) -> None:
            pass

        def advance(self, pairs: int) -> None:
            logger.warning("of this run")
            stranger = threading.Thread(target=logger.warning, args=("of another",))
            stranger.start()
            stranger.join(SECONDS)

        def finish(self) -> None:
            pass

    def said(measurement: bluffscope.Measurement) -> dict[str, Any]:
        logger.warning("of its analysis")  # in the thread behind the model's
        return {"label": ["x"] * len(measurement.pair_ids)}

    from bluffscope.api import config_from, run

    config = config_from(data=str(place / "pairs.csv"), model=place / "model", sae=place / "sae", out=tmp_path / "run")
    added = bluffscope.UserAnalysis(said, (bluffscope.Column("label", "str", "", None, None, "A label."),))
    run(config, added=(added,), progress=Meanwhile(), draw=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    messages = {line["message"] for line in lines if line["level"] == "warning"}
    assert {"of this run", "of its analysis"} <= messages
    assert "of another" not in messages


def test_a_row_of_a_csv_file_waits_for_that_of_another_thread_and_the_limit_is_python_s_own_again():
    before = csv.field_size_limit()
    inside, go_on = threading.Event(), threading.Event()

    def lines(line: str, wait_for: threading.Event) -> Iterator[str]:
        inside.set()
        wait_for.wait(SECONDS)
        yield line

    def read(line: str, wait_for: threading.Event) -> None:
        assert _next_row(csv.reader(lines(line, wait_for)), "file") == [line]

    threads = [threading.Thread(target=read, args=("x" * (before + 1), go_on), daemon=True) for _ in range(2)]
    threads[0].start()
    assert inside.wait(SECONDS)
    inside.clear()
    threads[1].start()
    assert not inside.wait(0.3)
    go_on.set()
    for thread in threads:
        thread.join(SECONDS)
    assert inside.is_set()
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("switched_off", [True, False])
def test_progress_bars_of_downloads_are_after_loading_as_they_were_before(place, switched_off):
    was = are_progress_bars_disabled()
    try:
        disable_progress_bars() if switched_off else enable_progress_bars()
        bluffscope.lint(tiny.PAIRS, model=str(place / "model"))
        assert are_progress_bars_disabled() is switched_off
    finally:
        disable_progress_bars() if was else enable_progress_bars()


def test_a_call_inside_a_call_does_not_wait_for_itself(place):
    def nested(measurement: bluffscope.Measurement) -> dict[str, Any]:
        return {"found": [len(bluffscope.lint(tiny.PAIRS).findings)] * len(measurement.pair_ids)}

    column = bluffscope.Column("found", "int", "", None, None, "Findings.")
    done, _ = together(lambda: analyze(place, added=[bluffscope.UserAnalysis(nested, (column,))]), lambda: None)
    assert done["found"].to_list() == [len(bluffscope.lint(tiny.PAIRS).findings)] * len(tiny.PAIRS)


def forked(before: str, call: str) -> str:
    """What a child says that a process forks off after `before`."""
    script = f"""
        import multiprocessing, os, sys
        import bluffscope, bluffscope.host.exclusive
        bluffscope.host.exclusive._POLARS_SECONDS = 2
        {before}
        def child():
            try:
                {call}
                print("done", flush=True)
            except bluffscope.InputError as error:
                print(error, flush=True)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join({SECONDS})
        process.kill()
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LINT = "bluffscope.lint(limit=20)"
USE = "import polars as pl; pl.DataFrame({'a': [1], 'b': [2]}).select(pl.col('a').sum(), pl.col('b').sum())"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("call", [LINT, "bluffscope.analyze(limit=2)", "bluffscope.read_run('.')"])
def test_a_child_forked_after_polars_was_used_is_refused_in_one_line(call):
    said = forked(USE, call)
    assert said.startswith("this process was forked from one that had used polars")
    assert 'multiprocessing.get_context("spawn") or "forkserver"' in said
    assert "\n" not in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_before_polars_was_used_works():
    assert forked("bluffscope.analyze", f"{LINT}; bluffscope.analyze(limit=2)") == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_while_a_call_is_under_way_does_not_wait_for_it():
    held = "from bluffscope.host.exclusive import exclusive; import threading; held = exclusive(); "
    held += "thread = threading.Thread(target=held.__enter__); thread.start(); thread.join(9)"
    assert forked(held, LINT) == "done"
