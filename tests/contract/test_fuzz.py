"""Random inputs, each given to the command: read or refused with one line; no traceback, no hang, under 2 GB.

`FUZZ_SEED=N` repeats a run, and `-k` with `FUZZ_ONLY=K` one input of it; every failure says both. `FUZZ_INPUTS=N` makes
N of each kind.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import crashing
import soak_table
import tiny
from bluffscope.config import DataOptions, ModelOptions, RunConfig
from faults import killed
from fuzzing.folders import damage_model, damage_run, damage_saes, damage_tokenizer
from fuzzing.inputs import config_file, flags, pairs_file
from fuzzing.trial import TRACEBACK, Verdict, attempt
from fuzzing.values import LONG, SEED, copied

MANY = int(os.environ.get("FUZZ_INPUTS") or 0)
ONLY = os.environ.get("FUZZ_ONLY")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory's peak as Linux has it"),
    *([pytest.mark.soak] if LONG else []),
]


@dataclass(frozen=True)
class Whole:
    """Valid inputs, to be copied and damaged."""

    models: tuple[Path, ...]
    saes: tuple[Path, ...]
    pairs: Path
    run: Path
    unfinished: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    models = tuple(tiny.save_model(folder / name, name) for name in ("llama", "gpt2", "gemma2"))
    saes = (tiny.save_saes(folder / "saes", (0, 1)), tiny.save_gemma_scope(folder / "scope", (0, 1)))
    pairs = crashing.write_pairs(folder / "pairs.jsonl", 8)
    asked = crashing.flags(models[0], saes[0], pairs)
    for name, fault in (("run", None), ("unfinished", killed("replace", r"^\d{6}\..*parquet$", "after", 3))):
        crashing.start(asked, folder / name, fault)
    assert (folder / "run" / "manifest.json").exists()
    assert list((folder / "unfinished" / "shards").glob("*.parquet"))
    return Whole(models, saes, pairs, folder / "run", folder / "unfinished")


Made = tuple[list[object], str]
"""The command's words, and what is wrong with the input."""


def analyze(model: Path, saes: Path, pairs: Path, scratch: Path, *more: object) -> list[object]:
    return ["analyze", "--model", model, "--sae", saes, "--data", pairs, "--out", scratch / "out", *more]


def a_model(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    folder = copied(rng.choice(whole.models), scratch / "model")
    said = damage_model(rng, folder)
    return analyze(
        folder, whole.saes[0], whole.pairs, scratch, *rng.choice([(), (), ("--logprob",), ("--dry-run",)])
    ), said


def a_tokenizer(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    folder = copied(rng.choice(whole.models), scratch / "model")
    said = damage_tokenizer(rng, folder)
    lint = ["lint", whole.pairs, "--model", folder]
    return (lint if rng.random() < 0.4 else analyze(folder, whole.saes[0], whole.pairs, scratch)), said


def some_saes(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    folder = copied(rng.choice(whole.saes), scratch / "saes")
    return analyze(whole.models[0], folder, whole.pairs, scratch), damage_saes(rng, folder)


def a_config(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    model = ModelOptions(model=str(whole.models[0]), sae=str(whole.saes[0]), layers=(0, 1))
    base = RunConfig(data=DataOptions(data=str(whole.pairs)), model=model)
    path, said = config_file(rng, scratch, base)
    command = rng.choice(["analyze", "analyze", "doctor"])
    return [command, "--config", path, *(("--out", scratch / "out") if command == "analyze" else ())], said


def a_run(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    unfinished = rng.random() < 0.4
    folder = copied(whole.unfinished if unfinished else whole.run, scratch / "run")
    said = damage_run(rng, folder)
    commands: list[list[object]] = [["analyze", "--resume", folder], ["analyze", "--config", folder / "config.yaml"]]
    commands += [["stats", folder], ["features", folder], ["compare", folder, whole.run], ["report", folder]]
    commands += [["detect", "train", folder, "--out", scratch / "detector"]]
    return (commands[0] if unfinished else rng.choice([commands[0], *commands])), said


def some_pairs(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    path, said = pairs_file(rng, scratch)
    measured = analyze(whole.models[0], whole.saes[0], path, scratch)
    return (["lint", path] if rng.random() < 0.6 else measured), said


def a_command_line(rng: random.Random, whole: Whole, scratch: Path) -> Made:
    given = flags(rng)
    return analyze(whole.models[0], whole.saes[0], whole.pairs, scratch, *given), f"flags {str(given)[:120]}"


KINDS: dict[str, tuple[Callable[[random.Random, Whole, Path], Made], int]] = {
    "models": (a_model, 250),
    "tokenizers": (a_tokenizer, 120),
    "SAEs": (some_saes, 170),
    "configs": (a_config, 180),
    "runs": (a_run, 160),
    "pairs": (some_pairs, 160),
    "options": (a_command_line, 100),
}
"""Who makes an input, and how many of them `make soak` makes."""


@pytest.mark.parametrize("kind", list(KINDS))
def test_whatever_is_given_is_read_or_refused_with_one_line(whole, tmp_path, kind):
    make, many = KINDS[kind]
    numbers = [int(ONLY)] if ONLY else range(MANY or (many if LONG else 6))
    row = soak_table.Fuzzed(kind, SEED)
    for number in numbers:
        rng, scratch = random.Random(f"{SEED} {kind} {number}"), tmp_path / str(number)
        scratch.mkdir()
        words, said = make(rng, whole, scratch)
        verdict = attempt(words, scratch)
        row = row.after(verdict.code, verdict.peak, verdict.seconds, verdict.fault)
        if verdict.fault:
            again = f"FUZZ_SEED={SEED} FUZZ_ONLY={number} -k {kind}"
            line = " ".join(str(word)[:200] for word in words)
            found = f"{again}: {said} {verdict.fault}\n{line}\n{verdict.said[-3000:]}"
            sys.stderr.write(f"{found}\n\n")  # at once: a soak takes long
            row = replace(row, faults=(*row.faults, found))
        else:
            shutil.rmtree(scratch)
    soak_table.FUZZED.append(row)
    assert not row.faults, "\n\n".join(row.faults)


def test_tracebacks_hangs_deaths_memory_and_refusals_without_a_reason_are_seen(tmp_path, monkeypatch):
    assert attempt(["lint", "nowhere.json"], tmp_path).fault is None
    assert Verdict(2, "bluffscope lint: x", 0, 1).fault == "is refused, but not in one line that says what"
    assert "signal 9" in str(Verdict(-9, "", 0, 1).fault)
    assert "2.1 GB" in str(Verdict(0, "", 2_100_000_000, 1).fault)
    assert attempt([], tmp_path).code == TRACEBACK  # of `words[0]`, in the child
    assert "traceback" in str(Verdict(TRACEBACK, "Traceback (most recent call last)", 0, 1).fault)
    monkeypatch.setattr("fuzzing.trial.SECONDS", 0.001)
    assert "hangs" in str(attempt(["lint"], tmp_path).fault)
