"""Memory and time of many pairs: flat and linear. The long one is the figure of docs/scale.md (`make soak`)."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import tiny
from bluffscope.pairs.groups import GroupBuilder, Groups

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]
_DOMAINS = ("geo", "bio", "law")


def write_many(path: Path, count: int) -> Path:
    """Pairs in groups of three that share a prompt, with a carried column."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            of = random.Random(i // 3)
            pair = {
                "id": f"p{i}",
                "domain": _DOMAINS[i // 3 % 3],
                "prompt": f"The {of.choice(_WORDS)} of {of.choice(_WORDS)} {i // 3} is",
                "fact": f"{draw.choice(_WORDS)} {i}",
                "hallucination": f"{draw.choice(_WORDS)} {draw.choice(_WORDS)} {i}x",
                "source": f"book {i % 50}",
            }
            file.write(json.dumps(pair) + "\n")
    return path


class Moment(NamedTuple):
    """A process as it was seen."""

    seconds: float
    held: int
    """Bytes of memory of its own."""
    done: int
    """Pairs measured, as its progress says."""


def watched(command: list[object], limit: float) -> list[Moment]:
    """Run a command to its end; its memory twice a second, with the progress that it reports."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    said: list[str] = []
    listener = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    listener.start()
    seen: list[Moment] = []
    try:
        while process.poll() is None:
            assert time.perf_counter() - started < limit, said[-3:]
            status = Path(f"/proc/{process.pid}/status").read_text()
            held = re.search(r"RssAnon:\s+(\d+)", status)
            done = re.findall(r"Progress: (\d+)/", " ".join(said[-3:]))
            if held:
                seen.append(Moment(time.perf_counter() - started, int(held[1]) * 1024, int(done[-1]) if done else 0))
            time.sleep(0.5)
    finally:
        process.kill()
        process.wait(timeout=30)
        listener.join(timeout=30)
        process.stderr.close()
    assert process.returncode == 0, said[-5:]
    return seen


@pytest.fixture
def analyze(tmp_path):
    """The command of a run of the smallest model there is over so many pairs."""
    model = tiny.save_model(tmp_path / "model", "llama", num_hidden_layers=2)
    saes = tiny.save_saes(tmp_path / "saes", (1,), d_sae=12)

    def command(count: int) -> list[object]:
        data = write_many(tmp_path / f"{count}.jsonl", count)
        flags = ("--model", model, "--sae", saes, "--device", "cpu", "--noise-draws", 1)
        return [
            sys.executable,
            "-m",
            "bluffscope",
            "analyze",
            "--data",
            data,
            *flags,
            "--out",
            tmp_path / f"run{count}",
        ]

    return command


@pytest.mark.soak
def test_two_hundred_thousand_pairs_take_no_more_memory_than_the_first_tenth_and_linear_time(analyze):
    total = 200_000
    seen = watched(analyze(total), 1500)
    measuring = [moment for moment in seen if 0 < moment.done < total]
    tenth = next(moment for moment in measuring if moment.done >= total / 10)
    last = measuring[-1]
    sys.stderr.write(
        f"200,000 pairs: {tenth.held / 1e6:.0f} MB after 10 %, {last.held / 1e6:.0f} MB at the end of measuring, "
        f"{max(moment.held for moment in seen) / 1e6:.0f} MB at the most in all; {last.seconds - tenth.seconds:.0f} s "
        f"for the last 90 %\n"
    )
    assert max(moment.held for moment in measuring if moment.done >= tenth.done) <= 1.05 * tenth.held
    middle = next(moment for moment in measuring if moment.done >= total * 0.55)
    first = (middle.done - tenth.done) / (middle.seconds - tenth.seconds)
    second = (last.done - middle.done) / (last.seconds - middle.seconds)
    assert second > 0.8 * first


_PEAK = """
import sys, numpy as np
from pathlib import Path
from bluffscope.config import DataOptions
from bluffscope.pairs import open_source
from bluffscope.linter import GroupSample, lint_source

source = open_source(DataOptions(data=sys.argv[1]))
scan = source.scan()
held = sum(len(pair.prompt) + len(group) for pair, group in zip(source.pairs(), scan.groups, strict=True))
lint_source(GroupSample(source, 1000, 0), most_judged=500)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
"""


@pytest.mark.thorough
def test_reading_grouping_and_linting_hold_a_few_bytes_a_pair(tmp_path):
    """What is held before and beside measuring: texts and labels of 40,000 pairs would take 25 MB and more."""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", _PEAK, str(write_many(tmp_path / f"{count}.jsonl", count))],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            ).stdout
        )
        * 1024
        for count in (10_000, 50_000)
    ]
    assert (peaks[1] - peaks[0]) / 40_000 < 400


def test_groups_take_eight_bytes_a_pair():
    builder = GroupBuilder()
    for i in range(3000):
        builder.add(f"p{i}", f"prompt {i // 2}", f"fact {i}", f"hall {i}")
    groups = builder.groups()
    assert isinstance(groups, Groups)
    assert groups.smallest.nbytes == 8 * 3000
    assert len(np.unique(groups.numbers())) == 1500
