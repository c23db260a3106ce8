"""The machine that a run has to itself: processor, memory, accelerators, and whether others use it at the same time."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that multiply bfloat16 matrices themselves, x86's two and Arm's; the first does so 2.4 to 3.6
times as fast as float32 (measured)."""

OTHER_LOAD = 0.15
"""Cores that others may use on average before a stretch of work counts as disturbed."""
SWAPPED_BYTES = 1 << 20
"""Swapping less than this is the housekeeping of any machine."""
SHORTEST_WATCH = 0.5
"""Seconds below which other load is not reported: processor times come in steps of 10 ms."""


@dataclass(frozen=True)
class Accelerator:
    """A GPU."""

    name: str
    memory_total: int
    """Bytes; of a unified memory, what the driver recommends to use at most."""
    memory_free: int
    """Bytes that this process could still have."""


@dataclass(frozen=True)
class Machine:
    """What there is to work with: limits of this process (affinity, control groups) already taken off."""

    processor: str
    physical_cores: int
    """Cores that this process may run on, hyper-threads counted once."""
    logical_cores: int
    """Processors that this process may run on."""
    core_limit: float | None
    """Cores' worth of time that the control group grants, or None where it sets no limit."""
    memory_total: int
    memory_available: int
    """Bytes that can still be had without swapping."""
    swap_used: int
    load: float | None
    """Processes that ran or waited to run over the last minute, on average; None where the system does not say."""
    native_bfloat16: bool | None
    """As `native_bfloat16`."""
    accelerators: tuple[Accelerator, ...]


def read_machine() -> Machine:
    """The machine as it is now. Imports torch, to ask for accelerators."""
    allowed = _allowed_processors()
    return Machine(
        processor=_processor(),
        physical_cores=_physical_cores(allowed),
        logical_cores=len(allowed),
        core_limit=_core_limit(),
        memory_total=_memory_total(),
        memory_available=memory_available(),
        swap_used=int(psutil.swap_memory().used),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        native_bfloat16=native_bfloat16(),
        accelerators=_accelerators(),
    )


def native_bfloat16() -> bool | None:
    """Whether the processor multiplies bfloat16 matrices itself; None where the system does not say."""
    if sys.platform == "darwin":
        said = _sysctl("hw.optional.arm.FEAT_BF16")
        return None if said is None else said == "1"
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()  # x86, Arm
    return not _NATIVE_BFLOAT16.isdisjoint(flags) if flags else None


def emulated(dtype: str, device: str) -> str | None:
    """What to say of a run in a dtype that the processor has to emulate; None where it has not, or does not say.

    Args:
        dtype: of weights and activations.
        device: "cpu", "mps" or "cuda".
    """
    if (dtype, device) != ("bfloat16", "cpu") or native_bfloat16() is not False:
        return None
    return (
        "--dtype bfloat16: this processor has no bfloat16 arithmetic (AVX512-BF16, AMX or Arm's BF16), so it is "
        "emulated: slower than float32; use --dtype float32 where it fits in memory"
    )


def cores_granted() -> int:
    """Cores that this process can keep busy: hyper-threads counted once, its control group's limit included."""
    limit = _core_limit()
    cores = _physical_cores(_allowed_processors())
    return cores if limit is None else max(1, min(cores, round(limit)))


def memory_available() -> int:
    """Bytes of main memory that this process can still have without swapping, its control group's limit included."""
    available = int(psutil.virtual_memory().available)
    return max(0, min([available, *(limit - used for limit, used in _memory_limits())]))


def free_memory(device: str) -> int:
    """Bytes that a run on this device may have in all: what is free, and what this process holds already.

    Args:
        device: "cpu", "mps" or "cuda".
    """
    held = int(psutil.Process().memory_info().rss)
    if device == "cpu":
        return memory_available() + held
    import torch  # seconds-slow

    if device == "mps":  # one memory for both
        return min(int(torch.mps.recommended_max_memory()), memory_available() + held)
    free, _ = torch.cuda.mem_get_info()
    return int(free) + int(torch.cuda.memory_reserved())


