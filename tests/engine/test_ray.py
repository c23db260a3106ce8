"""Shards on Ray: each once, whatever dies; errors, warnings and progress as if it all happened here."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from dataclasses import dataclass

import polars as pl
import psutil
import pytest

from bluffscope.engine.base import Tally
from bluffscope.engine.placement import Placement
from bluffscope.errors import InputError, RunStopped, WorkerLostError
from bluffscope.host.stopwatch import Stopwatch

pytest.importorskip("ray")
import ray  # noqa: E402

from bluffscope.engine import cluster as clusters  # noqa: E402
from bluffscope.engine import probe  # noqa: E402
from bluffscope.engine.cluster import Watch, cluster  # noqa: E402
from bluffscope.engine.ray import RayEngine  # noqa: E402
from bluffscope.runs.workers import Crew, on_ray  # noqa: E402
from light_worker import Factory, Worker, frame, shards  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::Warning:ray")


@pytest.fixture(scope="module", autouse=True)
def machine():
    """Ray on this machine, once for all tests: it takes seconds to start."""
    with cluster(None, 4):
        yield


@dataclass
class Outcome:
    tables: dict
    told: list
    engine: RayEngine
    stopwatch: Stopwatch
    crew: Crew

    @property
    def table(self):
        return pl.concat(self.tables[number] for number in sorted(self.tables))


def run(make_worker, work, workers=2, meanwhile=None):
    tables, told, stopwatch = {}, [], Stopwatch()

    def commit(shard, table):
        assert shard.number not in tables
        tables[shard.number] = table

    with cluster(None) as nodes, RayEngine(Placement(workers, 1), stopwatch, ("light_worker", __name__)) as engine:
        assert nodes
        crew = on_ray(engine, make_worker)
        if meanwhile:
            threading.Thread(target=meanwhile, args=(engine,), daemon=True).start()
        crew.run(iter(work), commit, told.append)
    return Outcome(tables, told, engine, stopwatch, crew)


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_shard_is_committed_once_whatever_the_number_of_workers(workers):
    outcome = run(Factory(), shards(), workers)
    assert outcome.table.equals(pl.concat(map(frame, shards())))
    assert sum(outcome.told) == 32


def test_a_source_without_shards_is_done_at_once():
    assert run(Factory(), []).tables == {}


@pytest.mark.thorough
def test_shards_are_taken_from_their_source_no_earlier_than_workers_can_have_them():
    taken = []

    def source():
        for shard in shards(20):
            taken.append(shard.number)
            yield shard

    def commit(shard, table):
        committed.append(shard.number)
        assert len(taken) <= len(committed) + 4  # two for each of two workers

    committed = []
    with cluster(None), RayEngine(Placement(2, 1), Stopwatch(), ("light_worker", __name__)) as engine:
        engine.run(source(), Factory(), commit, lambda pairs: None)
    assert sorted(committed) == list(range(20))


@pytest.mark.process
@pytest.mark.parametrize("seed", range(2))
def test_workers_killed_at_random_moments_cost_no_row_and_double_none(seed, caplog):
    generator = random.Random(seed)
    killed = []

    def kill(engine):
        for _ in range(3):
            time.sleep(generator.uniform(0.05, 0.4))
            if pids := engine.pids:
                killed.append(generator.choice(pids))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    outcome = run(Factory(seconds=0.01), shards(20, 8), meanwhile=kill)
    assert killed
    assert outcome.engine.lost >= 1
    assert outcome.table.equals(pl.concat(map(frame, shards(20, 8))))
    assert sum(outcome.told) == 160
    assert min(outcome.told) >= 0
    assert "its pairs will be measured again" in caplog.text


@pytest.mark.process
def test_a_worker_that_stops_answering_is_replaced_and_costs_no_row(monkeypatch, caplog):
    monkeypatch.setattr("bluffscope.engine.ray.MOST_UNANSWERED", 6)
    stopped = []

    def stop(engine):
        time.sleep(0.3)
        stopped.append(engine.pids[0])
        os.kill(stopped[0], signal.SIGSTOP)

    outcome = run(Factory(seconds=0.02), shards(30, 8), meanwhile=stop)
    assert outcome.engine.lost == 1
    assert outcome.table.equals(pl.concat(map(frame, shards(30, 8))))
    assert "it did not answer for 3 s" in caplog.text
    assert stopped[0] not in outcome.engine.pids


@dataclass(frozen=True)
class Slow:
    """A factory whose worker takes longer to load than a worker may leave news unanswered."""

    def __call__(self):
        time.sleep(4)
        return Worker()


@pytest.mark.process
def test_a_worker_that_takes_long_to_load_is_waited_for_and_one_that_never_starts_is_not(monkeypatch):
    monkeypatch.setattr("bluffscope.engine.ray.MOST_UNANSWERED", 2)
    assert run(Slow(), shards(), 1).engine.lost == 0
    monkeypatch.setattr("bluffscope.engine.ray.MOST_WITHOUT_WORKER", 4)
    placement = Placement(1, 1000)
    with (
        cluster(None),
        RayEngine(placement, Stopwatch(), ("light_worker",)) as engine,
        pytest.raises(WorkerLostError, match="no worker has started"),
    ):
        engine.hire(Factory())


@pytest.mark.process
def test_a_pair_that_kills_its_worker_is_found_and_given_up_and_all_others_are_measured(capfd):
    outcome = run(Factory({"p13": "dies"}), shards(4, 8), 2)
    table = outcome.table
    assert table["_index"].to_list() == list(range(32))
    given_up = table.filter(pl.col("_reason").is_not_null())
    assert given_up["id"].to_list() == ["p13"]
    assert given_up["_reason"].item() == "the worker's process died whenever it measured this pair (SYSTEM_ERROR)"
    # Its shard twice, then halves of 4, 2 and 1; once more where the shard before it had not been handed over yet.
    assert outcome.engine.lost in (5, 6)
    assert sum(outcome.told) == 32
    assert capfd.readouterr().out == ""  # Ray would print the deaths there


def pid_of(worker):
    return os.getpid()


def refuse(worker):
    raise InputError(f"{worker.done} pairs are enough")


@pytest.mark.thorough
def test_a_question_is_answered_by_a_worker_that_is_left_and_its_error_is_raised_here():
    with cluster(None), RayEngine(Placement(2, 1), Stopwatch(), ("light_worker", __name__)) as engine:
        engine.run(iter(shards(4, 4)), Factory(seconds=0.02), lambda shard, table: None, lambda pairs: None)
        assert engine.ask(pid_of) in engine.pids
        with pytest.raises(InputError, match="^[0-9]+ pairs are enough$"):
            engine.ask(refuse)
        killed: list[int] = []
        with pytest.raises(WorkerLostError, match="all workers are gone"):
            while len(killed) < 4:  # two, or one where the run ended before the other had loaded
                killed.append(engine.ask(pid_of))
                dead = psutil.Process(killed[-1])
                dead.kill()
                with contextlib.suppress(psutil.TimeoutExpired):  # nobody may bury it
                    dead.wait(5)
        assert 1 <= len(killed) == len(set(killed)) <= 2


@pytest.mark.process
def test_several_fatal_pairs_are_all_found():
    fatal = {"p3": "dies", "p4": "dies"}
    table = run(Factory(fatal), shards(2, 4)).table
    assert table["_index"].to_list() == list(range(8))
    assert table.filter(pl.col("_reason").is_not_null())["id"].to_list() == list(fatal)


@pytest.mark.process
def test_workers_that_die_of_every_pair_end_the_run():
    with pytest.raises(WorkerLostError, match="workers died one after another without finishing anything"):
        run(Factory({f"p{index}": "dies" for index in range(16)}), shards(4, 4), 1)


@pytest.mark.thorough
def test_an_error_raised_in_a_worker_arrives_as_itself():
    with pytest.raises(InputError) as caught:
        run(Factory({"p9": "raises"}), shards())
    assert str(caught.value) == "the pair says no"


@dataclass(frozen=True)
class Unmakable:
    """A factory whose worker cannot be made."""

    fatal: bool

    def __call__(self):
        if self.fatal:
            os._exit(1)
        raise InputError("no such model")


@pytest.mark.thorough
def test_an_error_while_a_worker_is_made_arrives_as_itself():
    with pytest.raises(InputError) as caught:
        run(Unmakable(fatal=False), shards())
    assert str(caught.value) == "no such model"


@pytest.mark.process
def test_workers_that_die_while_they_are_made_are_not_replaced_for_ever():
    with pytest.raises(WorkerLostError, match="workers die while they load"):
        run(Unmakable(fatal=True), shards())


@pytest.mark.thorough
def test_an_error_of_the_driver_ends_the_run_and_the_workers():
    def commit(shard, table):
        raise OSError("disk full")

    pids = []
    with (
        pytest.raises(OSError, match="disk full"),
        cluster(None),
        RayEngine(Placement(2, 1), Stopwatch(), ("light_worker", __name__)) as engine,
    ):
        engine.hire(Factory())
        pids += engine.pids
        engine.run(shards(), Factory(), commit, lambda pairs: None)
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pids
    assert not any(map(psutil.pid_exists, pids))


def test_a_run_that_is_to_stop_keeps_the_shards_that_have_come():
    tables, told = {}, []

    def advance(pairs):
        told.append(pairs)
        if sum(told) >= 12:
            raise RunStopped(signal.SIGINT)

    with cluster(None), RayEngine(Placement(2, 1), Stopwatch(), ("light_worker",)) as engine:
        engine.hire(Factory())
        with pytest.raises(RunStopped):
            engine.run(shards(), Factory(), lambda shard, table: tables.update({shard.number: table}), advance)
    assert 0 < len(tables) < 8
    for number, table in tables.items():
        assert table.equals(frame(shards()[number]))


@pytest.mark.thorough
def test_a_warning_of_all_workers_is_shown_once(caplog):
    run(Factory({f"p{index}": "warns" for index in range(32)}), shards())
    # Ray's own logger may still tell of workers of other tests.
    said = [(record.name, record.getMessage()) for record in caplog.records if record.name.startswith("bluffscope")]
    assert said == [("bluffscope.model", "beware")]


def test_work_and_seconds_are_summed_over_workers_and_loading_is_the_drivers():
    outcome = run(Factory(), shards(), 2)
    assert outcome.engine.tally().work == {"pairs": 32}
    assert outcome.stopwatch.seconds == {"forward": 32.0}
    assert outcome.engine.seconds > 0
    workers = outcome.crew.workers(32)
    assert workers == {
        "number": 2,
        "threads": 1,
        "gpu": False,
        "lost": 0,
        "pairs_per_second_each": 32 / outcome.engine.seconds / 2,
    }
    assert outcome.crew.loaded.fingerprint == "weights"


@pytest.mark.thorough
def test_progress_is_told_while_a_shard_is_in_work():
    outcome = run(Factory(seconds=0.05), shards(1, 40), 1)
    assert sum(pairs > 0 for pairs in outcome.told) > 1
    assert sum(outcome.told) == 40


@dataclass(frozen=True)
class Unlike:
    """Every worker loads other weights."""

    def __call__(self):
        return Worker(fingerprint=str(os.getpid()), seconds=0.05)


@pytest.mark.thorough
def test_workers_that_load_different_weights_are_refused():
    with pytest.raises(InputError, match="different weights under the same name"):
        run(Unlike(), shards(), 2)


def test_no_thread_is_started_beyond_those_of_a_worker():
    outcome = run(Threads(), shards(), 1)
    assert outcome.engine.tally().work["polars"] == 1


@dataclass(frozen=True)
class Threads:
    """Its worker says how many threads polars takes."""

    def __call__(self):
        worker = Worker()
        worker.tally = lambda: Tally({}, {"polars": pl.thread_pool_size()})
        return worker


def test_a_process_that_is_connected_already_refuses_another_cluster():
    said = "--address 127.0.0.1:1: this process is connected to the cluster at"
    with pytest.raises(InputError, match=said), cluster("127.0.0.1:1"):
        pass


def test_the_probe_finds_the_cluster_that_there_is(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["probe.py", ray.get_runtime_context().gcs_address])
    assert probe.main() == 0, capsys.readouterr().out


def test_a_cluster_that_is_silent_or_dead_ends_what_waits_for_it(monkeypatch):
    with Watch() as watch:
        assert watch.call(lambda: "answered") == "answered"
        watch.check()
        monkeypatch.setattr(clusters, "SILENCE_SECONDS", -1)
        with pytest.raises(WorkerLostError, match="--engine ray: the head of the cluster has not answered for -1 s"):
            watch.check()
        monkeypatch.setattr(clusters, "LOOK_SECONDS", 0.01)
        with pytest.raises(WorkerLostError, match="the head of the cluster has not answered"):
            watch.call(lambda: time.sleep(0.2))


def test_a_ray_that_does_not_start_is_said_in_a_line():
    refused = pytest.raises(InputError, match=r"^--address x: no \(.*ray\.init")
    with refused, clusters._ray("--address x: no", InputError, address="local"):  # there is one already
        pass


def test_gpus_that_do_not_answer_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(clusters, "_GPU_SECONDS", 0.1)
    with pytest.raises(WorkerLostError, match="the cluster's GPUs did not answer in 0 s"):
        clusters.free_gpu_memory(1)
