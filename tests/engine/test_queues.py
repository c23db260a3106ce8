"""Work ahead and behind: in order, bounded, and ended by an error of any side."""

from __future__ import annotations

import threading
import time

import pytest

from bluffscope.engine.queues import ahead, behind

DEPTHS = [0, 1, 3]


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("bluffscope-")]


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    yield
    deadline = time.monotonic() + 10
    while alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive()


@pytest.mark.parametrize("depth", DEPTHS)
def test_items_come_in_order(depth):
    assert list(ahead(iter(range(20)), depth)) == list(range(20))


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_items_are_made_ahead(depth):
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    stream = ahead(items(), depth)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(made) <= depth + 2  # those waiting, one on its way into the queue, and the one taken
    stream.close()
    time.sleep(0.3)
    assert len(made) <= depth + 3


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_comes_where_its_item_would_have_come(depth):
    def items():
        yield 1
        raise KeyError("second")

    stream = ahead(items(), depth)
    assert next(stream) == 1
    with pytest.raises(KeyError, match="second"):
        next(stream)


@pytest.mark.parametrize("depth", DEPTHS)
def test_everything_is_done_in_order_before_the_block_is_left(depth):
    done = []

    def slow(item):
        time.sleep(0.01)
        done.append(item)

    with behind(slow, depth) as put:
        for number in range(8):
            put(number)
    assert done == list(range(8))


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_behind_is_raised_and_nothing_more_is_taken(depth):
    done = []

    def failing(item):
        if item == 2:
            raise OSError("disk full")
        done.append(item)

    with pytest.raises(OSError, match="disk full"), behind(failing, depth) as put:
        for number in range(50):
            put(number)
    assert done == [0, 1]


@pytest.mark.parametrize("depth", [1, 3])
def test_an_error_of_the_block_stands_and_what_waits_is_dropped(depth):
    entered, leave = threading.Event(), threading.Event()
    done = []

    def blocked(item):
        entered.set()
        assert leave.wait(10)
        done.append(item)

    with pytest.raises(KeyError, match="model"), behind(blocked, depth) as put:
        put("in work")
        assert entered.wait(10)
        put("waiting")
        threading.Timer(0.2, leave.set).start()
        raise KeyError("model")
    assert done == ["in work"]
