"""How much longer measuring takes beside other programs: alone, and beside two busy loops, in one run.

Run it on an idle machine with two cores; it fails where measuring takes more than three times as long. The last column
is the same beside busy loops without `bluffscope.host.own_process`: threads that spin while they wait.

    python bench/busy.py --repeats 3
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from bluffscope.compare.bench.processes import fresh
from bluffscope.host.own_process import settle

LIMIT = 3.0
"""Times as long that measuring may take."""
LOOPS = 2
READING = ("load", "data", "lint", "health")
"""Stages that do not measure."""


class Case(NamedTuple):
    """What is measured."""

    shape: str
    pairs: int
    batch_size: str | int


CASES = (Case("tiny", 300, 4), Case("demo", 200, "auto"), Case("mid", 60, "auto"))
SETTINGS = dict.fromkeys(("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS"))
"""Of threads, which the processes are started without."""


def measured(case: Case, folder: Path, settled: bool) -> Iterator[dict[str, float]]:
    """Seconds that measuring takes in this process, and its threads."""
    if settled:
        settle()
    import torch

    from bluffscope.api import config_from, run
    from bluffscope.compare.bench.texts import write_pairs

    with tempfile.TemporaryDirectory(prefix="bluffscope-busy-") as scratch:
        data = write_pairs(Path(scratch) / "pairs.jsonl", case.pairs)
        named = {} if case.shape == "demo" else {"model": folder / "model", "sae": folder / "sae"}
        named |= {"logprob": False, "keep_residuals": False}  # as it was always measured
        config = config_from(data=str(data), out=Path(scratch) / "run", batch_size=case.batch_size, **named)
        timings = run(config, draw=False).manifest["timings"]
    seconds = timings["total"] - sum(timings.get(stage, 0.0) for stage in READING)
    yield {"seconds": seconds, "total": timings["total"], "threads": torch.get_num_threads()}


def save(folder: Path) -> None:
    """Write the random models, each into a folder of its name."""
    from bluffscope.compare.bench.shapes import SHAPES, Shape, save_shape
    from bluffscope.model.silence import library_silence

    sizes = {"num_hidden_layers": 4, "hidden_size": 16, "intermediate_size": 32, "vocab_size": 2560}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8}
    tiny = Shape(name="tiny", layers=(0, 1, 3), d_sae=48, sizes=sizes, thresholds=(0.5,) * 3)
    with library_silence():
        save_shape(tiny, folder / "tiny")
        save_shape(SHAPES["mid"], folder / "mid")


@contextmanager
def busy_loops(number: int) -> Generator[None, None, None]:
    """So many processes that keep a core busy each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait(timeout=60)


def in_a_process(case: Case, folder: Path, loops: int, *, settled: bool) -> dict[str, float]:
    """What `measured` finds in a process of its own."""
    with busy_loops(loops):
        (found,) = fresh(f"case {case.shape}", measured, case, folder, settled, settings=SETTINGS)
    return found


def compared(case: Case, folder: Path, repeats: int) -> float:
    """Measure a case alone and beside busy loops, as it is and as it was; print it. How many times as long it takes."""
    found = {
        (settled, loops): [in_a_process(case, folder, loops, settled=settled) for _ in range(repeats)]
        for settled in (True, False)
        for loops in (0, LOOPS)
    }
    seconds = {key: statistics.median(each["seconds"] for each in several) for key, several in found.items()}
    ratio = seconds[True, LOOPS] / seconds[True, 0]
    print(
        f"{case.shape:<6}{case.pairs:>6}{case.batch_size:>6}{found[True, 0][0]['threads']:>8}{seconds[True, 0]:>8.2f}"
        f"{seconds[True, LOOPS]:>8.2f}{ratio:>7.2f} |{seconds[False, 0]:>8.2f}{seconds[False, LOOPS]:>8.2f}",
        flush=True,
    )
    return ratio


def main(repeats: int = 3, only: Literal["tiny", "demo", "mid"] | None = None) -> int:
    """Measure and print.

    Args:
        repeats: the median of so many runs counts.
        only: one of the cases.
    """
    with tempfile.TemporaryDirectory(prefix="bluffscope-busy-") as scratch:
        save(Path(scratch))
        print(f"load at the start: {os.getloadavg()[0]:.1f}; medians of {repeats}, seconds of measuring")
        heads = f"{'case':<6}{'pairs':>6}{'batch':>6}{'threads':>8}{'alone':>8}{'busy':>8}{'ratio':>7}"
        print(f"{heads} | as it was: alone, busy")
        worst = max(compared(case, Path(scratch) / case.shape, repeats) for case in CASES if only in (None, case.shape))
    print(f"worst ratio {worst:.2f}, limit {LIMIT}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