def peak_rss() -> int:
    """The most bytes of main memory that this process has held since it started."""
    status = _PROC / "self" / "status"
    if status.is_file():  # getrusage would give the peak of a larger process that started this one
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_rss() -> bool:
    """Reset `peak_rss`; returns whether the system can do so (Linux)."""
    try:
        (_PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def device_peak(device: str) -> int:
    """The most bytes held where the model runs: of the GPU's memory on CUDA, else of this process.

    Args:
        device: "cpu", "mps" or "cuda". MPS shares the main memory and keeps what it has freed, so its present
            pool is its peak; it is counted on top of the process.
    """
    if device == "cpu":
        return peak_rss()
    import torch  # seconds-slow

    if device == "mps":
        return peak_rss() + int(torch.mps.driver_allocated_memory())
    return int(torch.cuda.max_memory_allocated())


@dataclass(frozen=True)
class _Sample:
    """Counters of the whole machine and of this process with its children, in seconds and bytes."""

    clock: float
    busy: float
    own: float
    swapped: int


@dataclass
class Watch:
    """Tells whether a stretch of work had the machine to itself.

    Example:
        >>> with Watch() as watch:
        ...     total = sum(range(10))
        >>> watch.marks
        ()
    """

    _samples: list[_Sample] = field(default_factory=list["_Sample"], repr=False)

    def __enter__(self) -> Watch:
        self._samples[:] = [_sample()]
        return self

    def __exit__(self, *_: object) -> None:
        self._samples.append(_sample())

    @property
    def marks(self) -> tuple[str, ...]:
        """What disturbed the stretch (up to now, inside it): "swapping", "other load 0.8 cores"; empty if nothing."""
        return _marks(self._samples[0], (*self._samples, _sample())[1]) if self._samples else ()


def _marks(before: _Sample, after: _Sample) -> tuple[str, ...]:
    marks: list[str] = []
    if after.swapped - before.swapped >= SWAPPED_BYTES:
        marks.append("swapping")
    elapsed = after.clock - before.clock
    if elapsed >= SHORTEST_WATCH:
        others = ((after.busy - before.busy) - (after.own - before.own)) / elapsed
        if others > OTHER_LOAD:
            marks.append(f"other load {others:.1f} cores" if others >= 0.95 else f"other load {others:.2f} cores")
    return tuple(marks)


def _sample() -> _Sample:
    times = psutil.cpu_times()
    # Guests are counted within user and nice; waiting for a disk is not work. Stolen time is work of another machine.
    idle = sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    swap = psutil.swap_memory()
    # macOS counts pages of ordinary files in sin: there only the amount in use tells.
    swapped = int(swap.sin + swap.sout) if sys.platform == "linux" else int(swap.used)
    return _Sample(clock=time.perf_counter(), busy=sum(times) - idle, own=_own_seconds(), swapped=swapped)


def _own_seconds() -> float:
    """Processor time of this process and its children, living or waited for."""
    process = psutil.Process()
    seconds = 0.0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = member.cpu_times()
            seconds += times.user + times.system
            seconds += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds


def _processor() -> str:
    """The processor's name, as the system reports it."""
    if sys.platform == "darwin" and (said := _sysctl("machdep.cpu.brand_string")):
        return said
    return " ".join(_cpuinfo("model name").split()) or platform.processor() or platform.machine()


def _sysctl(name: str) -> str | None:
    """What macOS says of its machine; None where it does not."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["sysctl", "-n", name]
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None


def _cpuinfo(name: str) -> str:
    """What the kernel says of the first processor; empty where it does not."""
    try:
        text = (_PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def _allowed_processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _physical_cores(allowed: list[int]) -> int:
    """Distinct cores among the processors allowed."""
    cores: set[tuple[str, str]] = set()
    for number in allowed:
        topology = _CPUS / f"cpu{number}" / "topology"
        try:
            cores.add(((topology / "physical_package_id").read_text(), (topology / "core_id").read_text()))
        except OSError:
            return min(psutil.cpu_count(logical=False) or len(allowed), len(allowed))
    return max(1, len(cores))


def _memory_total() -> int:
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _memory_limits())])


def _core_limit() -> float | None:
    """The least processor time granted by the control groups above this process, in cores."""
    limits: list[float] = []
    for folder in _groups("cpu"):
        granted = _words(folder / "cpu.max")  # version 2: "max 100000" or "150000 100000"
        granted = granted or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        quota, period = granted if len(granted) == 2 else ("max", "max")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _memory_limits() -> list[tuple[int, int]]:
    """(limit, used) in bytes of every control group above this process that sets one.

    Pages of files that can be dropped at once do not count as used.
    """
    found: list[tuple[int, int]] = []
    for folder in _groups("memory"):
        names = ("memory.max", "memory.current", "inactive_file")  # version 2
        if not (folder / names[0]).is_file():
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = ((_words(folder / name) or [""])[0] for name in names[:2])
        if not (limit.isdigit() and used.isdigit()):
            continue  # "max", or no such group
        stat = _words(folder / "memory.stat")
        droppable = int(stat[stat.index(names[2]) + 1]) if names[2] in stat else 0
        found.append((int(limit), max(0, int(used) - droppable)))
    return found


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control group and those above it, for version 2 and for a controller of version 1."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = _CGROUPS / controller if names else _CGROUPS
        inside = root / path.strip("/")
        folders += [folder for folder in (inside, *inside.parents) if folder == root or root in folder.parents]
    return folders


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _accelerators() -> tuple[Accelerator, ...]:
    import torch  # seconds-slow

    if torch.cuda.is_available():
        found: list[Accelerator] = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found.append(Accelerator(torch.cuda.get_device_name(number), int(total), int(free)))
        return tuple(found)
    if torch.backends.mps.is_available():
        most = int(torch.mps.recommended_max_memory())
        free = min(most - int(torch.mps.driver_allocated_memory()), memory_available())
        return (Accelerator("Apple GPU (MPS)", most, max(0, free)),)
    return ()
