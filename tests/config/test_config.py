"""Options from files and calls are checked against the types that the dataclasses declare."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from bluffscope.config import (
    DataOptions,
    EngineOptions,
    MeasureOptions,
    ModelOptions,
    OutputOptions,
    RunConfig,
    from_words,
    with_values,
)
from bluffscope.errors import InputError


@pytest.mark.parametrize(
    ("options", "name", "given", "held"),
    [
        (ModelOptions(), "layers", [1, np.int64(2)], (1, 2)),
        (ModelOptions(), "layers", range(2), (0, 1)),
        (ModelOptions(), "model", Path("a/b"), "a/b"),
        (ModelOptions(model="x"), "model", None, None),
        (MeasureOptions(), "noise_std", 1, 1.0),
        (MeasureOptions(), "noise_sweep", (1, 0.5), (1.0, 0.5)),
        (MeasureOptions(), "position", "completion-mean", "completion-mean"),
        (EngineOptions(), "batch_size", np.int32(4), 4),
        (EngineOptions(batch_size=4), "batch_size", "auto", "auto"),
        (OutputOptions(), "out", "runs/x", Path("runs/x")),
        (OutputOptions(), "keep_residuals", True, "on"),
        (MeasureOptions(), "logprob", False, "off"),
        (MeasureOptions(), "logprob", "auto", "auto"),
        (DataOptions(), "columns", ["prompt=question"], ("prompt=question",)),
    ],
)
def test_a_value_that_fits_is_held_as_the_field_says(options, name, given, held):
    found = getattr(with_values(options, {name: given}), name)
    assert found == held
    assert type(found) is type(held)


@pytest.mark.parametrize(
    ("options", "name", "given", "says"),
    [
        (
            ModelOptions(),
            "layers",
            5,
            "expected a list of whole numbers or slices (all, spread, START:STOP:STEP), got 5",
        ),
        (ModelOptions(), "layers", "5", "whole numbers or slices (all, spread, START:STOP:STEP), got '5'"),
        (ModelOptions(), "layers", [1.0], "expected a list of whole numbers"),
        (ModelOptions(), "model", 5, "expected text or null, got 5"),
        (ModelOptions(), "model", "a\0b", "expected text or null"),
        (ModelOptions(), "layer", [5], "no such option in this version; expected some of preset, model"),
        (MeasureOptions(), "seed", True, "expected a whole number, got True"),
        (MeasureOptions(), "seed", "1", "expected a whole number, got '1'"),
        (MeasureOptions(), "noise_std", 10**400, "expected a number, got 1000"),
        (MeasureOptions(), "noise_mode", "loud", "expected absolute or relative, got 'loud'"),
        (EngineOptions(), "batch_size", False, "expected auto or a whole number, got False"),
        (OutputOptions(), "out", 3, "expected a path or null, got 3"),
        (OutputOptions(), "keep_residuals", 1, "expected auto or on or off, got 1"),
        (DataOptions(), "limit", "x" * 500, "got '" + "x" * 56 + "..."),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_line(options, name, given, says):
    with pytest.raises(InputError) as caught:
        with_values(options, {name: given}, "here: ")
    assert str(caught.value).startswith(f"here: {name}: ")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 250


def test_the_defaults_pass_their_own_check():
    for part in fields(RunConfig):
        group = getattr(RunConfig(), part.name)
        values = {field.name: getattr(group, field.name) for field in fields(group)}
        assert with_values(group, values) == group


@pytest.mark.parametrize(
    ("options", "name", "words", "held"),
    [
        (DataOptions, "limit", ["5"], 5),
        (DataOptions, "limit", ["None"], None),
        (ModelOptions, "layers", ["1", "2"], (1, 2)),
        (ModelOptions, "layers", [], ()),
        (ModelOptions, "model", ["5"], "5"),
        (MeasureOptions, "noise_sweep", ["1e-3", "2"], (0.001, 2.0)),
        (EngineOptions, "batch_size", ["auto"], "auto"),
        (EngineOptions, "batch_size", ["4"], 4),
        (OutputOptions, "out", ["a/b"], Path("a/b")),
    ],
)
def test_words_of_a_command_line_become_what_the_field_says(options, name, words, held):
    found = from_words(get_type_hints(options)[name], words)
    assert (found, type(found)) == (held, type(held))


@pytest.mark.parametrize(
    ("options", "name", "words", "says"),
    [
        (DataOptions, "limit", ["x"], "expected a whole number, got x"),
        (DataOptions, "limit", [], "expected a whole number, got nothing"),
        (MeasureOptions, "noise_sweep", ["1", "x"], "expected a list of numbers, got 1 x"),
        (MeasureOptions, "noise_mode", ["loud"], "expected absolute or relative, got loud"),
        (EngineOptions, "batch_size", ["9" * 5000], "expected auto or a whole number, got " + "9" * 57 + "..."),
    ],
)
def test_words_that_do_not_fit_are_answered_with_what_was_expected(options, name, words, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        from_words(get_type_hints(options)[name], words)
