"""Shards on Ray: workers in processes of their own, here or on a cluster."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import ray
from ray import cloudpickle, exceptions

from bluffscope.engine.base import Advance, Commit, Description, DistantFactory, Question, Tally
from bluffscope.engine.cluster import Watch
from bluffscope.engine.placement import Placement
from bluffscope.engine.retries import Backlog, Task
from bluffscope.engine.worker_process import Measured, News, Station, unpacked
from bluffscope.engine.worker_progress import Account, Ledger
from bluffscope.errors import InputError, RunStopped, WorkerLostError
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.records import Stretch

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 2
"""Shards at a worker: one in work, one that waits, so that it never does."""
NEWS_SECONDS: Final = 0.5
"""How often workers are asked how they get on."""
MOST_UNANSWERED: Final = 1200
"""Times that a worker may leave that unanswered (10 minutes) before it counts as dead."""
PATIENCE: Final = 120
"""Times without any worker (a minute) before the user learns what the run waits for."""
MOST_WITHOUT_WORKER: Final = 1800
"""Times without any worker (15 minutes) before the run ends."""
MOST_STILLBORN: Final = 5
"""Workers that may die while they load, one after another, before it is no accident."""
BREATH_SECONDS: Final = 0.5
"""The wait before the first of them is replaced, twice as long each time: Ray sends workers to a lost machine until it
has noticed."""
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
    heard: bool = False
    """Whether its process has ever answered."""
    unanswered: int = 0
    """Times it was to be asked while the last answer had not come."""


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
            stopwatch: counts the seconds of every stage, summed over workers.
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
        self._stillborn = self._in_a_row = self._largest = self._without = 0
        self._asked = 0.0
        self._watch = Watch()

    def __enter__(self) -> RayEngine:
        self._watch.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(WorkerLostError):  # Ray is dead, and its workers with it
            for hand in self._hands:
                self._kill(hand)
        self._watch.__exit__()
        self._hands.clear()
        self._calls.clear()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready, each on its own machine."""
        return [hand.pid for hand in self._hands if hand.pid is not None]

    def hire(self, make_worker: DistantFactory) -> Description:
        """Start all workers; returns what the first ready one has loaded.

        Raises:
            WorkerLostError: they die while they load.
            Exception: what making a worker raised.
        """
        self._start = partial(self._started, make_worker)
        for _ in range(self.placement.workers):
            self._hands.append(self._start())
        while self._description is None:
            self._replace()
            self._step()
        return self._description

    def run(
        self, shards: Iterable[Stretch[Any]], make_worker: DistantFactory, commit: Commit, advance: Advance
    ) -> None:
        """Measure every shard, in whatever order they get done; an error of any side ends the run and is raised."""
        if self._start is None:
            self.hire(make_worker)
        self._backlog, self._commit, self._ledger.advance = Backlog(shards), commit, advance
        begun = time.monotonic()
        try:
            while self._busy():
                self._step()
                self._replace()
        except RunStopped:
            with suppress(WorkerLostError):
                self._keep_what_came()
            raise
        finally:
            self._ledger.advance = None
            self.seconds += time.monotonic() - begun

    def _keep_what_came(self) -> None:
        """Commit the shards whose tables are here already: nothing has gone wrong, the run is only to end."""
        self._ledger.advance = None
        waited_for = list(self._calls)
        came, _ = self._watch.call(lambda: ray.wait(waited_for, num_returns=len(waited_for), timeout=0))
        for answer in came:
            call = self._calls.pop(answer)
            with suppress(exceptions.RayError):
                call.take(self._got(answer))

    def tally(self) -> Tally:
        """What all workers have done together."""
        return self._ledger.tally()

    def ask(self, question: Question) -> Any:
        """What a worker answers, once `run` or `hire` has returned; any of them does, since all hold the same.

        Raises:
            WorkerLostError: none is left.
            Exception: what the question raised.
        """
        while ready := [hand for hand in self._hands if hand.pid is not None]:
            answers: list[Any] = []
            with self._modules_sent():
                self._send(ready[0], ready[0].actor.answer, answers.append, question)
            while not answers and ready[0] in self._hands:
                self._step()
            if answers:
                return answers[0]
        raise WorkerLostError("--engine ray: all workers are gone")

    def _started(self, make_worker: DistantFactory) -> _Hand:
        placement = self.placement
        with self._modules_sent():
            station: Any = ray.remote(Station)
            options = station.options(
                num_cpus=placement.cores,
                num_gpus=int(placement.gpu),
                max_restarts=0,  # a new worker is ours to start: only we know what it died of
                max_task_retries=0,
                max_concurrency=IN_FLIGHT + 2,
                scheduling_strategy="SPREAD",
            )
            hand = _Hand(self._watch.call(partial(options.remote, make_worker)), self._ledger.open())
        self._send(hand, hand.actor.describe, partial(self._ready, hand))
        return hand

    def _send(self, hand: _Hand, method: Any, take: Callable[[Any], None], *arguments: Any) -> None:
        self._calls[self._watch.call(partial(method.remote, *arguments))] = _Call(hand, take)

    def _got(self, answer: Any) -> Any:
        return self._watch.call(partial(ray.get, answer))

    def _kill(self, hand: _Hand) -> None:
        self._watch.call(partial(ray.kill, hand.actor))

    @contextmanager
    def _modules_sent(self) -> Generator[None, None, None]:
        """Within the block, what is sent to workers includes the code of modules that they may not have."""
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
        """Give every worker what it can take; returns whether there is anything to wait for."""
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
        self._largest = max(self._largest, len(task.part.items))
        self._send(hand, hand.actor.measure, partial(self._measured, hand, task), task.part)

    def _measured(self, hand: _Hand, task: Task, answer: Measured) -> None:
        hand.tasks.remove(task)
        self._ledger.heard(hand.account, answer.news)
        hand.account.finished += len(task.part.items)
        self._in_a_row = 0
        self._finish(task, unpacked(answer.table))

    def _finish(self, task: Task, table: Any) -> None:
        assert self._commit is not None  # `run` was called, or there would be no task
        if (whole := self._backlog.done(task, table)) is not None:
            self._commit(*whole)

    def _ask(self) -> None:
        """Ask all workers how they get on; those that have stopped answering count as dead."""
        for hand in list(self._hands):
            if not hand.asked:
                hand.asked, hand.unanswered = True, 0
                self._send(hand, hand.actor.news, partial(self._heard, hand))
            elif hand.heard:  # before that, Ray may be waiting for a free core
                hand.unanswered += 1
                if hand.unanswered > MOST_UNANSWERED:
                    self._lose(hand, f"it did not answer for {MOST_UNANSWERED * NEWS_SECONDS:.0f} s")
        self._without = 0 if any(hand.heard for hand in self._hands) else self._without + 1
        if self._without == PATIENCE:
            logger.warning("still waiting for a worker to start: has the cluster free cores or a free GPU?")
        if self._without > MOST_WITHOUT_WORKER:
            raise WorkerLostError(
                f"--engine ray: no worker has started for {MOST_WITHOUT_WORKER * NEWS_SECONDS / 60:.0f} minutes; see "
                "with `ray status` whether the cluster has free cores, GPUs and memory"
            )
        if self._ledger.advance is not None:
            self._ledger.advance(0)  # who wants the run to stop says so there

    def _heard(self, hand: _Hand, news: News) -> None:
        hand.asked, hand.heard = False, True
        self._ledger.heard(hand.account, news)

    def _step(self) -> None:
        """Take an answer that has come, or wait a moment for one; ask workers now and then."""
        if time.monotonic() - self._asked >= NEWS_SECONDS:
            self._asked = time.monotonic()
            self._ask()
        self._watch.check()
        if not self._calls:
            time.sleep(NEWS_SECONDS)
            return
        waited_for = list(self._calls)
        done, _ = self._watch.call(lambda: ray.wait(waited_for, timeout=NEWS_SECONDS))
        for answer in done:  # one at most
            call = self._calls.pop(answer)
            try:
                given = self._got(answer)
            except exceptions.RayTaskError as error:  # raised in the worker
                raise error.cause from error
            except exceptions.RayError as error:  # of the worker: process, machine or connection are gone
                found = _EXIT.search(str(error))
                self._lose(call.hand, found[1] if found else type(error).__name__)
            else:
                call.take(given)

    def _replace(self) -> None:
        """Start the workers whose time has come."""
        assert self._start is not None
        now = time.monotonic()
        self._hands += [self._start() for due in self._due if due <= now]
        self._due = [due for due in self._due if due > now]

    def _lose(self, hand: _Hand, how: str) -> None:
        """Replace a worker that died, and have what it was measuring measured again."""
        self._calls = {answer: call for answer, call in self._calls.items() if call.hand is not hand}
        self._hands.remove(hand)
        self._kill(hand)  # where only the connection was lost
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
        logger.warning("workers die while they load (%s): continuing with %d", how, len(self._hands))

    def _retry(self, hand: _Hand, how: str) -> None:
        self._in_a_row += 1
        # To find one fatal pair takes two deaths of its shard and one of each half of a half.
        most = (4 + 2 * math.ceil(math.log2(max(2, self._largest)))) * self.placement.workers
        if self._in_a_row > most:
            raise WorkerLostError(
                f"--engine ray: {self._in_a_row} workers died one after another without finishing anything ({how}); "
                "use --engine local to see what happens"
            )
        logger.warning("a worker (process %d) died (%s): its pairs will be measured again", hand.pid, how)
        if (fatal := self._backlog.lost(hand.tasks)) is not None:
            assert self._description is not None  # a worker that had tasks was ready
            reason = f"the worker's process died whenever it measured this pair ({how})"
            self._ledger.count(1)
            self._finish(fatal, self._description.rejected(fatal.part, reason))
