"""The page over all runs in a headless Chromium: it shows, sorts, filters and follows; no text of a run can act."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

from bluffscope.report.write import write_report
from made_runs import STRANGE, UNSOUND, make_run
from viewing import asked, copies, rows, served

NAMES = "[...document.querySelectorAll('#rows th bdi')].map(name => name.textContent)"
AXE = "axe.run(document, {{resultTypes: ['violations']}}).then({})"
SERIOUS = "found => found.violations.filter(one => ['serious', 'critical'].includes(one.impact))"
NAMED = f"found => ({SERIOUS})(found).map(one => [one.id, one.nodes.map(node => node.html).slice(0, 3)])"


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A run with statistics and a report."""
    folder = make_run(tmp_path_factory.mktemp("made") / "run", 60, effect=1.2)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def root(measured, tmp_path_factory) -> Path:
    """A folder of runs of every kind and state."""
    root = tmp_path_factory.mktemp("all") / "runs"
    shutil.copytree(measured, root / "good")
    make_run(root / "unsound", 8, manifest={"health": UNSOUND, "created": "2026-02-01T00:00:00+00:00"})
    odd = {"model": {"name": STRANGE[0]}, "data": {"name": STRANGE[1]}}
    make_run(root / "<img src=x onerror='window.hacked = 1'>", 8, manifest=odd)
    (make_run(root / "broken", 8) / "manifest.json").write_text("{")
    shards = root / "under-way" / "shards"
    shards.mkdir(parents=True)
    (root / "under-way" / "config.yaml").write_text("model: {model: made-up}\ndata: {data: pairs.jsonl}\n")
    identity = {"data": {"pairs": 600}, "options": {"shard_pairs": 100}}
    (shards / "run.json").write_text(json.dumps(identity))
    (root / "under-way" / "log.jsonl").write_text('{"message": "a warning of the run"}\n')
    (root / "known").mkdir()
    row = {"detector": "sae", "auroc": 0.9, "lo": 0.8, "hi": 0.95}
    about = {"on": "sae", "model": {"name": "made-up"}, "evaluation": {"cross_validated": [row]}}
    (root / "known" / "detector.json").write_text(json.dumps(about))
    return root


@pytest.fixture(scope="module")
def address(root):
    with served(root) as port:
        rows(port)
        yield f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_without_a_complaint_a_request_elsewhere_or_a_script_of_the_texts(browser, address, width, dark):
    browser.visit(address, width, dark=dark)
    assert browser.complaints == []
    assert set(browser.requests) <= {address, f"{address}rows.json", "data:,"}
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('#rows img, #rows script').length") == 0
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert len(browser.run(NAMES)) == 6
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(browser, address, width, dark):
    pytest.importorskip("axe_core_python", reason="axe-core-python, of the extra dev, is not installed")
    browser.visit(address, width, dark=dark)
    # By the inspector's own protocol: the page's policy lets no foreign script in.
    browser.run((files("axe_core_python") / "axe.min.js").read_text("utf-8") + "; 0")
    assert browser.run(AXE.format(NAMED)) == []
    browser.run("document.querySelector('#rows button').click()")
    browser.wait("document.getElementById('files').open")
    assert browser.run(AXE.format(NAMED)) == []


def test_filters_and_order_stand_in_the_link_and_come_back_with_it(browser, address):
    browser.visit(address)
    browser.run(
        "(() => { const box = document.getElementById('search'); box.value = 'Made-Up run finished'; "
        "box.dispatchEvent(new Event('input')); })()"
    )
    assert set(browser.run(NAMES)) == {"good", "unsound"}
    assert browser.run("document.getElementById('found').textContent") == "2 of 6"
    browser.run("document.querySelector('#heads th:first-child button').click()")
    assert browser.run("document.querySelector('#heads th:first-child').getAttribute('aria-sort')") == "ascending"
    assert browser.run(NAMES) == ["good", "unsound"]
    browser.run("document.querySelector('#heads th:first-child button').click()")
    assert browser.run(NAMES) == ["unsound", "good"]
    kept = browser.run("location.href")
    assert kept.endswith("?q=Made-Up+run+finished&sort=-name")
    browser.visit(address)
    assert len(browser.run(NAMES)) == 6
    browser.visit(kept)
    assert browser.run(NAMES) == ["unsound", "good"]
    assert browser.run("document.getElementById('search').value") == "Made-Up run finished"
    browser.visit(f"{address}?state=stopped&sort=__proto__&kind=constructor&q=%00")
    assert browser.run(NAMES) == []
    assert browser.complaints == []


