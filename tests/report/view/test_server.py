"""The server answers this machine's own page, and nobody and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

import polars as pl
import pytest

from bluffscope.cli.main import main
from bluffscope.errors import InputError
from bluffscope.report.view.server import bound, refusal
from made_runs import make_run
from viewing import asked, rows, sent, served

HOSTILE = "<script>fetch('/rows.json')</script>"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two runs, one with a hostile report, and what must never be served."""
    root = tmp_path_factory.mktemp("view") / "runs"
    run = make_run(root / "a" / "run", 4)
    (run / "report.html").write_text(HOSTILE)
    (run / "secret.txt").write_text("secret")
    (run / "figures").mkdir()
    (run / "figures" / "one.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    (run / "figures" / "two.js").write_text("1")
    (run / "log.jsonl").write_text('{"message": "m"}\n')
    make_run(root / "odd # % name ü", 4)
    (root / "secret.txt").write_text("secret")
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "report.html").write_text("secret")
    (root / "way-out").symlink_to(root.parent / "outside")
    (run / "stats.json").symlink_to(root.parent / "outside" / "report.html")
    os.link(run / "manifest.json", run / "study.json.tmp")
    return root


@pytest.fixture(scope="module")
def port(root):
    with served(root) as port:
        yield port


def test_the_page_and_its_lines_are_answered_with_a_policy_that_lets_nothing_else_in(port):
    status, headers, page = asked(port, "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert b"http://" not in page.replace(b"http://www.w3.org", b"")
    assert b"https://" not in page
    assert {row["name"] for row in rows(port)} == {"a/run", "odd # % name ü"}
    for path in ("/", "/rows.json", "/files/a/run/report.html", "/nothing"):
        headers = asked(port, path)[1]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_every_file_that_is_offered_can_be_had_and_nothing_else(port, root):
    for row in rows(port):
        for name, size in row["files"]:
            status, headers, content = asked(port, f"/{row['href']}/{name}")
            assert (status, len(content)) == (200, size)
            assert headers["content-security-policy"].startswith("sandbox")
    offered = {name for row in rows(port) for name, _ in row["files"]}
    assert {"report.html", "figures/one.svg", "log.jsonl", "metrics.parquet"} <= offered
    assert not {"stats.json", "secret.txt", "figures/two.js", "study.json.tmp"} & offered


@pytest.mark.parametrize(
    "path",
    [
        "/files/a/run/secret.txt",
        "/files/secret.txt",
        "/files/way-out/report.html",
        "/files/a/run/stats.json",
        "/files/a/run/figures/two.js",
        "/files/a/run/figures/",
        "/files/a/run/",
        "/files/a/run",
        "/files/",
        "/files",
        "/files/../runs/a/run/report.html",
        "/files/a/../../outside/report.html",
        "/files/%2e%2e/outside/report.html",
        "/files/a%2Frun/report.html",
        "/files/a/run/..%2F..%2F..%2Foutside%2Freport.html",
        "/files/a/run/report.html%00",
        "/files//a/run/report.html",
        "/files/a/run/figures/..%2freport.html",
        "/files/%ff%fe/report.html",
        "/files/a\\run\\report.html",
        "/files/" + "a/" * 3000 + "report.html",
        "/rows.json/",
        "/..",
        "//files/a/run/report.html",
        "http://127.0.0.1/files/way-out/report.html",
    ],
)
def test_no_other_path_leads_anywhere(port, path):
    status, _, content = asked(port, path)
    assert status in (400, 404)
    assert b"secret" not in content


def test_a_report_is_shut_into_a_sandbox_and_other_files_cannot_act(port):
    _, headers, content = asked(port, "/files/a/run/report.html")
    policy = headers["content-security-policy"]
    assert content.decode() == HOSTILE
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # default-src 'none' stands for it
    assert "default-src 'none'" in policy
    _, headers, _ = asked(port, "/files/a/run/figures/one.svg")
    assert headers["content-type"] == "image/svg+xml"
    assert "allow-scripts" not in headers["content-security-policy"]
    _, headers, _ = asked(port, "/files/a/run/log.jsonl")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    _, headers, _ = asked(port, "/files/a/run/metrics.parquet")
    assert headers["content-disposition"] == 'attachment; filename="metrics.parquet"'


def test_a_run_s_own_folder_can_be_viewed(root):
    with served(root / "a" / "run") as port:
        (row,) = rows(port)
        assert (row["name"], row["href"]) == ("run", "files")
        assert asked(port, "/files/report.html")[2].decode() == HOSTILE
        assert asked(port, "/files/figures/one.svg")[0] == 200
        assert asked(port, "/files/secret.txt")[0] == 404


def test_head_says_the_same_without_the_content(port):
    for path in ("/", "/files/a/run/report.html", "/files/a/run/metrics.parquet"):
        status, full, content = asked(port, path)
        assert (status, asked(port, path, "HEAD")[0]) == (200, 200)
        assert asked(port, path, "HEAD")[2] == b""
        assert asked(port, path, "HEAD")[1]["content-length"] == str(len(content)) == full["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_can_be_changed(port, method):
    for path in ("/", "/rows.json", "/files/a/run/report.html"):
        assert asked(port, path, method)[0] in (400, 405)


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({"Host": "127.0.0.1:80"}, True),
        ({"Host": "localhost:9000"}, True),
        ({"Host": "LOCALHOST"}, True),
        ({"Host": "[::1]:8577"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "127.0.0.1.evil.example"}, False),
        ({"Host": "localhost.evil.example:8577"}, False),
        ({"Host": "evil.example#@127.0.0.1"}, False),
        ({"Host": "[::1"}, False),
        ({"Host": ""}, False),
        ({}, False),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, False),
        ({"Host": "localhost:1", "Origin": "https://evil.example"}, False),
        ({"Host": "localhost:1", "Origin": "null"}, False),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "none"}, True),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, False),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False),
        (
            {"Host": "localhost:1", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
            | {"Sec-Fetch-Dest": "iframe"},
            False,
        ),
        (
            {"Host": "localhost:1", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
            | {"Sec-Fetch-Dest": "document"},
            True,
        ),
    ],
)
def test_only_this_machine_s_own_page_is_answered(headers, answered):
    assert (refusal(headers) is None) is answered


