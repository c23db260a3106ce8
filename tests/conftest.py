"""Fixtures shared by all tests; no test needs a network."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# With several workers each has a core of its own; alone, a test run may use two.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
# The reference goes from torch to numpy and back: threads of the one that wait busily would slow down the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import settings

import soak_table
from browser import Browser, executable

# The same examples at every run: a change is judged by what it changes. `HYPOTHESIS_PROFILE=explore` tries new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("quick", derandomize=True, max_examples=25)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


QUICK = ("gemma2", "gpt2", "gpt_neox")
"""Architectures of `make test`: soft-capped with sliding windows, learnt positions, parallel blocks."""
OTHERS = ("llama", "gemma3", "mistral", "qwen2", "qwen3")
ARCHITECTURES = [
    *QUICK,
    *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS),
]


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of the eight tiny models in turn."""
    import tiny  # transformers: seconds that the process which only hands out the tests should not take

    assert tiny.ARCHITECTURES.keys() == {*QUICK, *OTHERS}
    return tiny.save_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma-2 model."""
    import tiny  # as above

    return tiny.save_model(tmp_path_factory.mktemp("models") / "gemma2", "gemma2")


@pytest.fixture(scope="session")
def tiny_saes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAEs for layers 0, 1 and 3 of any tiny model."""
    import tiny  # as above

    return tiny.save_saes(tmp_path_factory.mktemp("saes"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium; where the machine has none, tests that look at pages are skipped, and fail in CI."""
    path = executable()
    if path is None:
        reason = "no Chromium or Chrome on this machine: pages are not tested in a browser"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    found = Browser(path, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Five pairs: shared prompts, unicode, uneven lengths."""
    import tiny  # as above

    return tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)


PROCESS = (
    *("bench/test_against", "bench/test_field", "cli/test_experiments", "cli/test_fresh_machine", "cli/test_hub"),
    *("cli/test_hub_cache", "cli/test_hub_data", "cli/test_presets_offline", "cli/test_stats_detectors"),
    *("cli/test_terminal", "cli/test_without_torch", "contract/test_corruption"),
    *("contract/test_crash", "contract/test_disk", "contract/test_fuzz", "contract/test_hostile_input"),
    *("contract/test_resume", "demo/test_demo_model", "demo/test_train_saes"),
    *("engine/test_ray_cluster", "host/test_threads", "model/test_transformer_lens", "pipeline/test_batch_size"),
    "real/test_real_model",
    "report/view/test_browser",
    *("report/test_browser", "runs/test_ray_ask", "runs/test_ray_run", "test_docs", "test_notebooks"),
)
"""Files whose tests start other processes, clusters or a browser, or do what takes as long."""
THOROUGH = (
    *(
        "contract/test_chat_runs",
        "contract/test_real_models",
        "contract/test_trajectory",
        "contract/test_without_saes",
        "features/test_ablation",
        "health/test_planted_faults",
        "health/test_sae_qualities",
        "health/test_sound",
        "health/test_stand_ins",
        "model/test_hook_z",
    ),
    *("model/test_families", "stats/test_simulations"),
)
"""Files that try more of what others try."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files of the other tiers unread in `make test`: importing them takes seconds."""
    name = collection_path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
    return True if "not process" in config.option.markexpr and name in (*PROCESS, *THOROUGH) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tier the tests of a file belong to."""
    folder = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(folder).with_suffix("").as_posix()
        if name in PROCESS:
            item.add_marker("process")
        if name in THOROUGH:
            item.add_marker("thorough")


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
