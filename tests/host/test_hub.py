"""The hub is asked once whether it answers, and only where something is to be had from it."""

from __future__ import annotations

import http.server
import logging
import socket
import threading

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, tqdm
from huggingface_hub.utils import logging as hub_logging

import hub_cache
from bluffscope.host import hub


@pytest.fixture
def asked(monkeypatch):
    """Online, with an account of when the hub was asked; it never answers."""
    calls = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", lambda url: bool(calls.append(url)))
    return calls


def test_where_the_hub_does_not_answer_the_cache_is_all_there_is(asked, caplog):
    before = hub_logging.get_verbosity()
    with caplog.at_level(logging.WARNING, "bluffscope"):
        with hub.hub_or_cache(["org/model", "org/saes"]):
            assert constants.is_offline_mode()
            assert hub_logging.get_verbosity() == logging.ERROR
        assert asked == [constants.ENDPOINT]
        assert not constants.is_offline_mode()
        assert hub_logging.get_verbosity() == before
    end = "does not answer: used the local cache of org/model and org/saes"
    assert caplog.messages == [f"{constants.ENDPOINT} {end}"]


def test_everything_is_put_back_when_loading_fails_and_nothing_is_claimed(asked, caplog):
    with pytest.raises(KeyError), hub.hub_or_cache(["org/model"]):
        raise KeyError
    assert not constants.is_offline_mode()
    assert caplog.messages == []


def test_folders_are_had_without_asking(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    with hub.hub_or_cache([str(tmp_path), f"~/{tmp_path.name}"]):
        assert not constants.is_offline_mode()
    assert asked == []


def test_who_forbids_the_network_is_not_overruled(asked, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.hub_or_cache(["org/model"]):
        assert constants.is_offline_mode()
    assert constants.is_offline_mode()
    assert asked == []


def test_a_hub_that_answers_is_left_to_itself(asked, monkeypatch, caplog):
    monkeypatch.setattr(hub, "_answers", lambda url: True)
    with hub.hub_or_cache(["org/model"]):
        assert not constants.is_offline_mode()
    assert caplog.messages == []


@pytest.mark.parametrize("status", [200, 301, 401, 404, 500])
def test_any_answer_is_an_answer(status, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_HEAD(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.timeout = 10
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    try:
        assert hub._answers(f"http://127.0.0.1:{server.server_port}")
    finally:
        thread.join(30)
        server.server_close()


def test_no_name_no_port_no_word_and_no_address_are_no_answer(monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not hub._answers(f"http://127.0.0.1:{port}")  # listens, and says nothing
    assert not hub._answers(f"http://127.0.0.1:{port}")  # nobody listens any more
    assert not hub._answers("http://no-such-host.invalid")
    assert not hub._answers("no address at all")


def test_failures_that_are_not_the_hub_s_are_not_blamed_on_it():
    assert hub.refusal(ValueError("something else"), "org/model") is None
    error = OSError("wrapped")
    error.__cause__ = error  # a chain that bites its tail ends all the same
    assert hub.refusal(error, "org/model") is None


@pytest.fixture
def bars_shown():
    """Bars of downloads, whatever the process was set to."""
    hidden = are_progress_bars_disabled()
    enable_progress_bars()
    yield
    if hidden:
        disable_progress_bars()


@pytest.mark.usefixtures("bars_shown")
def test_how_far_a_download_is_gets_reported_in_place_of_a_bar(capsys):
    told = []
    bar = {"total": 4_000_000, "unit": "B", "unit_scale": True, "desc": "w.bin", "disable": False, "mininterval": 0}
    with hub.downloads_reported(told.append), tqdm(**bar) as download:
        download.update(1_000_000)
        download.refresh()
    assert told[-1] == "Downloading w.bin: 1.00MB of 4.00MB"
    assert capsys.readouterr() == ("", "")


def test_what_is_not_cached_says_whether_the_hub_was_silent_forbidden_or_failed(asked, monkeypatch):
    with pytest.raises(KeyError), hub.hub_or_cache(["org/model"]):
        assert hub.not_cached().startswith("no such folder here, and not (wholly) in the Hugging Face cache; ")
        assert f"{constants.ENDPOINT} does not answer: check the name and the network" in hub.not_cached()
        raise KeyError
    said = hub.not_cached(folders=False)
    assert said.startswith("not (wholly) in the Hugging Face cache; the download from ")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "while HF_HUB_OFFLINE forbids downloading it; unset that" in hub.not_cached()


def test_a_connection_that_broke_off_is_to_be_tried_again(asked):
    error = OSError("loading failed")
    error.__cause__ = httpx.ReadTimeout("no answer")
    said = f"the download from {constants.ENDPOINT} broke off: run it again to continue, or give a folder"
    assert hub.refusal(error, "org/model") == said
    assert hub.refusal(OSError("Consistency check failed: file should be of size 5"), "org/model") == said


def test_a_folder_has_no_commit_and_neither_has_what_is_not_cached(tmp_path):
    assert hub.cached_commit(str(tmp_path)) is None
    assert hub.cached_commit("nobody/nothing") is None


def test_a_revision_of_the_cache_is_found_by_branch_tag_and_commit(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    commit = hub_cache.add_repository(tmp_path / "home", "org/model", tmp_path / "files")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    (tmp_path / "home" / "hub" / "models--org--model" / "refs" / "v1").write_text(commit)
    (tmp_path / "home" / "hub" / "models--org--model" / "refs" / "gone").write_text("0" * 40)
    assert [hub.cached_commit("org/model", name) for name in (None, "main", "v1", commit)] == [commit] * 4
    assert [hub.cached_commit("org/model", name) for name in ("v2", "gone", "0" * 40)] == [None] * 3
    assert hub.cached_snapshot("org/model") == hub_cache.snapshot(tmp_path / "home", "org/model")
    assert hub_cache.snapshot(tmp_path / "home", "org/model").joinpath("config.json").read_text() == "{}"


@pytest.mark.parametrize("revision", ["../../../../elsewhere", "/elsewhere", "..\\x"])
def test_a_revision_leads_to_no_file_outside_the_cache(tmp_path, monkeypatch, revision):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    hub_cache.add_repository(tmp_path / "home", "org/model", tmp_path / "files")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    (tmp_path / "elsewhere").write_text(hub_cache.snapshot(tmp_path / "home", "org/model").name)
    assert hub.leaves(revision)
    assert hub.cached_snapshot("org/model", revision) is None
