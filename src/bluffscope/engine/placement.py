"""How many workers a cluster gets, and how many cores each: one a GPU, or one a group of cores that memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bluffscope.errors import InputError

CORES_A_WORKER: Final = 4
"""Cores of a worker with `--workers auto` on CPUs: fewer keep more copies of the SAEs, more wait for each other."""
CORES_A_GPU: Final = 8
"""Most cores of a worker that has a GPU: they tokenise and write, and compute what stays in main memory."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    cores: int
    gpus: int
    memory: int
    """Bytes that workers may have in all."""


@dataclass(frozen=True)
class Placement:
    """The workers of a run."""

    workers: int
    cores: int
    """Of each worker, and its threads: the same for all, so that each computes the same numbers."""
    gpu: bool = False
    """Whether each worker has a GPU to itself."""


def place(
    nodes: Sequence[Node], workers: Literal["auto"] | int, *, gpu: bool, each: int = 0, shared: int = 0
) -> Placement:
    """Spread workers over machines.

    Args:
        nodes: what the cluster has.
        workers: how many, or "auto": one a GPU, or one for each `CORES_A_WORKER` cores as far as memory goes.
        gpu: whether workers are to have GPUs, which have their own memory.
        each: bytes that every worker on a CPU has for itself.
        shared: bytes that all workers of a machine have together: weights that are read in place from their file.

    Raises:
        InputError: the cluster has no cores, no GPU although one is asked for, or too few for so many workers.
    """
    if workers != "auto" and workers < 1:
        raise InputError(f"--workers {workers}: give auto or at least 1")
    total = sum(node.gpus if gpu else node.cores for node in nodes)
    kind = "GPUs" if gpu else "cores"
    if not total:
        raise InputError(f"--engine ray: the cluster has no {kind}" + ("; use --device cpu" if gpu else ""))
    if workers != "auto" and _slots(nodes, 1, gpu) < workers:
        advice = "one worker takes a whole GPU" if gpu else "a worker takes at least one core"
        raise InputError(f"--workers {workers}: the cluster has {total} {kind}, and {advice}; give at most {total}")
    if workers == "auto":
        most = sum(node.gpus if gpu else _fitting(node, each, shared) for node in nodes)
        workers = max(1, min(most, _slots(nodes, 1, gpu)))
    limit = CORES_A_GPU if gpu else max(node.cores for node in nodes)
    cores = next(cores for cores in range(limit, 0, -1) if _slots(nodes, cores, gpu) >= workers)
    return Placement(workers, cores, gpu)


def _slots(nodes: Sequence[Node], cores: int, gpu: bool) -> int:
    """Workers of so many cores that the cluster can hold."""
    return sum(min(node.cores // cores, node.gpus) if gpu else node.cores // cores for node in nodes)


def _fitting(node: Node, each: int, shared: int) -> int:
    """Workers on CPUs that do well on a machine."""
    groups = max(1, node.cores // CORES_A_WORKER) if node.cores else 0
    return min(groups, max(0, node.memory - shared) // each) if each else groups
