"""The named parameters are the options' dataclasses, field by field."""

from __future__ import annotations

import types
from dataclasses import fields
from pathlib import Path
from typing import Literal, NotRequired, Union, get_args, get_origin, get_type_hints

import pytest

import bluffscope
import tiny
from bluffscope.api.options import AnyPath, Options, config_from
from bluffscope.config import RunConfig
from bluffscope.config.layers import LayerSlice
from bluffscope.errors import InputError

OBJECTS = {"model", "sae", "tokenizer"}
"""They take more than a name, and are checked by what they take."""


def plain(hint):
    """A type as comparable text: the wider ones of parameters as those of the dataclasses."""
    if get_origin(hint) is NotRequired:
        return plain(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        parts = set(get_args(hint))
        if set(get_args(AnyPath)) <= parts:
            parts = parts - set(get_args(AnyPath)) | {Path}
        return frozenset(map(plain, parts))
    if hint is LayerSlice:
        return str
    if get_origin(hint) is Literal:
        return frozenset(get_args(hint))
    if get_args(hint):
        return "several", plain(get_args(hint)[0])
    return hint


def test_every_option_is_a_parameter_of_the_same_type_and_no_other():
    declared = {
        field.name: get_type_hints(type(getattr(RunConfig(), part.name)))[field.name]
        for part in fields(RunConfig)
        for field in fields(getattr(RunConfig(), part.name))
    }
    declared.pop("data")  # the first parameter of its own
    given = get_type_hints(Options)
    assert given.keys() - {"tokenizer"} == declared.keys()
    assert {name: plain(given[name]) for name in declared if name not in OBJECTS} == {
        name: plain(hint) for name, hint in declared.items() if name not in OBJECTS
    }


def test_an_unknown_option_is_a_type_error_of_one_line():
    with pytest.raises(TypeError, match="unknown option 'modle': expected a flag of `bluffscope analyze`"):
        bluffscope.run(tiny.PAIRS, modle="x")


def test_what_is_left_out_of_a_resumed_run_is_its_own_and_code_is_asked_for_again(tmp_path, tiny_model, tiny_saes):
    folder = tmp_path / "run"
    bluffscope.analyze(tiny.PAIRS, model=tiny_model, sae=tiny_saes, noise_draws=2, out=folder)
    assert bluffscope.run(resume=folder).config["measure"]["noise_draws"] == 2
    with pytest.raises(InputError, match="--noise-draws: the run has 2, not 3"):
        bluffscope.run(resume=folder, noise_draws=3)
    for options, says in (
        ("measure: {analysis: ['own.py:x']}", r"resume: its options name an analysis, which is code"),
        ("engine: {address: 'host:1'}", r"resume: its options name a Ray cluster; .* add address='host:1'"),
    ):
        (folder / "config.yaml").write_text(options)
        with pytest.raises(InputError, match=says):
            bluffscope.run(resume=folder)


def test_options_by_name_are_those_of_a_configuration():
    assert config_from(layers=range(3), out="x") == config_from(layers=(0, 1, 2), out=Path("x"))
