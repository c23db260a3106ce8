"""A small run in several shards, whole, for the tests of what happens to runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

import bluffscope.api.closing
import bluffscope.pipeline.build
import crashing
from bluffscope.cli.main import main


@pytest.fixture(scope="session")
def options(tmp_path_factory, tiny_model, tiny_saes) -> list[str]:
    """Flags of a run of six shards, one of whose twelve pairs cannot be measured."""
    data = crashing.write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")
    return crashing.flags(tiny_model, tiny_saes, data)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, options) -> crashing.Whole:
    """The run, in a process that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert crashing.Child(["--version"], folder).end().code == 0  # the first process waits until all is imported
    ended = crashing.start(options, folder)
    assert ended.code == 3, ended.said  # one pair is too long
    assert crashing.leftovers(folder) == [] and crashing.missing_and_repeated(folder) == (0, 0)
    return crashing.Whole(folder, ended.seconds)


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    """On standard error, without progress."""
    out: str


@pytest.fixture
def call(capsys, monkeypatch) -> Callable[..., Outcome]:
    """The command in this process, without its report; model and SAEs are read once for all calls of a test."""
    monkeypatch.setattr(bluffscope.api.closing, "_report", lambda *_: None)
    load, kept = bluffscope.pipeline.build.load_parts, {}

    def load_once(config, check=None, *given):
        names = (config.model.model, config.model.sae, config.model.layers, config.model.dtype)
        if names not in kept:
            kept[names] = load(config)
        if check is not None:
            check(tuple(kept[names].coders))
        return kept[names]

    monkeypatch.setattr(bluffscope.pipeline.build, "load_parts", load_once)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        # Random SAEs explain nothing, and the health gate says so: analyses of them are allowed to be unsound here.
        code = main([*(str(argument) for argument in arguments), "--allow-unsound"])
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines(keepends=True) if not line.startswith("Progress: ")]
        return Outcome(code, "".join(lines), said.out)

    return run
