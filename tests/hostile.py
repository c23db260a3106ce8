"""A process that opens files it should not trust: told which on standard input, it says what came of each.

Its memory is limited to 2 GB more than it takes to start, so that a file that would fill the machine fails here.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

MOST_BYTES = 2 * 1000**3
SECONDS = 60.0
"""After which a file counts as one that hangs; those of the tests take milliseconds."""


class Opener:
    """The process, started anew where it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, kind: str, path: Path) -> str:
        """What came of opening a file: "read", or the message that refuses it.

        Raises:
            AssertionError: a traceback, a death or a hang.
        """
        process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its silence says so
            process.stdin.write(json.dumps({"kind": kind, "path": str(path)}) + "\n")
            process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            answer = process.stdout.readline() if selector.select(SECONDS) else None
        if not answer:
            where = self._stacks() if answer is None else ""
            self.close()
            raise AssertionError(f"{kind}: {where or f'the process died ({process.returncode})'}")
        found = json.loads(answer)
        assert "traceback" not in found, found["traceback"]
        return found["said"]

    def _started(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        return self._process

    def _stacks(self) -> str:
        """Where all threads of a process that hangs are; it ends with that."""
        assert self._process is not None
        memory = Path(f"/proc/{self._process.pid}/statm").read_text().split()[0]
        self._process.send_signal(signal.SIGABRT)
        self._process.wait(SECONDS)
        self._errors.seek(0)
        addresses = int(memory) * os.sysconf("SC_PAGE_SIZE")
        return f"it hangs at {addresses:,} bytes of addresses: {self._errors.read()[-4000:]}"

    def peak(self) -> int:
        """Most bytes of memory that the process has had."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=SECONDS)
            self._errors.close()
            self._process = None


def _pairs(path: Path) -> None:
    from bluffscope.config import DataOptions
    from bluffscope.pairs import open_source

    for _ in open_source(DataOptions(data=str(path))).pairs():
        pass


def _config(path: Path) -> None:
    from bluffscope.config.yaml_file import load_config

    load_config(path)


def _table(path: Path) -> None:
    from bluffscope.stats import build_study
    from bluffscope.table.reader import read_table

    build_study(read_table(path))


def _run(path: Path) -> None:
    from bluffscope.report.contents import read_contents
    from bluffscope.report.page import render_page

    render_page(read_contents(path))


KINDS = {"pairs": _pairs, "config": _config, "table": _table, "run": _run}


def answer(kind: str, path: Path) -> dict[str, Any]:
    """Open one file as a command would."""
    from bluffscope.errors import BluffscopeError

    try:
        KINDS[kind](path)
    except BluffscopeError as error:
        return {"said": str(error)}
    except BaseException:  # a panic of polars is no Exception
        return {"traceback": traceback.format_exc()}
    return {"said": "read"}


def main() -> None:
    for name in ("pyarrow.parquet", "bluffscope.report.page", "bluffscope.stats", "bluffscope.config.yaml_file"):
        import_module(name)
    # The JavaScript engine that gives the page its scripts reserves gigabytes of addresses, which are no memory.
    import_module("bluffscope.report.bundle").javascript()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, held + MOST_BYTES))
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps(answer(order["kind"], Path(order["path"]))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
