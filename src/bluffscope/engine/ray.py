"""Shards on Ray: workers in processes of their own, here or on a cluster. The only file that imports ray."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final

import ray
from ray import _raylet, cloudpickle, exceptions
from ray._private import worker as internals

from bluffscope.engine.base import Commit, Description, DistantFactory, Question, Tally
from bluffscope.engine.launch import check_address, starting
from bluffscope.engine.ledger import Account, Ledger
from bluffscope.engine.placement import Node, Placement
from bluffscope.engine.retries import Backlog, Task
from bluffscope.engine.station import Measured, News, Station, unpacked
from bluffscope.errors import InputError, RunStopped, WorkerLostError
from bluffscope.machine import cores_granted, memory_available
from bluffscope.quiet import environment
from bluffscope.records import Shard
from bluffscope.timing import Stopwatch

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 2
"""Shards at a worker: one in work, one that waits, so that it never does."""
NEWS_SECONDS: Final = 0.5
"""How often workers are asked how they get on."""
PATIENCE_SECONDS: Final = 60.0
"""How long the first worker may take before the user is told what is waited for."""
MOST_STILLBORN: Final = 5
"""Workers that may die while they load, one after another, before it is no accident."""
BREATH_SECONDS: Final = 0.5
"""The wait before the first of them is replaced, twice as long each time: Ray sends workers to a lost machine until it
has noticed."""
_SILENT: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
_EXIT = re.compile(r"Worker exit type: (\w+)")


@dataclass
class _Hand:
    """A worker as the driver knows it."""

    actor: Any
    account: Account
    pid: int | None = None
    """Of its process; None until it has loaded."""
    tasks: list[Task] = field(default_factory=list[Task])
    """At the worker, the oldest first."""
    asked: bool = False
    """Whether news is on its way."""


@dataclass(frozen=True)
class _Call:
    """What an answer that is waited for belongs to."""

    hand: _Hand
    take: Callable[[Any], None]


class RayEngine:
    """Runs shards on workers that Ray starts; to be used in a ``with`` block, inside that of `cluster`.

    A worker that dies is replaced and its shards are measured again (see `bluffscope.engine.retries`); an error
    that a worker raises ends the run as it would in this process.
    """

    def __init__(self, placement: Placement, stopwatch: Stopwatch, by_value: Sequence[str] = ()) -> None:
        """Nothing is started yet.

        Args:
            placement: how many workers, and what each has.
            stopwatch: told the seconds of every stage, summed over workers.
            by_value: modules whose functions travel with their code, since workers may not be able to import them.
        """
        self.placement = placement
        self.lost = 0
        """Workers that died."""
        self.seconds = 0.0
        """That measuring took."""
        self._by_value = by_value
        self._start: Callable[[], _Hand] | None = None
        self._description: Description | None = None
        self._hands: list[_Hand] = []
        self._due: list[float] = []
        """When those that died while they loaded are replaced."""
        self._calls: dict[Any, _Call] = {}
        self._backlog = Backlog(())
        self._commit: Commit | None = None
        self._ledger = Ledger(stopwatch)
        self._stillborn = self._in_a_row = self._largest = 0

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hand in self._hands:
            ray.kill(hand.actor)
        self._hands.clear()
        self._calls.clear()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready, each on its own machine."""
        return [hand.pid for hand in self._hands if hand.pid is not None]

    def hire(self, make_worker: DistantFactory) -> Description:
        """Start all workers; gives what the first of them that is ready has loaded.

        Raises:
            WorkerLostError: they die while they load.
            Exception: what making a worker raised.
        """
        self._start = partial(self._started, make_worker)
        for _ in range(self.placement.workers):
            self._hands.append(self._start())
        begun, told = time.monotonic(), False
        while self._description is None:
            self._step()
            if not told and time.monotonic() - begun > PATIENCE_SECONDS:
                told = True
                logger.warning("still waiting for a worker: it is loading, or the cluster has no free cores or GPU")
        return self._description

    def run(
        self, shards: Iterable[Shard], make_worker: DistantFactory, commit: Commit, advance: Callable[[int], None]
    ) -> None:
        """Measure every shard, in whatever order they get done; an error of any side ends the run and is raised."""
        if self._start is None:
            self.hire(make_worker)
        self._backlog, self._commit, self._ledger.advance = Backlog(shards), commit, advance
        begun = asked = time.monotonic()
        try:
            while self._busy():
                self._step()
                if time.monotonic() - asked >= NEWS_SECONDS:
                    asked = time.monotonic()
                    self._ask()
                    advance(0)  # who wants the run to stop says so there
        except RunStopped:
            self._keep_what_came()
            raise
        finally:
            self.seconds += time.monotonic() - begun

    def _keep_what_came(self) -> None:
        """Commit the shards whose tables are here already: nothing has gone wrong, the run is only to end."""
        self._ledger.advance = None
        came, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for answer in came:
            call = self._calls.pop(answer)
            with suppress(exceptions.RayError):
                call.take(ray.get(answer))

    def tally(self) -> Tally:
        """What all workers have done together."""
        return self._ledger.tally()

    def ask(self, question: Question) -> Any:
        """What a worker answers, once `run` or `hire` has returned; any of them does, since all hold the same.

        Raises:
            WorkerLostError: none is left.
            Exception: what the question raised.
        """
        for hand in self._hands:
            if hand.pid is not None:
                try:
                    with self._modules_sent():
                        answer = hand.actor.answer.remote(question)
                    return ray.get(answer)
                except exceptions.RayTaskError as error:  # raised in the worker
                    raise error.cause from error
                except exceptions.RayError:  # of the worker: the next one knows as much
                    continue
        raise WorkerLostError("--engine ray: all workers are gone")

    def _started(self, make_worker: DistantFactory) -> _Hand:
        placement = self.placement
        with self._modules_sent():
            station: Any = ray.remote(Station)
            actor = station.options(
                num_cpus=placement.cores,
                num_gpus=int(placement.gpu),
                max_restarts=0,  # a new worker is ours to start: only we know what it died of
                max_task_retries=0,
                max_concurrency=IN_FLIGHT + 2,
                scheduling_strategy="SPREAD",
            ).remote(make_worker)
        hand = _Hand(actor, self._ledger.open())
        self._calls[actor.describe.remote()] = _Call(hand, partial(self._ready, hand))
        return hand

    @contextmanager
    def _modules_sent(self) -> Generator[None, None, None]:
        """Inside, what is sent to workers takes along the code of modules that they may not have."""
        for module in self._by_value:
            cloudpickle.register_pickle_by_value(sys.modules[module])
        try:
            yield
        finally:
            for module in self._by_value:
                cloudpickle.unregister_pickle_by_value(sys.modules[module])

    def _ready(self, hand: _Hand, answer: tuple[int, Description, News]) -> None:
        hand.pid, description, news = answer
        self._stillborn = 0
        self._ledger.heard(hand.account, news)
        self._description = self._description or description
        if description.fingerprint != self._description.fingerprint:
            raise InputError(
                "--engine ray: workers loaded different weights under the same name; have all machines of the cluster "
                "hold the same model and SAEs"
            )

    def _busy(self) -> bool:
        """Give every worker what it can take; gives whether there is anything to wait for."""
        ready = [hand for hand in self._hands if hand.pid is not None]
        for depth in range(IN_FLIGHT):
            for hand in ready:
                if len(hand.tasks) == depth and not (hand.tasks and hand.tasks[0].alone):
                    self._give(hand)
        return not ready or any(hand.tasks for hand in ready)

    def _give(self, hand: _Hand) -> None:
        task = self._backlog.take(idle=not hand.tasks)
        if task is None:
            return
        hand.tasks.append(task)
        self._largest = max(self._largest, len(task.part.pairs))
        self._calls[hand.actor.measure.remote(task.part)] = _Call(hand, partial(self._measured, hand, task))

    def _measured(self, hand: _Hand, task: Task, answer: Measured) -> None:
        hand.tasks.remove(task)
        self._ledger.heard(hand.account, answer.news)
        hand.account.finished += len(task.part.pairs)
        self._in_a_row = 0
        self._finish(task, unpacked(answer.table))

    def _finish(self, task: Task, table: Any) -> None:
        assert self._commit is not None  # `run` was called, or there would be no task
        if (whole := self._backlog.done(task, table)) is not None:
            self._commit(*whole)

    def _ask(self) -> None:
        for hand in self._hands:
            if hand.tasks and not hand.asked:
                hand.asked = True
                self._calls[hand.actor.news.remote()] = _Call(hand, partial(self._heard, hand))

    def _heard(self, hand: _Hand, news: News) -> None:
        hand.asked = False
        self._ledger.heard(hand.account, news)

    def _step(self) -> None:
        """Take the answers that have come, or wait a moment for one."""
        self._replace()
        if not self._calls:
            time.sleep(NEWS_SECONDS)
            return
        done, _ = ray.wait(list(self._calls), timeout=NEWS_SECONDS)
        for answer in done:  # one at most
            call = self._calls.pop(answer)
            try:
                given = ray.get(answer)
            except exceptions.RayTaskError as error:  # raised in the worker
                raise error.cause from error
            except exceptions.RayError as error:  # of the worker: process, machine or connection are gone
                self._lose(call.hand, error)
            else:
                call.take(given)

    def _replace(self) -> None:
        """Start the workers whose time has come."""
        assert self._start is not None
        now = time.monotonic()
        self._hands += [self._start() for due in self._due if due <= now]
        self._due = [due for due in self._due if due > now]

    def _lose(self, hand: _Hand, error: Exception) -> None:
        """Replace a worker that died, and have what it was measuring measured again."""
        found = _EXIT.search(str(error))
        how = found[1] if found else type(error).__name__
        self._calls = {answer: call for answer, call in self._calls.items() if call.hand is not hand}
        self._hands.remove(hand)
        ray.kill(hand.actor)  # where only the connection was lost
        self._ledger.died(hand.account)
        self.lost += 1
        if hand.pid is None:
            self._stillborn += 1
            if self._stillborn > MOST_STILLBORN:
                self._go_on_without(how)
                return
            logger.warning("a worker died while it was loading (%s): starting another", how)
            self._due.append(time.monotonic() + BREATH_SECONDS * 2 ** (self._stillborn - 1))
        else:
            self._retry(hand, how)
            self._due.append(0.0)

    def _go_on_without(self, how: str) -> None:
        if not self._hands and not self._due:
            raise WorkerLostError(
                f"--engine ray: workers die while they load ({how}): is there too little memory? Use fewer --workers, "
                "a smaller model, or --engine local to see what happens"
            )
        logger.warning("workers die while they load (%s): going on with %d", how, len(self._hands))

    def _retry(self, hand: _Hand, how: str) -> None:
        self._in_a_row += 1
        # To find one fatal pair takes two deaths of its shard and one of each half of a half.
        most = (4 + 2 * math.ceil(math.log2(max(2, self._largest)))) * self.placement.workers
        if self._in_a_row > most:
            raise WorkerLostError(
                f"--engine ray: {self._in_a_row} workers died one after another without finishing anything ({how}); "
                "use --engine local to see what happens"
            )
        logger.warning("a worker (process %d) died (%s): its pairs are measured again", hand.pid, how)
        if (fatal := self._backlog.lost(hand.tasks)) is not None:
            assert self._description is not None  # a worker that had tasks was ready
            reason = f"the worker's process died whenever it measured this pair ({how})"
            self._ledger.count(1)
            self._finish(fatal, self._description.rejected(fatal.part, reason))


