"""A signal is noted once, and obeyed at once the second time."""

from __future__ import annotations

import signal
import threading

import pytest

from bluffscope.engine.queues import behind
from bluffscope.errors import RunStopped
from bluffscope.host.signals import stoppable

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def usual_handlers():
    """Those that a process starts with: whoever started the tests, or a test before, may have set others."""
    before = {number: signal.signal(number, usual) for number, usual in USUAL.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_told_by_the_check_and_the_second_at_once(number, code):
    before = USUAL[number]
    with pytest.raises(KeyboardInterrupt), stoppable() as check:
        check()
        signal.raise_signal(number)
        with pytest.raises(RunStopped) as stop:
            check()
        assert stop.value.exit_code == code and isinstance(stop.value, KeyboardInterrupt)
        signal.raise_signal(number)
        raise AssertionError("the second signal did not stop")
    assert signal.getsignal(number) is before


def test_handlers_of_others_are_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with stoppable() as check:
            signal.raise_signal(signal.SIGINT)
            check()
        assert heard == [1]
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under a shell that put the run into the background
        with stoppable() as check:
            signal.raise_signal(signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_changed():
    found = []

    def work():
        with stoppable() as check:
            check()
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert found == [before]


def test_what_waits_to_be_written_is_written_when_a_run_is_stopped():
    taken: list[int] = []
    gate = threading.Event()

    def take(item: int) -> None:
        gate.wait(10)
        taken.append(item)

    with pytest.raises(RunStopped), behind(take, 3) as hand_on:
        for item in range(3):
            hand_on(item)
        threading.Timer(0.05, gate.set).start()  # nothing is written before the block has ended
        raise RunStopped(signal.SIGINT)
    assert taken == [0, 1, 2]
