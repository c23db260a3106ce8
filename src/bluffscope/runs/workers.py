"""The workers of a run: one in this process, or several on Ray, each made by the same factory."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch

from bluffscope import __version__
from bluffscope.config import RunConfig, WorkerOptions
from bluffscope.engine.base import Advance, Commit, DistantFactory, DistantWorker, Question
from bluffscope.engine.launch import check_address
from bluffscope.engine.local import run_here
from bluffscope.engine.placement import Node, Placement, place
from bluffscope.errors import InputError
from bluffscope.host.stopwatch import Stopwatch, Tally
from bluffscope.metrics import Analysis
from bluffscope.metrics.own import UserAnalysis
from bluffscope.pipeline.batch_size import ROW_TOKENS, SHARE, plan_run, predicted_peak, run_footprint, sized
from bluffscope.pipeline.build import NOTHING, OF_THE_REFERENCE, ColumnsOf, build_worker
from bluffscope.pipeline.by_default import Spare, head_by_default, refuse_unfit
from bluffscope.pipeline.given import Given
from bluffscope.pipeline.memory import Shape
from bluffscope.pipeline.worker import Loaded, RunWorker
from bluffscope.records import Stretch

if TYPE_CHECKING:
    from bluffscope.engine.ray import RayEngine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFactory:
    """Makes a run's worker in whatever process it is called; small, so that it travels quickly."""

    config: RunConfig
    analyses: tuple[Analysis, ...]
    columns_of: ColumnsOf
    threads: int
    """Cores that the worker may use."""
    spare: Spare | None = None
    """Room for residuals that nobody asked for."""
    version: str = __version__
    """Of the package that the driver has."""

    def __call__(self) -> RunWorker:
        """Load everything.

        Raises:
            InputError: model and SAEs that cannot be loaded here, or another version of this package.
        """
        settle_worker(self.version, self.threads)
        stopwatch = Stopwatch()
        with stopwatch.stage("load"):
            return build_worker(self.config, self.analyses, self.columns_of, stopwatch, spare=self.spare)


def settle_worker(version: str, threads: int) -> None:
    """Begin in a worker's process, in the thread that will measure: so many threads.

    Raises:
        InputError: another version of this package than the driver has.
    """
    if version != __version__:
        raise InputError(
            f"--engine ray: a machine of the cluster has bluffscope {__version__}, this one {version}; "
            "install the same on all"
        )
    torch.set_num_threads(threads)  # counts for the thread that says so


@dataclass(frozen=True)
class Crew:
    """Who measures a run's shards: a worker in this process, or several on Ray."""

    loaded: Loaded
    """What every worker loaded."""
    run: Callable[[Iterable[Stretch[Any]], Commit, Advance], None]
    """Measures shards and commits their tables."""
    ask: Callable[[Question], Any]
    """What a worker answers to a question, in the process that holds the model; `WorkerLostError` if all are gone."""
    tally: Callable[[], Tally]
    """What was done so far; summed over workers."""
    workers: Callable[[int], dict[str, Any]] | None = None
    """For the manifest, given the pairs measured: how many workers there were and how fast; None for one here."""

    def memory(self, pairs: int) -> dict[str, int | None]:
        """The most memory held where a model is (of several workers: the largest), as predicted and as it came."""
        found = self.loaded.footprint
        predicted = None if found is None else predicted_peak(self.loaded.config.engine, found, pairs)
        return {"predicted_bytes": predicted, "peak_bytes": self.tally().peak_bytes}


def here(worker: DistantWorker, depth: int = 1) -> Crew:
    """A worker in this process, as a crew; `depth` as of `run_here`."""

    def run(shards: Iterable[Stretch[Any]], commit: Commit, advance: Advance) -> None:
        run_here(shards, worker, commit, advance, depth)

    loaded: Any = worker.describe()  # a `Loaded`, in a run
    return Crew(loaded, run, worker.answer, worker.tally)


