"""Analyses of the user's own: what `per_read` makes of a function, and what is said of one that breaks its word."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from bluffscope import Column, UserAnalysis, per_read
from bluffscope.errors import InputError
from bluffscope.metrics.active import ActiveFeatures
from bluffscope.metrics.own import load_analyses
from by_hand import measurement, sparse, state

DENSE = np.array([[0, 2, 0, 1.5], [0, 0, 0, 0], [4, 1, 1, 0], [0, 0, 3, 0], [1, 2, 3, 4], [0, 0, 0, 0.5]])


def peak(m, layer):
    """Largest activation.

    Not part of the sentence.
    """
    return m.features(layer).max()


def two_layers():
    return measurement(state(3, DENSE), state(1, 2 * DENSE))


def test_the_helpers_are_those_of_the_dense_rows():
    features = ActiveFeatures(sparse(DENSE))
    active = [row[row > 0] for row in DENSE]
    np.testing.assert_array_equal(features.dense(), DENSE)
    np.testing.assert_array_equal(features.count(), [len(row) for row in active])
    np.testing.assert_array_equal(features.sum(), DENSE.sum(1))
    np.testing.assert_array_equal(features.max(), [row.max(initial=-1) if len(row) else math.nan for row in active])
    np.testing.assert_array_equal(features.mean(), [row.mean() if len(row) else math.nan for row in active])
    rebuilt = np.zeros_like(DENSE)
    rebuilt[features.read, features.indices] = features.activations
    np.testing.assert_array_equal(rebuilt, DENSE)


def test_a_function_of_reads_becomes_a_column_of_every_layer_and_view():
    analysis = per_read("peak", peak, unit="activation units", low=0, label="Peak", version=3)
    columns = analysis(two_layers())
    names = [f"l{layer}_{view}_peak" for layer in (3, 1) for view in ("prompt", "fact", "hall")]
    assert list(columns) == names
    np.testing.assert_array_equal(columns["l3_fact_peak"], [math.nan, 4])
    np.testing.assert_array_equal(columns["l1_hall_peak"], [8, 1])
    declared = analysis.declared((3, 1))
    assert [column.name for column in declared] == names
    expected = Column("l3_prompt_peak", "float", "activation units", 0, None, "Largest activation.", 3, label="Peak")
    assert declared[0] == expected


def test_tensors_do_and_a_view_of_several_reads_is_their_mean():
    reads = [(0, 0), (0, 1), (0, 1), (0, 2)]
    measured = measurement(state(0, DENSE[:4], residual=np.arange(16).reshape(4, 4)), reads=reads)
    analysis = per_read("first", lambda m, layer: m.states[layer].residual[:, 0].float(), unit="")
    assert [analysis(measured)[f"l0_{view}_first"].tolist() for view in ("prompt", "fact", "hall")] == [[0], [6], [12]]


def test_layers_may_be_chosen_and_one_that_is_not_measured_is_an_error():
    chosen = per_read("peak", peak, unit="", layers=(1,))
    assert list(chosen(two_layers())) == ["l1_prompt_peak", "l1_fact_peak", "l1_hall_peak"]
    message = "analysis 'peak': column 'l7_prompt_peak' is of layer 7, which is not measured .measured: 3 1."
    with pytest.raises(InputError, match=message):
        per_read("peak", peak, unit="", layers=(7,)).declared((3, 1))
    with pytest.raises(InputError, match="layer 7 is not measured, only 3 1; add it with --layers"):
        per_read("peak", lambda m, layer: m.features(7).max(), unit="")(two_layers())


@pytest.mark.parametrize(
    ("low", "high", "span"), [(0, 5, "0 to 5"), (None, 5, r"\.\.\. to 5"), (2, None, r"2 to \.\.\.")]
)
def test_a_value_outside_the_declared_range_names_analysis_pair_and_value(low, high, span):
    values = [3, 3, 3, 3, 1 if high is None else 5.5, 3]
    analysis = per_read("mine", lambda m, layer: values, unit="", low=low, high=high)
    message = f"analysis 'mine', pair 'p1': l3_fact_mine is {values[4]:g}, outside its declared range {span}"
    with pytest.raises(InputError, match=message):
        analysis(two_layers())


def test_rounding_beyond_a_bound_is_the_bound_and_undefined_stays_undefined():
    values = [0, 1 + 1e-12, math.nan, 1, -1e-15, 0.5]
    columns = per_read("share", lambda m, layer: values, unit="", low=0, high=1)(measurement(state(0, DENSE)))
    np.testing.assert_array_equal(columns["l0_fact_share"], [1, 0])
    np.testing.assert_array_equal(columns["l0_hall_share"], [math.nan, 0.5])


def test_anything_but_one_value_a_read_is_refused():
    with pytest.raises(
        InputError, match=r"'few', layer 3: returned shape \(5,\); expected one value for each of the 6 reads"
    ):
        per_read("few", lambda m, layer: torch.zeros(5), unit="")(two_layers())
    with pytest.raises(InputError, match="shape"):
        per_read("dense", lambda m, layer: m.features(layer).dense(), unit="")(two_layers())


@pytest.mark.parametrize("name", ["", "a b", "2nd", "l2_fact_x\n", "é"])
def test_a_name_must_do_for_a_column(name):
    with pytest.raises(InputError, match="letters, digits and underscores"):
        per_read(name, peak, unit="")


def test_an_empty_range_is_refused():
    with pytest.raises(InputError, match="its range 1 to 1 is empty"):
        per_read("x", peak, unit="", low=1, high=1)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"x": [1.0, 2.0], "y": [1.0, 2.0]}, "'mine' returned the column 'y', which it did not declare"),
        ({}, "'mine' declared the column 'x', but did not return it"),
        ({"x": [1.0]}, "'mine': column 'x' has 1 values for 2 pairs"),
    ],
    ids=["too many", "too few", "too short"],
)
def test_columns_must_be_those_declared(returned, message):
    def mine(m):
        return returned

    with pytest.raises(InputError, match=message):
        UserAnalysis(mine, (Column("x", "float", "", None, None, "Mine."),))(two_layers())


# --- from a file ------------------------------------------------------------------------------------------------------

FILE = """
import bluffscope

