"""Fixtures shared by all tests; no test needs a network."""

from __future__ import annotations

import faulthandler
import os
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# With several workers each has a core of its own; alone, a test run may use two.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
# The reference goes from torch to numpy and back: threads of the one that wait busily would slow down the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

with warnings.catch_warnings():
    # sae_lens imports a deprecated module of transformer_lens; every test would fail on its warning
    warnings.simplefilter("ignore", DeprecationWarning)
    import sae_lens  # noqa: F401

import pytest
from hypothesis import settings

import soak_table
import tiny

# The same examples at every run: a change is judged by what it changes. `HYPOTHESIS_PROFILE=explore` tries new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("quick", derandomize=True, max_examples=25)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


QUICK = ("gemma2", "llama", "gpt2", "gpt_neox")
"""Architectures of `make test`: soft-capped with sliding windows, plain, learnt positions, parallel blocks."""
ARCHITECTURES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.thorough) for name in tiny.ARCHITECTURES
]


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of the eight tiny models in turn."""
    return tiny.save_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma-2 model."""
    return tiny.save_model(tmp_path_factory.mktemp("models") / "gemma2", "gemma2")


@pytest.fixture(scope="session")
def tiny_saes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAEs for layers 0, 1 and 3 of any tiny model."""
    return tiny.save_saes(tmp_path_factory.mktemp("saes"))


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Five pairs: shared prompts, unicode, uneven lengths."""
    return tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Soak tests may take longer than the time after which a test counts as hanging."""
    if item.get_closest_marker("soak"):
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What `make soak` found, as tables (docs/reliability.md)."""
    if soak_table.FUZZED:
        terminalreporter.section(f"random inputs, FUZZ_SEED={soak_table.FUZZED[0].seed}")
        for line in soak_table.fuzzed_lines(soak_table.FUZZED):
            terminalreporter.write_line(line)
    if soak_table.ROWS:
        terminalreporter.section("faults injected")
        for line in soak_table.lines(soak_table.ROWS):
            terminalreporter.write_line(line)