@contextmanager
def cluster(address: str | None, workers: int = 0) -> Generator[list[Node], None, None]:
    """Ray, for the length of the block; gives the machines there are.

    Args:
        address: of a cluster ("auto" for the one this machine belongs to); None starts Ray on this machine alone, or
            uses it where this process has it started already. Only what was started here is stopped again.
        workers: how many there will be at least; more than cores are allowed on this machine alone.

    Raises:
        InputError: there is no cluster at this address.
    """
    with _quiet():
        if ray.is_initialized():
            here = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", here):
                raise InputError(f"--address {address}: this process is connected to the cluster at {here} already")
            yield _nodes()
        elif address is not None:
            _connect(address)
            try:
                yield _nodes()
            finally:
                ray.shutdown()
        else:
            # polars counts its threads when it is imported: what workers inherit must say how many each may have.
            threads = max(1, cores_granted() // max(1, workers))
            with environment({"POLARS_MAX_THREADS": str(threads)}), _this_machine(max(workers, cores_granted())):
                (node,) = _nodes()
                yield [Node(node.cores, node.gpus, memory_available())]


def _nodes() -> list[Node]:
    """The living machines of the cluster."""
    found: list[Node] = []
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"]:
            found.append(Node(int(has.get("CPU", 0)), int(has.get("GPU", 0)), int(has.get("memory", 0))))
    return found


def _connect(address: str) -> None:
    try:
        check_address(address)
        _forget_who_may_talk()
        with _handlers_kept():
            ray.init(address=address, **_SILENT)
    except (OSError, OverflowError, ValueError, RuntimeError, exceptions.RayError) as error:
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({said[:150]}); start one with `ray start --head`, or "
            "leave --address out to use this machine alone"
        ) from error


