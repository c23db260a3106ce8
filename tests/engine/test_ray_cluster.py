"""A cluster of several machines, played by one: workers on all of them, and a machine that is lost on the way."""

from __future__ import annotations

import shutil
import tempfile

import polars as pl
import pytest

pytest.importorskip("ray")
from ray import cluster_utils

from bluffscope.engine.placement import Need, place
from bluffscope.engine.ray import RayEngine, cluster
from bluffscope.errors import InputError
from bluffscope.timing import Stopwatch
from light_worker import Factory, frame, shards


@pytest.fixture
def machines(monkeypatch):
    """A head and two further machines with a core each, outside this process, which had another Ray before."""
    with cluster(None):
        pass  # what it asks of those who talk to it must not be asked of the next one
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = tempfile.mkdtemp(prefix="bluffscope-ray-", dir="/tmp")  # pytest's are too long for names of sockets
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
        placement = place(nodes, "auto", Need(), gpu=False)
        assert (placement.workers, placement.cores) == (3, 1)
        with RayEngine(placement, Stopwatch(), ("light_worker",)) as engine:
            engine.hire(Factory(seconds=0.02))
            engine.run(shards(60, 4), Factory(seconds=0.02), commit, told.append)
        assert engine.lost >= 1
    table = pl.concat(tables[number] for number in sorted(tables))
    assert table.equals(pl.concat(map(frame, shards(60, 4))))
    assert sum(told) == 240


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "nonsense", "ray://127.0.0.1:1"])
def test_an_address_where_no_cluster_is_is_refused_in_a_line(address):
    with pytest.raises(InputError, match=f"^--address {address}: "), cluster(address):
        pass
