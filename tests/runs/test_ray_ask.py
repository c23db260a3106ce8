"""Asking on Ray: the answers of one process, whatever dies, and gone on with on either engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil
import pytest
import torch

import bluffscope.runs.ask.worker as asking
from bluffscope.cli.main import main
from bluffscope.config import AskOptions
from bluffscope.engine.placement import Placement
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.runs.ask.asking import Asked
from bluffscope.runs.ask.generate import _ask, put
from bluffscope.runs.ask.kept import Kept
from bluffscope.runs.workers import on_ray

pytest.importorskip("ray")
from bluffscope.engine.cluster import cluster  # noqa: E402
from bluffscope.engine.ray import RayEngine  # noqa: E402

QUESTIONS = [
    {"id": f"q{k}", "question": f"What is the capital of {'some ' * (k % 5)}land {k}?", "answers": ["Paris"]}
    for k in range(60)
]
FLAGS = ("--samples", "8", "--max-new-tokens", "24", "--batch-size", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "q.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return path


@pytest.fixture(scope="module")
def flags(questions, tiny_model):
    return ["ask", str(questions), "--model", str(tiny_model), *FLAGS]


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """What one process with one thread writes."""
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*flags, "--out", str(out)]) == 0
    torch.set_num_threads(before)
    return out.read_bytes()


def command(flags, out, *more):
    return [sys.executable, "-m", "bluffscope", *flags, "--out", str(out), *more]


def kept(out):
    """Ids of the questions whose answers are on disk."""
    part = out.with_name(f"{out.name}.part")
    lines = part.read_bytes().split(b"\n")[1:-1] if part.exists() else []
    return [json.loads(line)["id"] for line in lines]


def wait_for(out, process, some):
    deadline = time.monotonic() + 200
    while len(kept(out)) < some and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)


def test_workers_on_ray_write_what_one_process_writes_even_where_one_is_killed(flags, whole, tmp_path):
    out = tmp_path / "out.jsonl"
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(
            command(flags, out, "--engine", "ray", "--workers", "2"),
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    wait_for(out, driver, 4)
    workers = [
        process
        for process in psutil.Process(driver.pid).children(recursive=True)
        if "Station" in " ".join(process.cmdline())
    ]
    workers[0].kill()
    assert driver.wait(200) == 0, (tmp_path / "said").read_text()
    said = (tmp_path / "said").read_text()
    assert "a worker died while it was loading" in said or "will be measured again" in said
    assert out.read_bytes() == whole
    assert not kept(out)


def test_a_killed_driver_is_gone_on_with_in_one_process_and_nothing_is_asked_twice(flags, whole, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    driver = subprocess.Popen(
        command(flags, out, "--engine", "ray", "--workers", "2"), env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    wait_for(out, driver, 4)
    driver.send_signal(signal.SIGKILL)
    driver.wait(30)
    before = kept(out)
    assert 4 <= len(before) < len(QUESTIONS)
    again = []
    real = asking.draw
    monkeypatch.setattr(asking, "draw", lambda model, batch, *rest: again.extend(batch) or real(model, batch, *rest))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*flags, "--out", str(out)]) == 0
    torch.set_num_threads(threads)
    assert {one.id for one in again} == {one["id"] for one in QUESTIONS} - set(before)
    assert out.read_bytes() == whole


class Fatal(asking.AskWorker):
    """A worker that a question kills."""

    def measure(self, prepared, advance):
        if any(one.id == "q13" for one in prepared.items):
            os._exit(3)
        return super().measure(prepared, advance)


@dataclass(frozen=True)
class FatalFactory:
    options: AskOptions

    def __call__(self):
        worker = asking.load_worker(self.options, (), Stopwatch())
        return Fatal(worker.asking, worker.stops, worker.stopwatch)


class Counted:
    done = 0

    def start(self, total):
        self.total = total

    def advance(self, questions):
        self.done += questions

    def finish(self):
        pass


def test_a_question_that_kills_its_worker_is_left_out_and_the_others_are_answered(tiny_model, tmp_path):
    options = AskOptions(model=str(tiny_model), samples=2, max_new_tokens=4, device="cpu")
    some = [Asked(one["id"], one["question"], "Paris") for one in QUESTIONS[:16]]
    progress = Counted()
    with cluster(None, 2), RayEngine(Placement(2, 1), Stopwatch(), (__name__,)) as engine:
        crew = on_ray(engine, FatalFactory(options))
        found = crew.ask(lambda worker: put(worker, some, 2))
        answers = Kept(tmp_path / "part", found.identity)
        answers.open()
        lost = _ask(crew, found, answers, progress)
    assert lost.keys() == {"q13"} and "died whenever it" in lost["q13"]
    assert answers.samples.keys() == {one.id for one in some} - {"q13"}
    assert progress.done == progress.total == 16
