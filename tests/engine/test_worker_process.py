"""A worker behind a station: its tables in one order and whole, its news told once, its errors as they are."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from bluffscope.engine.base import Tally
from bluffscope.engine.worker_process import Said, Station, unpacked
from bluffscope.errors import InputError
from light_worker import Factory, Worker, frame, shards


def test_shards_measured_here_give_the_tables_and_the_tally_of_their_worker():
    station = Station(Factory())
    pid, description, _ = station.describe()
    assert (pid, description.fingerprint) == (os.getpid(), "weights")
    for shard in shards(3):
        answer = station.measure(shard)
        assert unpacked(answer.table).equals(frame(shard))
    assert (answer.news.pairs, answer.news.tally.work) == (12, {"pairs": 12})
    assert station.answer(lambda worker: worker.done) == 12


def test_warnings_are_told_once_with_who_said_them():
    station = Station(Factory({"p1": "warns"}))
    said = station.measure(shards(1)[0]).news.said
    assert said == (Said("bluffscope.model", logging.WARNING, "beware"),)
    assert station.news().said == ()


def test_an_error_of_a_pair_is_raised_and_the_next_shard_is_measured():
    station = Station(Factory({"p1": "raises"}))
    first, second = shards(2)
    with pytest.raises(InputError, match="^the pair says no$"):
        station.measure(first)
    assert unpacked(station.measure(second).table).equals(frame(second))


def test_while_a_worker_loads_its_news_are_empty_and_afterwards_they_are_its_own():
    loaded = threading.Event()

    def load():
        assert loaded.wait(10)
        return Worker()

    station = Station(load)
    assert station.news().tally == Tally()
    loaded.set()
    station.describe()
    assert station.news().tally.peak_bytes == os.getpid()  # as the worker of the tests says


def test_a_worker_that_cannot_be_made_says_why_to_whoever_asks():
    def fail():
        raise InputError("no such model")

    station = Station(fail)
    for ask in (station.describe, lambda: station.measure(shards(1)[0])):
        with pytest.raises(InputError, match="^no such model$"):
            ask()
    assert station.news().tally == Tally()
