"""A cluster of several machines, played by one: workers on all of them, and a machine that is lost on the way."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("ray")
from ray import cluster_utils

from bluffscope.api import config_from, run
from bluffscope.engine.cluster import cluster
from bluffscope.engine.placement import Placement, place
from bluffscope.engine.ray import RayEngine
from bluffscope.errors import InputError, WorkerLostError
from bluffscope.host.stopwatch import Stopwatch
from light_worker import Factory, frame, shards


@pytest.fixture
def machines(monkeypatch):
    """A head and two further machines with a core each, outside this process, which had another Ray before."""
    with cluster(None):
        pass  # what it asks of those who talk to it must not be asked of the next one
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = tempfile.mkdtemp(prefix="bluffscope-ray-", dir="/tmp")  # pytest's are too long for names of sockets
    # The played cluster writes its address into Ray's default folder, whatever `temp_dir` says, and does not make it.
    monkeypatch.setenv("RAY_TMPDIR", folder)
    (Path(folder) / "ray").mkdir()
    head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False, "temp_dir": folder}
    played = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    others = [played.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    yield played, others
    played.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_machine_that_is_lost_costs_no_row(machines):
    played, others = machines
    tables, told = {}, []

    def commit(shard, table):
        assert shard.number not in tables
        tables[shard.number] = table
        if len(engine.pids) == 3 and len(others) == 2:  # each machine has a worker by now
            played.remove_node(others.pop(), allow_graceful=False)

    with cluster(played.address) as nodes:
        assert [(node.cores, node.gpus) for node in nodes] == [(1, 0)] * 3
        placement = place(nodes, "auto", gpu=False)
        assert (placement.workers, placement.cores) == (3, 1)
        with RayEngine(placement, Stopwatch(), ("light_worker",)) as engine:
            engine.hire(Factory(seconds=0.02))
            engine.run(shards(60, 4), Factory(seconds=0.02), commit, told.append)
        assert engine.lost >= 1
    table = pl.concat(tables[number] for number in sorted(tables))
    assert table.equals(pl.concat(map(frame, shards(60, 4))))
    assert sum(told) == 240


DEATHS = {"raylet": "the Ray node of this machine", "gcs_server": "the head of the cluster has not answered for 25 s"}


@pytest.mark.parametrize("victim", ["raylet", pytest.param("gcs_server", marks=pytest.mark.soak)])
def test_a_run_ends_when_the_node_of_its_own_machine_or_the_head_of_its_cluster_dies(victim, machines):
    played, _ = machines
    begun = None

    def commit(shard, table):
        nonlocal begun
        if begun is None:
            begun = time.monotonic()
            getattr(played.head_node, f"kill_{victim}")(check_alive=False)

    with (
        pytest.raises(WorkerLostError, match=f"^--engine ray: {DEATHS[victim]}"),
        cluster(played.address),
        RayEngine(Placement(2, 1), Stopwatch(), ("light_worker",)) as engine,
    ):
        engine.run(shards(2000, 4), Factory(seconds=0.02), commit, lambda pairs: None)
    assert time.monotonic() - begun < 60  # Ray has been left by then


@pytest.fixture
def listener():
    """A server that is not Ray: it accepts, and may answer; gives its address."""
    with contextlib.ExitStack() as stack:

        def listening(answer):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve():
                with contextlib.suppress(OSError):  # closed
                    while True:
                        held.append(server.accept()[0])
                        held[-1].sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            return f"127.0.0.1:{server.getsockname()[1]}"

        held = []
        yield listening
        for connection in held:
            connection.close()


NOWHERE = ["127.0.0.1:1", "127.0.0.1:99999", f"127.0.0.1:{'9' * 5000}", "127.0.0.1:0", "nonsense", "ray://127.0.0.1:1"]
NOWHERE += ["no.such.host.invalid:6379", "silent", "garbage"]


@pytest.mark.parametrize("address", NOWHERE)
def test_an_address_where_no_cluster_is_is_refused_in_a_line_before_anything_is_read(address, listener, tmp_path):
    if address in ("silent", "garbage"):
        address = listener(b"" if address == "silent" else b"HTTP/1.1 400 Bad Request\r\n\r\n")
    begun = time.monotonic()
    config = config_from(model="none", sae="none", data=str(tmp_path / "none"), engine="ray", address=address)
    with pytest.raises(InputError, match=f"^--address {address[:80]}"):
        run(config)
    assert time.monotonic() - begun < 15


def test_an_address_is_tried_again_when_it_is_used():
    with pytest.raises(InputError, match="^--address 127.0.0.1:1: no Ray cluster answers"), cluster("127.0.0.1:1"):
        pass
