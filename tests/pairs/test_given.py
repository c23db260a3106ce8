"""Tables in memory: polars, pandas and datasets give what a file with the same cells gives."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import bluffscope
import tiny
from bluffscope.errors import InputError
from bluffscope.pairs.given import write_pairs

ROWS = [dict(pair) | {"year": 1990 + index, "share": index / 4} for index, pair in enumerate(tiny.PAIRS)]


def tables():
    """The same rows in every kind of table that is installed."""
    found = [pytest.param(ROWS, id="mappings"), pytest.param(pl.DataFrame(ROWS), id="polars")]
    found += [
        pytest.param(pl.LazyFrame(ROWS), id="polars lazy"),
        pytest.param(pl.DataFrame(ROWS).to_arrow(), id="arrow"),
    ]
    return found


def pandas():
    return pytest.importorskip("pandas")


def written(table, tmp_path):
    return [json.loads(line) for line in write_pairs(table, tmp_path / "pairs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("table", tables())
def test_a_table_is_written_as_its_rows(table, tmp_path):
    assert written(table, tmp_path) == ROWS


def test_pandas_and_datasets_too(tmp_path):
    frame = pandas().DataFrame(ROWS)
    assert written(frame, tmp_path) == ROWS
    assert written(frame.set_index("id", drop=False), tmp_path) == ROWS
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset.from_list(ROWS)
    assert written(found, tmp_path) == ROWS
    assert written(found.to_iterable_dataset(), tmp_path) == ROWS
    with pytest.raises(InputError, match="the data is a mapping of 'train'; give one of its values"):
        write_pairs(datasets.DatasetDict(train=found), tmp_path / "pairs.jsonl")


def test_empty_cells_of_pandas_are_null_whatever_it_calls_them(tmp_path):
    pd = pandas()
    frame = pd.DataFrame(
        {
            "prompt": ["a", None, float("nan"), pd.NA],
            "year": pd.array([1, None, 3, 4], dtype="Int64"),
            "share": [0.5, np.nan, 1.0, 2.0],
            "kind": pd.Categorical(["x", None, "y", "x"]),
        }
    )
    assert written(frame, tmp_path) == [
        {"prompt": "a", "year": 1, "share": 0.5, "kind": "x"},
        {"prompt": None, "year": None, "share": None, "kind": None},
        {"prompt": None, "year": 3, "share": 1.0, "kind": "y"},
        {"prompt": None, "year": 4, "share": 2.0, "kind": "x"},
    ]


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_an_index_without_a_name_is_left_out_and_that_is_said(name, tmp_path, caplog):
    table = pl.DataFrame(ROWS).with_row_index(name)
    assert written(table, tmp_path) == ROWS
    assert "a column without a name is left out" in caplog.text
    caplog.clear()
    frame = pandas().DataFrame(ROWS)
    frame.insert(0, name, range(len(ROWS)))
    assert written(frame, tmp_path) == ROWS
    assert caplog.text.count("left out") == 1


@pytest.mark.parametrize("cell", [None, "", [["x"]], float("nan")], ids=str)
def test_cells_that_are_no_completion_get_the_messages_of_a_file(cell, tmp_path):
    rows = [ROWS[0] | {"hallucination": cell}]
    (tmp_path / "file.jsonl").write_text(json.dumps(ROWS[0] | {"hallucination": None if cell != cell else cell}))
    with pytest.raises(InputError, match="field 'hallucination' (is empty|holds a list)") as expected:
        bluffscope.lint(tmp_path / "file.jsonl")
    for table in (pl.DataFrame(rows) if cell == cell else pandas().DataFrame(rows), pandas().DataFrame(rows)):
        with pytest.raises(InputError) as found:
            bluffscope.lint(table)
        assert str(found.value).partition(": line")[2] == str(expected.value).partition(": line")[2]


def test_a_table_is_measured_as_its_file(tiny_model, tiny_saes, pairs_file):
    expected = bluffscope.analyze(pairs_file, model=tiny_model, sae=tiny_saes)
    for table in (pl.DataFrame(tiny.PAIRS), pandas().DataFrame(tiny.PAIRS)):
        assert bluffscope.analyze(table, model=tiny_model, sae=tiny_saes).equals(expected)
