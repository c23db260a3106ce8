"""Faults of the operating system at a chosen call: it fails, writes a part, or the process dies there."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Call = Literal["open", "write", "fsync", "replace", "rename", "mkdir", "unlink"]
CALLS: tuple[Call, ...] = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Fault:
    """What happens at one call."""

    signal: int | None = None
    """This signal is sent to the process itself (`signal.SIGKILL`: it dies)."""
    error: int | None = None
    """The call fails with this errno."""
    call: Call | None = None
    """Only at calls of this function."""
    name: str = ""
    """Only where this pattern is found in the file's name: of the one that a rename makes."""
    nth: int = 1
    """At which of the calls that fit."""
    moment: Literal["before", "half", "after"] = "before"
    """Before the call, after half of the bytes of a write, or after the call."""


@dataclass
class Injector:
    """Stands between Python and the system's calls on a folder, and lets one of them go wrong."""

    folder: Path
    fault: Fault | None = None
    calls: list[tuple[Call, str]] = field(default_factory=list)
    """Every call that changes the folder, with the file's name."""
    _names: dict[int, str] = field(default_factory=dict)
    _fitting: int = 0

    @contextmanager
    def installed(self) -> Iterator[Injector]:
        """Inside, the calls go through here."""
        real = {call: getattr(os, call) for call in CALLS}
        for call in CALLS:
            setattr(os, call, self._wrapped(call, real[call]))
        try:
            yield self
        finally:
            for call in CALLS:
                setattr(os, call, real[call])

    def _wrapped(self, call: Call, real: Callable[..., Any]) -> Callable[..., Any]:
        def through(first: Any, *rest: Any, **named: Any) -> Any:
            name = self._name(call, first, rest)
            if name is None:
                return real(first, *rest, **named)
            self.calls.append((call, name))
            hit = self._hits(call, name)
            if hit and self.fault.moment == "before":
                self._strike()
            if hit and self.fault.moment == "half":
                written = real(first, rest[0][: len(rest[0]) // 2 or 1])
                self._strike()
                return written
            result = real(first, *rest, **named)
            if call == "open":
                self._names[result] = name
            if hit and self.fault.moment == "after":
                self._strike()
            return result

        return through

    def _name(self, call: Call, first: Any, rest: tuple[Any, ...]) -> str | None:
        """The file's name, where it is in the folder and is being changed."""
        if call in ("write", "fsync"):
            return self._names.get(first)
        target = Path(os.fsdecode(rest[0] if call in ("replace", "rename") else first))
        if call == "open" and not rest[0] & _WRITES and target != self.folder and target.name != "shards":
            return None
        return target.name if target == self.folder or self.folder in target.parents else None

    def _hits(self, call: Call, name: str) -> bool:
        fault = self.fault
        if fault is None or fault.call not in (None, call) or not re.search(fault.name, name):
            return False
        if fault.moment == "half" and call != "write":
            return False
        self._fitting += 1
        return self._fitting == fault.nth

    def _strike(self) -> None:
        assert self.fault is not None
        if self.fault.signal is not None:
            os.kill(os.getpid(), self.fault.signal)
        if self.fault.error is not None:
            raise OSError(self.fault.error, os.strerror(self.fault.error))


def killed(call: Call, name: str, moment: Literal["before", "half", "after"] = "before", nth: int = 1) -> Fault:
    """The process dies by SIGKILL there."""
    return Fault(signal=signal.SIGKILL, call=call, name=name, moment=moment, nth=nth)