def on_ray(engine: RayEngine, factory: DistantFactory) -> Crew:
    """An engine's workers, hired, as a crew."""

    def run(shards: Iterable[Stretch[Any]], commit: Commit, advance: Advance) -> None:
        engine.run(shards, factory, commit, advance)

    def workers(pairs: int) -> dict[str, Any]:
        placement = engine.placement
        return {
            "number": placement.workers,
            "threads": placement.cores,
            "gpu": placement.gpu,
            "lost": engine.lost,
            "pairs_per_second_each": pairs / engine.seconds / placement.workers if engine.seconds else None,
        }

    loaded: Any = engine.hire(factory)  # what its workers describe is a `Loaded`
    return Crew(loaded, run, engine.ask, engine.tally, workers)


def check_engine(options: WorkerOptions) -> None:
    """Refuse Ray where it is not installed, and an address at which no cluster answers, before anything is loaded."""
    if options.engine == "local":
        return
    if find_spec("ray") is None:
        raise InputError("--engine ray: Ray is not installed; run: pip install 'bluffscope[ray]'")
    if options.address is not None:
        check_address(options.address)


@contextmanager
def crew_of(
    config: RunConfig,
    analyses: Sequence[Analysis],
    columns_of: ColumnsOf,
    stopwatch: Stopwatch,
    given: Given = NOTHING,
    spare: Spare | None = None,
) -> Generator[Crew, None, None]:
    """The workers of a run, loaded; those in other processes are gone when the block is left.

    Args:
        config: options, the preset already resolved.
        analyses: what is measured.
        columns_of: the table's columns, once the layers are known; for Ray it has to be picklable.
        stopwatch: counts the time of every stage.
        given: model and SAEs that are in memory already; not with Ray.
        spare: room for residuals that nobody asked for; None for no room.

    Raises:
        NoHeadError: log-probabilities, which nobody asked for, cannot be measured.
        InputError: model, SAEs, layers or machines that cannot be had or do not fit each other.
    """
    options = config.engine
    if options.engine == "local":
        warn_of_rays_own(options)
        with stopwatch.stage("load"):
            worker = build_worker(config, analyses, columns_of, stopwatch, given, spare)
        yield here(worker)
        return
    with stopwatch.stage("load"):
        shape = _expected_shape(config)  # what is plainly wrong is said before anything is started

    def plan(nodes: Sequence[Node], gpu_memory: Callable[[int], int]) -> tuple[RunFactory, Placement]:
        placed_config, placement = _placed(config, shape, nodes, gpu_memory)
        return RunFactory(placed_config, tuple(analyses), columns_of, placement.cores, spare), placement

    modules = _modules_to_send(analysis.function for analysis in analyses)
    with crew_on_ray(options, stopwatch, plan, modules) as crew:
        yield crew


Plan = Callable[[Sequence[Node], Callable[[int], int]], tuple[DistantFactory, Placement]]
"""What makes the workers and where they are, given the machines and what says how much memory so many GPUs have."""


@contextmanager
def crew_on_ray(
    options: WorkerOptions, stopwatch: Stopwatch, plan: Plan, modules: Sequence[str] = ()
) -> Generator[Crew, None, None]:
    """Workers on Ray, loaded; they, and Ray if it was started here, are gone when the block is left.

    Args:
        options: how many, and of which cluster.
        stopwatch: counts the time of every stage.
        plan: called once Ray is there.
        modules: of the user's own, which workers may not be able to import.
    """
    with ExitStack() as stack:
        with stopwatch.stage("load"):
            from bluffscope.engine import cluster, ray  # only now: Ray is an extra, and takes a second to import

            workers = 0 if options.workers == "auto" else options.workers
            nodes = stack.enter_context(cluster.cluster(options.address, workers))
            factory, placement = plan(nodes, cluster.free_gpu_memory)
            engine = stack.enter_context(ray.RayEngine(placement, stopwatch, modules))
            crew = on_ray(engine, factory)
        yield crew


