"""What the machine says of itself, limits of control groups, and stretches of work that others disturbed."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from bluffscope.host import machine
from bluffscope.host.machine import (
    Accelerator,
    Watch,
    _marks,
    _Sample,
    free_memory,
    memory_available,
    peak_rss,
    read_machine,
)

GB = 1 << 30


def test_the_machine_is_read_as_the_system_shows_it():
    read = read_machine()
    assert read.processor
    assert 1 <= read.physical_cores <= read.logical_cores <= os.cpu_count()
    assert 0 < read.memory_available <= read.memory_total <= psutil.virtual_memory().total
    assert read.swap_used >= 0
    assert all(0 <= gpu.memory_free <= gpu.memory_total for gpu in read.accelerators)


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd sve i8mm bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("", None),
    ],
)
def test_bfloat16_on_a_processor_without_it_is_said_with_what_to_do(tmp_path, monkeypatch, cpuinfo, native):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine.native_bfloat16() is native
    line = machine.emulated("bfloat16", "cpu")
    assert (line is not None) == (native is False)
    assert line is None or ("emulated" in line and "use --dtype float32" in line and "\n" not in line)
    assert machine.emulated("float32", "cpu") is machine.emulated("bfloat16", "cuda") is None


@pytest.mark.parametrize(("said", "native"), [("1", True), ("0", False), (None, None)])
def test_macos_is_asked_for_bfloat16(monkeypatch, said, native):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_sysctl", {"hw.optional.arm.FEAT_BF16": said}.__getitem__)
    assert machine.native_bfloat16() is native


def test_cores_are_those_that_the_process_may_run_on():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # of this thread alone
    try:
        read = read_machine()
    finally:
        os.sched_setaffinity(0, before)
    assert (read.physical_cores, read.logical_cores) == (1, 1)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Files of control groups in place of the system's: the process's own line, and file contents by path."""

    def place(line, files):
        for name, text in {"proc/self/cgroup": line, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
        monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")

    return place


def test_the_narrowest_limit_above_the_process_counts_in_version_2(groups):
    files = {
        "cgroup/memory.max": "max",
        "cgroup/a/memory.max": str(4 * GB),
        "cgroup/a/memory.current": str(3 * GB),
        "cgroup/a/memory.stat": f"anon {GB}\ninactive_file {GB}",
        "cgroup/a/cpu.max": "150000 100000",
        "cgroup/a/b/memory.max": str(8 * GB),
        "cgroup/a/b/memory.current": "0",
        "cgroup/a/b/cpu.max": "max 100000",
    }
    groups("0::/a/b", files)
    assert machine._memory_limits() == [(8 * GB, 0), (4 * GB, 2 * GB)]
    assert machine._core_limit() == 1.5
    assert memory_available() <= 2 * GB
    assert machine._memory_total() <= 4 * GB


def test_limits_are_read_in_version_1_where_a_container_sees_itself_as_the_root(groups):
    files = {
        "cgroup/memory/memory.limit_in_bytes": str(2 * GB),
        "cgroup/memory/memory.usage_in_bytes": str(GB),
        "cgroup/memory/memory.stat": f"total_inactive_file {GB // 4}",
        "cgroup/cpu/cpu.cfs_quota_us": "50000",
        "cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    groups("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x", files)
    assert machine._memory_limits() == [(2 * GB, GB - GB // 4)]
    assert machine._core_limit() == 0.5


def test_without_limits_the_whole_machine_is_there(groups):
    groups("0::/", {"cgroup/cpu.max": "max 100000", "cgroup/memory.max": "max"})
    assert (machine._memory_limits(), machine._core_limit()) == ([], None)
    assert memory_available() > 0


def test_where_the_kernel_shows_nothing_the_system_s_own_calls_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROC", tmp_path / "none")
    monkeypatch.setattr(machine, "_CPUS", tmp_path / "none")
    assert machine._processor() == (platform.processor() or platform.machine())
    assert machine._physical_cores([0]) == 1
    assert machine._groups("memory") == []
    assert not machine.reset_peak_rss()
    assert machine.peak_rss() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_mac_s_processor_is_asked_for_by_its_own_command(monkeypatch):
    def sysctl(command, **_):
        return subprocess.CompletedProcess(command, 0, "Apple M3\n" if command[0] == "sysctl" else "")

    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.subprocess, "run", sysctl)
    assert machine._processor() == "Apple M3"
    used = machine._sample().swapped
    assert used == psutil.swap_memory().used, "pages that went in and out tell nothing there"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 16 GB, of which 10 are free and this process holds 2."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Made-up GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *number: (10 * GB, 16 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2 * GB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: GB)


def test_a_gpu_s_memory_is_what_is_free_and_what_this_process_holds_there(gpu):
    assert machine._accelerators() == (Accelerator("Made-up GPU", 16 * GB, 10 * GB),)
    assert free_memory("cuda") == 12 * GB
    assert machine.device_peak("cuda") == GB


def test_a_mac_s_gpu_shares_the_main_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 4096)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1024)
    assert machine._accelerators() == (Accelerator("Apple GPU (MPS)", 4096, 3072),)
    assert free_memory("mps") == 4096, "its part, however much main memory is free"
    assert machine.device_peak("mps") - 1024 <= peak_rss() == machine.device_peak("cpu")


def test_what_this_process_holds_counts_as_its_own():
    assert free_memory("cpu") > memory_available()


@pytest.mark.process
def test_the_peak_stays_after_memory_is_given_back():
    before = peak_rss()
    held = bytearray(b"x") * (before + (64 << 20))
    grown = peak_rss()
    del held
    assert grown >= before + (64 << 20)
    assert peak_rss() >= grown - (2 << 20)  # the kernel counts pages in batches


def test_the_peak_of_a_larger_parent_is_not_the_childs():
    held = bytearray(b"x") * (400 << 20)
    code = "from bluffscope.host.machine import peak_rss; print(peak_rss())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 5 << 20 < int(done.stdout) < len(held), done.stderr


def sample(clock=0.0, busy=0.0, own=0.0, swapped=0):
    return _Sample(clock, busy, own, swapped)


@pytest.mark.parametrize(
    ("after", "marks"),
    [
        (sample(10, busy=20, own=19), ()),
        (sample(10, busy=18, own=10), ("other load 0.80 cores",)),
        (sample(10, busy=31, own=10), ("other load 2.1 cores",)),
        (sample(0.2, busy=0.2, own=0.0), ()),  # too short to say
        (sample(10, busy=10, own=10, swapped=4096), ()),
        (sample(10, busy=12, own=10, swapped=8 << 20), ("swapping", "other load 0.20 cores")),
        (sample(10, busy=9.5, own=10), ()),  # counters of different grain
    ],
)
def test_a_stretch_is_marked_by_what_disturbed_it(after, marks):
    assert _marks(sample(), after) == marks


@pytest.mark.thorough
def test_another_process_at_work_is_seen():
    # The process between ends at once, so that the busy one is nobody's child here. It ends by itself if need be.
    code = (
        "import subprocess, sys; loop = 'import time\\nwhile time.process_time() < 20: pass'; no = subprocess.DEVNULL; "
        "print(subprocess.Popen([sys.executable, '-c', loop], stdin=no, stdout=no, stderr=no).pid)"
    )
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    busy = int(started.stdout)
    try:
        with Watch() as watch:
            time.sleep(2.0)
        assert any(mark.startswith("other load") for mark in watch.marks), watch
    finally:
        os.kill(busy, signal.SIGKILL)


def test_work_of_this_process_and_its_children_is_not_others():
    before, started = machine._own_seconds(), time.process_time()
    while time.process_time() - started < 0.3:
        pass
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True, timeout=60)
    assert machine._own_seconds() - before >= 0.55


def test_a_watch_that_was_never_entered_says_nothing():
    assert Watch().marks == ()
