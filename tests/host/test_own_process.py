"""A process of our own waits so that others can work; one that imports the library stays as it is."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from bluffscope.host import own_process
from bluffscope.host.own_process import ASLEEP, BRIEFLY, others_running, settle, waiting

HOW = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture
def unset(monkeypatch):
    for name in HOW:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def running(monkeypatch, tmp_path):
    """A system on which so many threads run, ours among them."""
    monkeypatch.setattr(own_process, "_RUNNING", tmp_path / "loadavg")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return lambda number: (tmp_path / "loadavg").write_text(f"3.14 2.71 1.41 {number}/602 1896\n")


@pytest.mark.parametrize(("number", "how"), [(1, BRIEFLY), (2, ASLEEP), (40, ASLEEP)])
def test_threads_sleep_at_once_where_others_run_and_else_after_a_moment(unset, running, number, how):
    running(number)
    assert others_running() == number - 1
    assert waiting() == how


def test_others_on_cores_that_this_process_may_not_use_do_not_count(unset, running, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    running(15)
    assert waiting() == BRIEFLY
    running(16)
    assert waiting() == ASLEEP


def test_one_that_runs_for_a_moment_only_does_not_count(unset, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(os.cpu_count())), raising=False)
    numbers = iter([3, 2, 1, 5])
    monkeypatch.setattr(own_process, "_runnable", lambda: next(numbers))
    assert others_running() == 0


@pytest.mark.parametrize(("load", "how"), [(0.4, BRIEFLY), (2.0, ASLEEP)])
def test_elsewhere_the_load_of_the_last_minute_counts(unset, running, monkeypatch, load, how):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert waiting() == how  # there is no such file


@pytest.mark.parametrize("name", HOW)
def test_what_the_user_has_set_stays(unset, running, monkeypatch, name):
    running(9)
    monkeypatch.setenv(name, "1")
    assert waiting() == {}


def test_a_process_that_has_loaded_torch_keeps_its_environment(unset, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    before, kept = dict(os.environ), gc.get_threshold()
    try:
        settle()
        assert dict(os.environ) == before
    finally:
        gc.set_threshold(*kept)


@pytest.mark.process
def test_the_command_sets_it_before_torch_is_loaded_and_the_library_never():
    script = "import os, sys; {}; sys.exit(any(name in os.environ for name in {}) + 2 * ('torch' in sys.modules))"
    environment = {name: value for name, value in os.environ.items() if name not in HOW}

    def code(line):
        command = [sys.executable, "-c", script.format(line, HOW)]
        return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=120, check=False).returncode

    assert code("from bluffscope.cli.main import main; main(['--version'])") == 1
    assert code("from bluffscope.api import run") == 2
