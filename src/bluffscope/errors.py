"""The few named exceptions of Bluffscope: each says what was expected, what came, and what to do."""

from __future__ import annotations


class BluffscopeError(Exception):
    """Base of every error that Bluffscope raises on purpose."""


class InputError(BluffscopeError, ValueError):
    """What the user gave cannot be used: one clear line (what, where, what to do), exit code 2.

    Raised before anything is written.
    """


class NoHeadError(InputError):
    """Log-probabilities cannot be measured: the model has no LM head that can be used, or does not load as a whole."""


class PairError(BluffscopeError, ValueError):
    """One pair cannot be processed; it is quarantined with this reason and the run continues."""


class RunFolderError(BluffscopeError, OSError):
    """The run's folder cannot be written (no space, read-only, input/output error): exit code 2."""


class WorkerLostError(BluffscopeError, RuntimeError):
    """Workers in other processes die faster than anything gets done: exit code 2."""


class QuarantineLimitError(BluffscopeError):
    """More pairs are in quarantine than --max-quarantine allows: exit code 2; committed shards are kept."""


class RunStopped(KeyboardInterrupt):  # noqa: N818 - no error
    """A signal (Ctrl-C, SIGTERM) ended a run; what was committed is kept, and --resume continues from there."""

    def __init__(self, signal_number: int, resume: str | None = None) -> None:
        super().__init__(signal_number, resume)
        self.signal_number = signal_number
        self.resume = resume
        """The command that resumes the run, once its folder is known."""

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal_number
