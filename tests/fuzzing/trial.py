"""One input given to the command in a process of its own, with limits, and what came of it."""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crashing import PROCESSES

SECONDS = 60.0
MOST_BYTES = 2_000_000_000
_ADDRESSES = 8_000_000_000
"""Of memory that is asked for beyond what is there at the start: more would end the machine, not the test."""
TRACEBACK = 70
"""Exit code of a command that ended with one."""


@dataclass(frozen=True)
class Verdict:
    """What a command did with an input."""

    code: int | None
    """Exit code; None where it hung, negative where a signal ended it."""
    said: str
    """Standard error, and the traceback."""
    peak: int
    """VmHWM in bytes, the imports included."""
    seconds: float

    @property
    def fault(self) -> str | None:
        """What is wrong with it, or None."""
        if self.code is None:
            return f"hangs: over {SECONDS:.0f} s"
        if self.code not in (0, 1, 2, 3, 4) or "Traceback" in self.said:
            return f"ends with {self.code} and a traceback" if self.code >= 0 else f"dies of signal {-self.code}"
        if self.peak > MOST_BYTES:
            return f"takes {self.peak / 1e9:.1f} GB"
        if self.code == 2 and not _one_line(self.said):
            return "is refused, but not in one line that says what"
        return None


def _one_line(said: str) -> bool:
    lines = [line for line in said.splitlines() if line.startswith("bluffscope")]
    return len(lines) == 1 and 20 < len(lines[0]) < 2_000


def attempt(words: Sequence[object], scratch: Path) -> Verdict:
    """Run `bluffscope WORDS` in an empty folder below `scratch`."""
    (place := scratch / "a" / "b" / "cwd").mkdir(parents=True, exist_ok=True)
    said, peak = scratch / "said", scratch / "peak"
    peak.unlink(missing_ok=True)
    process = PROCESSES.Process(target=_work, args=([str(word) for word in words], place, said, peak), daemon=True)
    started = time.perf_counter()
    process.start()
    process.join(SECONDS)
    seconds = time.perf_counter() - started
    if process.exitcode is None:
        process.kill()
        process.join(SECONDS)
        return Verdict(None, said.read_text("utf-8", "replace"), 0, seconds)
    text = said.read_text("utf-8", "replace") if said.exists() else ""
    return Verdict(process.exitcode, text, int(peak.read_text()) if peak.exists() else 0, seconds)


def _work(words: list[str], place: Path, said: Path, peak: Path) -> None:
    """In the child: the command, as a shell would start it."""
    os.chdir(place)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - until the end
    import bluffscope.api.closing
    from bluffscope.cli.main import main

    bluffscope.api.closing._report = lambda *_: None  # page and figures take seconds
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    try:
        if words[0] != "report":  # the JavaScript engine that draws it reserves addresses, which are no memory
            resource.setrlimit(resource.RLIMIT_AS, (held + _ADDRESSES, held + _ADDRESSES))
        code = main(words)
    except BaseException:  # a panic of polars is no Exception
        traceback.print_exc()
        code = TRACEBACK
    status = Path("/proc/self/status").read_text()
    peak.write_text(str(int(status.partition("VmHWM:")[2].split()[0]) * 1024))
    sys.stderr.flush()
    os._exit(code)
