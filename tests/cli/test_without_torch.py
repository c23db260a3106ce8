"""The commands that need a run's folder, a table or pairs alone, where neither torch nor ray can be imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from bluffscope.cli.main import COMMANDS
from made_runs import make_run
from planted import planted, written

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "ray", "transformers", "sae_lens", "safetensors"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
for name in ("torch", "ray"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported")
from bluffscope.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs, a table of others, and pairs with every fault."""
    place = tmp_path_factory.mktemp("without")
    make_run(place / "run")
    make_run(place / "other", seed=1)
    rng = np.random.default_rng(0)
    sides = {f"gini_{side}": rng.normal(size=200) for side in ("fact", "hall")}
    pl.DataFrame(sides).write_csv(place / "theirs.csv")
    written(place / "faulty.jsonl", planted()[0])
    return place


CASES = [
    (("stats", "run"), 0, "Nothing is shown to tell facts from hallucinations"),
    (("stats", "run", "--full"), 0, "Nothing separates fact from hallucination"),
    (("stats", "run", "--detectors", "--control", "null", "--out", "out"), 0, "Detector (SAE features): AUROC"),
    (("stats", "theirs.csv", "--pairs", "bluff200", "--by-order"), 0, "Nothing is shown to tell"),
    (("report", "run"), 0, "Report: "),
    (("compare", "run", "other"), 0, "Verdicts agree"),
    (("lint", "bluff200"), 0, "no finding"),
    (("lint", "faulty.jsonl"), 1, "error: contradiction"),
    (("features", "run"), 0, ""),
]


@pytest.mark.parametrize(("arguments", "code", "says"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_the_command_works_where_torch_and_ray_cannot_be_imported(place, arguments, code, says):
    if arguments[0] not in COMMANDS:
        pytest.skip(f"there is no command {arguments[0]} yet")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=place,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert says in done.stdout
