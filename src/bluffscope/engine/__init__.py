"""Where shards run: in this process, or in others through Ray."""

from bluffscope.engine.base import Commit, Engine, Worker, WorkerFactory
from bluffscope.engine.local import LocalEngine

__all__ = ["Commit", "Engine", "LocalEngine", "Worker", "WorkerFactory"]
