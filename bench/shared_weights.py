"""What several processes with the same model hold in memory: shared pages are counted once (Linux).

Loads a model in several processes at the same time and prints, for each, the memory that is its own and the
proportional set size, in which a page shared by two processes counts half.

    python bench/shared_weights.py MODEL_FOLDER --processes 2 --dtype float32
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from bluffscope.model import load_model
from bluffscope.model.load import check_model


def memory() -> dict[str, int]:
    """MiB of this process, by kind."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return {
        name: int(found[1]) // 1024
        for name in ("Rss", "Pss", "Private_Clean", "Private_Dirty", "Shared_Clean")
        if (found := re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE))
    }


def load(model: str, dtype: str, together: Barrier) -> None:
    """Load the model, wait for the others to have done so, and print."""
    blocks = int(check_model(model, None).num_hidden_layers)
    loaded = load_model(
        model, revision=None, blocks=blocks, device=torch.device("cpu"), dtype=getattr(torch, dtype), head=False
    )
    weights = sum(parameter.numel() * parameter.element_size() for parameter in loaded.network.parameters()) >> 20
    together.wait()
    print(f"weights {weights} MiB | " + " | ".join(f"{name} {size}" for name, size in memory().items()), flush=True)
    together.wait()


def main() -> None:
    """Start the processes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(chosen.processes)
    started = [
        context.Process(target=load, args=(chosen.model, chosen.dtype, together)) for _ in range(chosen.processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()


if __name__ == "__main__":
    main()
