"""Where shards run: in this process, or elsewhere, always by the same worker."""

from bluffscope.engine.base import Commit, Engine, Worker, WorkerFactory
from bluffscope.engine.local import LocalEngine

__all__ = ["Commit", "Engine", "LocalEngine", "Worker", "WorkerFactory"]