def warn_of_rays_own(options: WorkerOptions) -> None:
    """No refusal: a run on Ray may be resumed here, and its options say so still."""
    for flag, given in (("--workers", options.workers != "auto"), ("--address", options.address is not None)):
        if given:
            logger.warning("%s: the local engine has one worker, in this process; add --engine ray", flag)


def _expected_shape(config: RunConfig) -> Shape:
    """The run's shape as configurations tell it: the driver loads no weights, and may have no GPU."""
    return plan_run(replace(config.model, device="cpu"), whole=config.measure.needs_head).shape


def _placed(
    config: RunConfig, shape: Shape, nodes: Sequence[Node], gpu_memory: Callable[[int], int]
) -> tuple[RunConfig, Placement]:
    """How many workers there will be; and the options with device and batch plan frozen, so that all have the same."""
    device = device_of_all(config.model.device, nodes)
    found = run_footprint(shape, device, config.measure)
    # float32 weights are read in place from their file, whose pages the system holds once for all processes (measured).
    shared = found.weights if device == "cpu" and not found.loading and config.model.quantize == "none" else 0
    each = int(found.least_needed(config.engine.row_tokens or ROW_TOKENS) / SHARE)
    placement = placed(config.engine.workers, device, nodes, each, shared)
    config = replace(config, model=replace(config.model, device=device))
    if config.engine.strategy in OF_THE_REFERENCE:
        return config, placement
    free = gpu_memory(placement.workers) if placement.gpu else _memory_of_each(nodes, placement, shared)
    if head_by_default(config.measure):
        refuse_unfit(shape, device, config.measure, config.engine.row_tokens, free)
    return replace(config, engine=sized(config.engine, device, found, free)), placement


def device_of_all(asked: str, nodes: Sequence[Node]) -> Literal["cpu", "cuda", "mps"]:
    """Where every worker's model is, on machines of which some may have GPUs."""
    if asked == "cuda" or (asked == "auto" and any(node.gpus for node in nodes)):
        return "cuda"
    return "mps" if asked == "mps" else "cpu"


def placed(workers: Literal["auto"] | int, device: str, nodes: Sequence[Node], each: int, shared: int) -> Placement:
    """How many workers there will be, and where.

    Args:
        workers: as asked for.
        device: of the model.
        nodes: the machines.
        each: bytes that a worker needs.
        shared: of these, what the workers of a machine have together.
    """
    if device == "mps":
        if workers not in ("auto", 1):
            raise InputError(f"--workers {workers}: a Mac has one GPU; leave it out, or use --device cpu")
        workers = 1
    return place(nodes, workers, gpu=device == "cuda", each=each - shared, shared=shared)


def _memory_of_each(nodes: Sequence[Node], placement: Placement, shared: int) -> int:
    """Bytes that a worker may fill on the fullest machine, what it shares with others included."""
    counts = [min(placement.workers, node.cores // placement.cores) for node in nodes]
    return min((node.memory - shared) // count + shared for node, count in zip(nodes, counts, strict=True) if count > 0)


def _innermost(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The functions that a function is made of."""
    if isinstance(function, UserAnalysis):
        yield from _innermost(function.function)
        if callable(function.columns):
            yield from _innermost(function.columns)
    elif isinstance(function, partial):
        inner = (function.func, *function.args, *function.keywords.values())
        yield from itertools.chain.from_iterable(_innermost(part) for part in inner if callable(part))
    else:
        yield function


def _modules_to_send(functions: Iterable[Callable[..., Any]]) -> tuple[str, ...]:
    """Modules of the user's own that functions come from: other processes may not be able to import them."""
    found: set[str] = set()
    for function in itertools.chain.from_iterable(map(_innermost, functions)):
        name: str = getattr(function, "__module__", None) or type(function).__module__
        top, file = name.partition(".")[0], getattr(sys.modules.get(name), "__file__", None) or ""
        installed = "site-packages" in file or "dist-packages" in file
        if top not in (*sys.stdlib_module_names, "__main__", "bluffscope") and file and not installed:
            found.add(name)
    return tuple(sorted(found))
