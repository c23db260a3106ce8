"""Ray itself: started here or joined, watched while it is used, stopped again. Imports ray, as `engine.ray` does."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import ray
from ray import NodeID, _raylet, exceptions
from ray._private import ray_constants
from ray._private import worker as internals
from ray.core.generated import gcs_service_pb2

from bluffscope.engine.launch import check_address, starting
from bluffscope.engine.placement import Node
from bluffscope.errors import InputError, WorkerLostError
from bluffscope.host.machine import cores_granted, memory_available
from bluffscope.host.quiet import environment, replaced

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
LOOK_SECONDS: Final = 1.0
"""How often Ray is asked whether it is alive."""
SILENCE_SECONDS: Final = 25.0
"""How long it may not answer; after 60 s without its head, Ray's own code would end this process without a word."""
_VITAL: Final = {ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER}
_SHUTDOWN_SECONDS: Final = 15.0
_GPU_SECONDS: Final = 300.0
_SILENT: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


@contextmanager
def cluster(address: str | None, workers: int = 0) -> Generator[list[Node], None, None]:
    """Ray, within the block; yields the machines there are.

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
            check_address(address)  # or Ray would try for minutes
            with _ray(f"--address {address}: Ray cannot join the cluster", InputError, address=address):
                yield _nodes()
        else:
            # polars counts its threads when it is imported: what workers inherit must say how many each may have.
            threads = {"POLARS_MAX_THREADS": str(max(1, cores_granted() // max(1, workers)))}
            cores = max(workers, cores_granted())
            failed = "--engine ray: Ray did not start on this machine"
            with (
                environment(threads),
                starting() as settings,
                _ray(failed, WorkerLostError, address="local", num_cpus=cores, **settings),
            ):
                (node,) = _nodes()
                yield [Node(node.cores, node.gpus, memory_available())]


def _nodes() -> list[Node]:
    """The living machines of the cluster."""
    found: list[Node] = []
    with Watch() as watch:
        nodes = watch.call(ray.nodes)
    for node in nodes:
        has = node["Resources"]
        if node["Alive"]:
            found.append(Node(int(has.get("CPU", 0)), int(has.get("GPU", 0)), int(has.get("memory", 0))))
    return found


@contextmanager
def _ray(failed: str, kind: type[Exception], **options: Any) -> Generator[None, None, None]:
    """Ray, started or joined with these options of `ray.init`; what goes wrong follows after `failed`."""
    _forget_who_may_talk()
    try:
        with _handlers_kept():
            ray.init(**options, **_SILENT)
    except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
        raise kind(f"{failed} ({' '.join(str(error).split())[:300]})") from error
    try:
        yield
    finally:
        _shut_down()


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
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with replaced(internals, print_to_stdstream=lambda *_, **__: None):  # its thread looks the name up each time
            yield
    finally:
        log.setLevel(level)


class Watch:
    """Whether Ray is alive, asked by a thread as long as a ``with`` block lasts.

    Once this machine's raylet is dead, calls of Ray's never return, whatever timeout they are given; so each is made
    in a thread of its own, by `call`, and left there if it has to be.
    """

    def __init__(self) -> None:
        self.dead: str | None = None
        """What is known to have died."""
        self._silent = 0.0
        self._checked = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        node = ray.get_runtime_context().get_node_id()
        threading.Thread(target=self._look, args=(node,), name="bluffscope-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def call(self, function: Callable[[], Result]) -> Result:
        """What a call of Ray's returns or raises.

        Raises:
            WorkerLostError: Ray died meanwhile.
        """
        done = _begun(function)
        while not wait((done,), LOOK_SECONDS).done:
            self.check()
        return done.result()

    def check(self) -> None:
        """To be called now and then by whoever waits.

        Raises:
            WorkerLostError: Ray is dead, or has been silent for too long.
        """
        now = time.monotonic()
        self._silent += min(now - self._checked, 2 * LOOK_SECONDS)  # longer: this process slept, or did other things
        self._checked = now
        if self.dead is None and self._silent > SILENCE_SECONDS:
            self.dead = f"the head of the cluster has not answered for {SILENCE_SECONDS:.0f} s"
        if self.dead is not None:
            raise WorkerLostError(f"--engine ray: {self.dead}")

    def _look(self, node: str) -> None:
        here: Any = internals
        messages: Any = gcs_service_pb2
        gcs, machine = here.global_worker.gcs_client, here._global_node
        mine = messages.GetAllNodeInfoRequest.NodeSelector(node_id=NodeID.from_hex(node).binary())
        while self.dead is None and not self._over.wait(LOOK_SECONDS):
            if ended := {name for name, _ in machine.dead_processes()} & _VITAL:  # of those started here
                self.dead = f"Ray's process {ended.pop()} on this machine has died"
                return
            try:
                found = gcs.get_all_node_info(timeout=5, node_selectors=[mine]).values()
            except (exceptions.RayError, OSError):
                continue
            self._silent = 0.0
            if all(info.state for info in found):  # 0 is alive
                self.dead = "the Ray node of this machine (its raylet) has died"


def _begun(function: Callable[[], Result]) -> Future[Result]:
    """A call that goes on in a thread of its own, which nothing waits for, not even the interpreter's end."""
    done: Future[Result] = Future()

    def work() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # raised again by whoever asks for the result
            done.set_exception(error)

    threading.Thread(target=work, name="bluffscope-ray-call", daemon=True).start()
    return done


def _shut_down() -> None:
    """Stop or leave Ray; where that hangs, only end the processes that were started here."""
    here: Any = internals
    machine = here._global_node
    if not wait((_begun(ray.shutdown),), _SHUTDOWN_SECONDS).done:
        atexit.unregister(ray.shutdown)  # it would hang again
        machine.kill_all_processes(check_alive=False, allow_graceful=False)


def free_gpu_memory(gpus: int) -> int:
    """The least bytes that are free on so many of the cluster's GPUs.

    Raises:
        InputError: torch sees no GPU where Ray does.
        WorkerLostError: they do not answer.
    """

    def free() -> int:
        import torch  # on the machine that has the GPU

        return int(torch.cuda.mem_get_info()[0])

    ask = ray.remote(num_gpus=1, num_cpus=1, max_retries=1)(free)
    try:
        with Watch() as watch:
            return min(watch.call(lambda: ray.get([ask.remote() for _ in range(gpus)], timeout=_GPU_SECONDS)))
    except exceptions.GetTimeoutError as error:
        raise WorkerLostError(f"--engine ray: the cluster's GPUs did not answer in {_GPU_SECONDS:.0f} s") from error
    except exceptions.RayTaskError as error:
        said = " ".join(str(error.cause).split())
        raise InputError(
            f"--engine ray: the cluster has GPUs that torch cannot use ({said}); install torch with CUDA there, or use "
            "--device cpu"
        ) from error