@pytest.mark.parametrize("path", ["/", "/rows.json", "/files/a/run/report.html", "/nothing"])
def test_another_site_is_refused_at_every_address(port, path):
    status, _, content = asked(port, path, Host=f"evil.example:{port}")
    assert (status, content) == (403, b"403: Not this machine's name\n")
    assert asked(port, path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET /files/\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
    ],
)
def test_requests_of_any_bytes_are_survived(port, request_):
    answer = sent(port, request_)
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer
    assert b"made-up" not in answer
    assert asked(port, "/")[0] == 200


def test_it_listens_on_loopback_alone():
    with bound(0) as place:
        assert place.getsockname()[0] == "127.0.0.1"
        assert place.family == socket.AF_INET


def test_a_port_that_is_taken_is_said_in_a_line(tmp_path, capsys):
    with bound(0) as place:
        port = place.getsockname()[1]
        with pytest.raises(InputError, match="in use"):
            bound(port)
        assert main(["view", str(tmp_path), "--port", str(port), "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"bluffscope view: --port {port}: in use; give another, or 0 for any that is free\n", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder; give the folder that your runs are in"),
        (["--port", "70000", "."], "--port 70000: expected 0 to 65535"),
        (["--port", "-1", "."], "--port -1: expected 0 to 65535"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["view", *words, "--no-browser"]) == 2
    assert capsys.readouterr().err == f"bluffscope view: {said}\n"


def test_without_its_extra_one_line_says_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("bluffscope.cli.view.find_spec", lambda _: None)
    assert main(["view", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "bluffscope view: it needs Tornado; run: pip install 'bluffscope[view]'\n"


def test_hostile_folders_make_no_error_of_the_server(tmp_path):
    from report.view.test_rows import HOSTILE

    for number, content in enumerate(HOSTILE.values()):
        run = make_run(tmp_path / f"run-{number}", 4)
        (run / "manifest.json").write_bytes(content)
    strange = os.fsdecode(b"caf\xe9 <b>\x1b[31m")
    run = make_run(tmp_path / "made", 4)
    effect = {"metric": ["entropy"], "scope": ["pooled"], "dz": [0.6], "q": [0.01], "verdict": ["separates"]}
    pl.DataFrame(effect).write_parquet(run / "stats.parquet")
    shutil.copytree(run, tmp_path / strange)
    with served(tmp_path) as port:
        found = rows(port)
        assert sum(row["state"] == "unreadable" for row in found) == len(HOSTILE)
        last = next(row for row in found if "<b>" in row["name"])
        assert last["name"].isprintable()
        assert last["effects"][0]["text"] == "d_z +0.60, medium"
        status, _, content = asked(port, f"/{last['href']}/manifest.json")
        assert (status, json.loads(content)["model"]["name"]) == (200, "made-up")