peak = bluffscope.per_read("peak", lambda m, layer: m.features(layer).max(), unit="activation units")
other = bluffscope.per_read("other", lambda m, layer: m.features(layer).mean(), unit="activation units")
"""


def test_analyses_are_loaded_from_a_file_by_name(tmp_path):
    (tmp_path / "own.py").write_text(FILE)
    names = [f"{tmp_path}/own.py:peak", f"{tmp_path}/own.py:other"]
    loaded = load_analyses(names)
    assert [analysis.name for analysis in loaded] == ["peak", "other"]
    assert [analysis.source for analysis in loaded] == names
    np.testing.assert_array_equal(loaded[0](two_layers())["l3_fact_peak"], [math.nan, 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own.py", "expected FILE.py:NAME"),
        ("none.py:peak", "no such file"),
        ("own.py:nothing", r"has no analysis 'nothing' \(it has: peak, other\)"),
        ("broken.py:peak", "the file fails with ZeroDivisionError: division by zero"),
        ("syntax.py:peak", "the file fails with SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    for name, content in {"own": FILE, "broken": "1 / 0", "syntax": "def"}.items():
        (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(InputError, match=f"--analysis {text}: .*{message}"):
        load_analyses([text])


def test_the_code_of_a_loaded_file_is_found_to_be_sent_to_other_processes(tmp_path):
    from bluffscope.runs.workers import _modules_to_send

    (tmp_path / "own.py").write_text(FILE)
    (analysis,) = load_analyses([f"{tmp_path}/own.py:peak"])
    (module,) = _modules_to_send([analysis])
    assert module.startswith("bluffscope_analysis_own_")
    wrapped = UserAnalysis(partial(analysis.function), analysis.columns)
    assert _modules_to_send([wrapped]) == (module,)