def test_what_has_no_value_comes_last_in_either_order(browser, address):
    for sort in ("effect", "-effect"):
        browser.visit(f"{address}?sort={sort}")
        assert browser.run(NAMES)[0] == "good"
    browser.visit(f"{address}?state=unreadable")
    assert browser.run(NAMES) == ["broken"]
    assert "manifest.json is damaged" in browser.run("document.getElementById('rows').textContent")
    browser.visit(f"{address}?kind=detector")
    assert browser.run(NAMES) == ["known"]
    assert "AUROC 0.900.80 to 0.95" in browser.run("document.getElementById('rows').textContent")


def test_the_files_of_a_run_open_and_close_by_keyboard_and_have_a_link(browser, address):
    browser.visit(address)
    browser.run("document.querySelector('[aria-label=\"files of good\"]').focus()")
    press(browser, "Enter", "\r", 13)
    browser.wait("document.getElementById('files').open")
    assert "run=files%2Fgood" in browser.run("location.search")
    linked = browser.run("[...document.querySelectorAll('#files-body a')].map(link => link.textContent)")
    assert linked[0] == "report.html"
    assert "stats.parquet" in linked
    press(browser, "Escape", "", 27)
    browser.wait("!document.getElementById('files').open && location.search === ''")
    assert browser.run("document.activeElement.getAttribute('aria-label')") == "files of good"
    browser.run("document.querySelector('[aria-label=\"files of good\"]').click()")
    browser.wait("document.getElementById('files').open")
    browser.run("history.back()")
    browser.wait("!document.getElementById('files').open && location.search === ''")
    browser.run("history.forward()")
    browser.wait("document.getElementById('files').open")
    browser.visit(f"{address}?run=files%2Funder-way")
    browser.wait("document.getElementById('files').open")
    assert "a warning of the run" in browser.run("document.getElementById('files-body').textContent")
    assert browser.complaints == []


def press(browser, key: str, text: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=code)


def test_a_report_opens_with_its_charts_in_a_sandbox(browser, address):
    browser.visit(address)
    link = "document.querySelector('#rows a[href=\"files/good/report.html\"]')"
    browser.run(f"setTimeout(() => {link}.click(), 50); 0")
    time.sleep(1)  # while a page changes, nothing can be asked of it
    browser.wait("location.pathname.endsWith('report.html') && document.documentElement?.dataset.drawn === 'true'")
    assert browser.complaints == []
    assert browser.run("window.origin") == "null"
    assert browser.run("document.querySelectorAll('.chart svg path').length") > 10
    browser.run("document.querySelector('#pair-table .open').click()")
    browser.wait("document.getElementById('story').open")


def test_a_hostile_report_reaches_neither_other_runs_nor_the_page(browser, measured, tmp_path):
    shutil.copytree(measured, tmp_path / "secret")
    (make_run(tmp_path / "hostile", 4) / "report.html").write_text(
        """<html data-drawn="true"><script>window.got = [];
        const tell = (name, promise) => promise.then(() => got.push(name), () => got.push("refused"));
        tell("rows", fetch("/rows.json").then(answer => answer.text()));
        tell("report", fetch("/files/secret/report.html", {mode: "no-cors"}));
        tell("own", fetch("manifest.json"));
        tell("storage", new Promise(done => done(localStorage.length)));
        const frame = document.createElement("iframe"); frame.src = "/"; document.documentElement.append(frame);
        const script = document.createElement("script"); script.src = "/rows.json";
        script.onload = () => got.push("script"); script.onerror = () => got.push("refused");
        document.documentElement.append(script);
        const other = window.open("/files/secret/report.html");
        setTimeout(() => { try { got.push(other.document.title); } catch { got.push("refused"); } }, 1500);
        </script>"""
    )
    with served(tmp_path) as port:
        browser.visit(f"http://127.0.0.1:{port}/files/hostile/report.html")
        browser.wait("window.got.length === 6")
        assert set(browser.run("window.got")) == {"refused"}
        # A frame of nothing, or one that cannot be looked into.
        assert not browser.run("document.querySelector('iframe').contentDocument?.body.textContent")


