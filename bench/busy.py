"""How much longer measuring takes beside other programs: alone, and beside two busy loops, in one run.

Run it on an idle machine with two cores; it fails where measuring takes more than three times as long. The last column
is the same beside busy loops without `bluffscope.host.own_process`: threads that spin while they wait.

    python bench/busy.py --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LIMIT = 3.0
"""Times as long that measuring may take."""
LOOPS = 2
SECONDS = 600
"""After which a measurement counts as hanging."""
READING = ("load", "data", "lint", "health")
"""Stages that do not measure."""


class Case(NamedTuple):
    """What is measured."""

    shape: str
    pairs: int
    batch_size: str | int


CASES = (Case("tiny", 300, 4), Case("demo", 200, "auto"), Case("mid", 60, "auto"))


def measured(shape: str, folder: Path, pairs: int, batch_size: str) -> dict[str, float]:
    """Seconds that measuring takes in this process, and its threads."""
    import torch

    from bluffscope.api import config_from, run
    from bluffscope.compare.bench.texts import write_pairs

    with tempfile.TemporaryDirectory(prefix="bluffscope-busy-") as scratch:
        data = write_pairs(Path(scratch) / "pairs.jsonl", pairs)
        named = {} if shape == "demo" else {"model": folder / "model", "sae": folder / "sae"}
        size = batch_size if batch_size == "auto" else int(batch_size)
        config = config_from(data=str(data), out=Path(scratch) / "run", batch_size=size, **named)
        timings = run(config, draw=False).manifest["timings"]
    seconds = timings["total"] - sum(timings.get(stage, 0.0) for stage in READING)
    return {"seconds": seconds, "total": timings["total"], "threads": torch.get_num_threads()}


def save(folder: Path) -> None:
    """Write the random models, each into a folder of its name."""
    from transformers.utils.logging import disable_progress_bar

    from bluffscope.compare.bench.shapes import SHAPES, Shape, save_shape

    sizes = {"num_hidden_layers": 4, "hidden_size": 16, "intermediate_size": 32, "vocab_size": 2560}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8}
    disable_progress_bar()
    tiny = Shape(name="tiny", layers=(0, 1, 3), d_sae=48, sizes=sizes, thresholds=(0.5,) * 3)
    save_shape(tiny, folder / "tiny")
    save_shape(SHAPES["mid"], folder / "mid")


@contextmanager
def busy_loops(number: int) -> Generator[None, None, None]:
    """Inside, so many processes keep a core busy each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait(timeout=60)


def in_a_process(case: Case, folder: Path, loops: int, *, settled: bool) -> dict[str, float]:
    """What `measured` returns in a process of its own."""
    command = [sys.executable, __file__, "--case", case.shape, str(folder), str(case.pairs), str(case.batch_size)]
    hidden = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with busy_loops(loops):
        command += [] if settled else ["--as-it-was"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=SECONDS, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many runs counts")
    parser.add_argument("--only", choices=[case.shape for case in CASES])
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--as-it-was", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        from bluffscope.host.own_process import settle

        if not chosen.as_it_was:
            settle()
        shape, folder, pairs, batch_size = chosen.case
        print(json.dumps(measured(shape, Path(folder), int(pairs), batch_size)))
        return 0
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="bluffscope-busy-") as scratch:
        save(Path(scratch))
        print(f"load at the start: {os.getloadavg()[0]:.1f}; medians of {chosen.repeats}, seconds of measuring")
        print(
            f"{'case':<6}{'pairs':>6}{'batch':>6}{'threads':>8}{'alone':>8}{'busy':>8}{'ratio':>7}"
            " | as it was: alone, busy"
        )
        for case in CASES:
            if chosen.only in (None, case.shape):
                found = {
                    (settled, loops): [
                        in_a_process(case, Path(scratch) / case.shape, loops, settled=settled)
                        for _ in range(chosen.repeats)
                    ]
                    for settled in (True, False)
                    for loops in (0, LOOPS)
                }
                seconds = {
                    key: statistics.median(each["seconds"] for each in several) for key, several in found.items()
                }
                threads = found[True, 0][0]["threads"]
                ratio = seconds[True, LOOPS] / seconds[True, 0]
                worst = max(worst, ratio)
                print(
                    f"{case.shape:<6}{case.pairs:>6}{case.batch_size:>6}{threads:>8}{seconds[True, 0]:>8.2f}"
                    f"{seconds[True, LOOPS]:>8.2f}{ratio:>7.2f}"
                    f" |{seconds[False, 0]:>8.2f}{seconds[False, LOOPS]:>8.2f}",
                    flush=True,
                )
    print(f"worst ratio {worst:.2f}, limit {LIMIT}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