@contextmanager
def _this_machine(cores: int) -> Generator[None, None, None]:
    with starting() as settings:
        _forget_who_may_talk()
        try:
            with _handlers_kept():
                ray.init(address="local", num_cpus=cores, **settings, **_SILENT)
        except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
            said = " ".join(str(error).split())
            raise WorkerLostError(f"--engine ray: Ray did not start on this machine: {said[:300]}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _forget_who_may_talk() -> None:
    """Ray keeps to the secret of a process's first cluster: the next one could not answer, and workers there die."""
    compiled: Any = _raylet
    compiled.Config.initialize("")  # reads the environment again
    compiled.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _handlers_kept() -> Generator[None, None, None]:
    """Ray exits at SIGTERM from its start on, for as long as the process lives: a run stops in its own way instead.

    It also sends `breakpoint()` to a debugger of its own.
    """
    kept = signal.getsignal(signal.SIGTERM)
    try:
        with environment({"PYTHONBREAKPOINT": os.environ.get("PYTHONBREAKPOINT")}):
            yield
    finally:
        if threading.current_thread() is threading.main_thread() and kept is not None:
            signal.signal(signal.SIGTERM, kept)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Ray logs errors only, and does not print on standard output that a worker died: we say so ourselves."""
    log = logging.getLogger("ray")
    level, show = log.level, internals.print_to_stdstream
    log.setLevel(logging.ERROR)
    internals.print_to_stdstream = lambda *_, **__: None  # its thread looks the name up each time
    try:
        yield
    finally:
        log.setLevel(level)
        internals.print_to_stdstream = show


def free_gpu_memory(gpus: int) -> int:
    """The least bytes that are free on so many of the cluster's GPUs.

    Raises:
        InputError: torch sees no GPU where Ray does.
    """

    def free() -> int:
        import torch  # on the machine that has the GPU

        return int(torch.cuda.mem_get_info()[0])

    ask = ray.remote(num_gpus=1, num_cpus=1, max_retries=1)(free)
    try:
        return min(ray.get([ask.remote() for _ in range(gpus)]))
    except exceptions.RayTaskError as error:
        said = " ".join(str(error.cause).split())
        raise InputError(
            f"--engine ray: the cluster has GPUs that torch cannot use ({said}); install torch with CUDA there, or use "
            "--device cpu"
        ) from error
