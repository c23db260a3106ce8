"""The few named exceptions of Bluffscope: each says what was expected, what came, and what to do."""


class BluffscopeError(Exception):
    """Base of every error that Bluffscope raises on purpose."""


class InputError(BluffscopeError, ValueError):
    """What the user gave cannot be used: one clear line (what, where, what to do), exit code 2.

    Raised before anything is written.
    """


class PairError(BluffscopeError, ValueError):
    """One pair cannot be processed; it is quarantined with this reason and the run goes on."""


class RunFolderError(BluffscopeError, OSError):
    """The run's folder cannot be written (no space, read-only, input/output error): exit code 2."""


class WorkerLostError(BluffscopeError, RuntimeError):
    """Workers in other processes die faster than anything gets done: exit code 2."""
