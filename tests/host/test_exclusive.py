"""One call at a time in a process: another thread's waits and says so, a call's own calls do not."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from bluffscope.errors import InputError
from bluffscope.host import exclusive as module
from bluffscope.host.exclusive import exclusive


def test_a_second_thread_waits_and_says_that_it_does(monkeypatch, caplog):
    monkeypatch.setattr(module, "_SAID_AFTER_SECONDS", 0.01)
    order, inside = [], threading.Event()

    def second():
        inside.wait(10)
        with exclusive():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with exclusive(), exclusive():  # a call within a call is no other
        inside.set()
        end = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.002)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert caplog.messages == ["waiting for another call of bluffscope in this process: there is one at a time"]


def test_numpy_s_errors_are_as_in_a_fresh_process_whatever_the_caller_has_set():
    with np.errstate(all="raise"), exclusive():
        assert np.geterr() == {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def test_a_process_in_which_polars_never_answers_is_refused_with_what_to_do(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(module, "_polars_works", set())
    monkeypatch.setattr(module, "_POLARS_SECONDS", 0.01)
    monkeypatch.setattr(module, "_use_polars", release.wait)
    with pytest.raises(InputError, match='get_context."spawn".'), exclusive():
        pass
    release.set()
