"""How Ray is started here, and which addresses are refused before it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from bluffscope.engine import launch, probe
from bluffscope.errors import InputError


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:1", "127.0.0.1:0", "127.0.0.1:65536", ":6379"])
def test_what_is_no_address_is_refused_without_asking_anybody(address):
    with pytest.raises(InputError, match=f"^--address {address}: give HOST:PORT of the cluster's head, or auto"):
        launch.check_address(address)


def test_a_port_where_nobody_listens_is_refused_with_what_the_system_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = (
        rf"^--address 127.0.0.1:{port}: no Ray cluster answers there \(.*refused\); start one with `ray start --head`"
    )
    with pytest.raises(InputError, match=said):
        launch.check_address(f"127.0.0.1:{port}")


def test_who_does_not_answer_in_time_is_refused_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(launch, "_ANSWER_SECONDS", 0.01)
    with pytest.raises(InputError, match="nothing there answered as Ray does within 0 s"):
        launch.check_address("127.0.0.1:6379")


def test_the_probe_says_in_a_line_why_an_address_is_of_no_use(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["probe.py", "127.0.0.1:1"])
    assert probe.main() == 1
    assert "refused" in capsys.readouterr().out


def test_ray_s_folder_and_secret_are_there_while_it_starts_and_gone_afterwards(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    niceness = "RAY_worker_niceness"  # as Ray spells it
    monkeypatch.setenv(niceness, "3")
    with contextlib.suppress(KeyError), launch.starting() as options:
        folder = Path(options["_temp_dir"])
        assert folder.is_dir()
        assert 100 << 20 <= options["object_store_memory"] <= 1 << 30
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert os.environ[niceness] == "3", "the user's own stays"
        raise KeyError
    assert not folder.exists()
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize(("free", "taken"), [(40 << 30, 1 << 30), (2 << 30, 512 << 20), (1 << 20, 100 << 20)])
def test_tables_on_their_way_get_a_quarter_of_what_is_free_within_limits(free, taken, monkeypatch):
    monkeypatch.setattr(launch, "memory_available", lambda: free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert launch._store_bytes() == taken