def test_another_site_s_page_learns_nothing(browser, address, tmp_path):
    page = tmp_path / "evil.html"
    page.write_text(
        f"""<html data-drawn="true"><script>window.got = [];
        fetch("{address}rows.json").then(() => got.push("read"), () => got.push("refused"));
        fetch("{address}rows.json", {{mode: "no-cors"}}).then(a => got.push(a.type), () => got.push("refused"));
        for (const [tag, path] of [["script", "rows.json"], ["img", "files/good/report.html"]]) {{
          const one = document.createElement(tag); one.src = "{address}" + path;
          one.onload = () => got.push(tag); one.onerror = () => got.push("refused");
          document.documentElement.append(one);
        }}</script>"""
    )
    browser.open(page)
    browser.wait("window.got.length === 4")
    assert set(browser.run("window.got")) <= {"refused", "opaque"}
    assert browser.run("window.got.filter(one => one === 'refused').length") >= 3


def test_two_hundred_runs_are_shown_at_once(browser, measured, tmp_path, capsys):
    copies(measured, tmp_path, 200)
    with served(tmp_path) as port:
        began = time.perf_counter()
        browser.visit(f"http://127.0.0.1:{port}/?sort=-n")
        cold = time.perf_counter() - began
        assert len(browser.run(NAMES)) == 200
        assert "0 pairs" not in browser.run("document.querySelector('#rows tr').textContent")
        began = time.perf_counter()
        browser.visit(f"http://127.0.0.1:{port}/?q=set-3")
        warm = time.perf_counter() - began
        assert len(browser.run(NAMES)) == 40
    assert max(cold, warm) < 3  # on a busy machine
    with capsys.disabled():
        print(f"\n200 runs shown whole after {cold:.2f} s, again after {warm:.2f} s")  # noqa: T201


def test_a_run_under_way_is_followed_to_its_end(browser, tmp_path):
    """A real run, a real command: the line moves while it measures, and says at the end that it has finished."""
    root = tmp_path / "runs"
    root.mkdir()
    command = [sys.executable, "-m", "bluffscope"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ["--preset", "demo", "--shard-pairs", "4", "--out", str(root / "live")]
    with subprocess.Popen(
        [*command, "view", str(root), "--port", "0", "--no-browser"], stdout=subprocess.PIPE, text=True
    ) as viewer:
        try:
            assert viewer.stdout is not None
            address = next(word for word in viewer.stdout.readline().split() if word.startswith("http://127.0.0.1:"))
            browser.visit(address)
            assert browser.run(NAMES) == []
            with subprocess.Popen([*command, "analyze", *options], **quiet) as run:
                state = "document.querySelector('#rows .badge')?.textContent"
                browser.run("window.seen = new Set()")
                table = "document.getElementById('rows')"
                browser.run(f"new MutationObserver(() => seen.add({state})).observe({table}, {{childList: true}}); 0")
                browser.wait("seen.has('running')")
                browser.wait("document.querySelector('#rows progress')?.value > 0")
                assert "of 200" in browser.run("document.querySelector('#rows').textContent")
                assert run.wait(120) == 0
            browser.wait(f"{state} === 'finished'")
            browser.wait("document.querySelector('#rows a')?.getAttribute('href') === 'files/live/report.html'")
            assert browser.complaints == []
            viewer.send_signal(signal.SIGINT)
            assert viewer.wait(20) == 0
            browser.wait("!document.getElementById('banner').hidden")
        finally:
            viewer.kill()


def test_the_command_ends_quietly_at_ctrl_c_and_prints_its_address(root):
    viewer = subprocess.Popen(
        [sys.executable, "-m", "bluffscope", "view", str(root), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")},
    )
    assert viewer.stdout is not None
    line = viewer.stdout.readline()
    port = int(line.split("127.0.0.1:")[1].split("/")[0])
    assert asked(port, "/")[0] == 200
    viewer.send_signal(signal.SIGINT)
    out, err = viewer.communicate(timeout=20)
    assert (viewer.returncode, out, err) == (0, "", "")
