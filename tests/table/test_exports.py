"""Tables for other programs: nothing in a CSV file acts as a formula, and every kind of file holds the same."""

from __future__ import annotations

import csv
import json

import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.table.exports import check_export, export_table

DANGEROUS = ("=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)", "\t=1", "  =1", "\r=1")
TABLE = pl.DataFrame(
    {
        "text": [*DANGEROUS, "plain", "a=b", None],
        "list": [["=1", "x"], ["y"], [], *[None] * 7],
        "number": [-1.5] * 10,
        "numbers": [[-1.5, 2.0]] * 10,
    }
)


def test_text_that_a_spreadsheet_would_run_begins_with_an_apostrophe_and_numbers_stay(tmp_path):
    export_table(tmp_path / "t.csv", TABLE, {})
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A tab and a line feed begin a cell too, for a spreadsheet that splits there.
    safe = ["'" + text.replace("\t=", "\t'=").replace("\r=", "\r'=") for text in DANGEROUS]
    assert [row["text"] for row in rows] == [*safe, "plain", "a=b", ""]
    assert [row["list"] for row in rows[:2]] == ["'=1; x", "y"]
    assert {row["number"] for row in rows} == {"-1.5"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_no_cell_becomes_a_formula_however_a_spreadsheet_splits_it(tmp_path, delimiter):
    """Where the decimal sign is a comma, cells are split at semicolons."""
    texts = ["a;=1+1", "a; =1", "b\t+1", 'c";"=1+1', 'd"";-2+3', "e\n@SUM(A1)", "f;=1;=2", '";=1"', "g;h"]
    lists = [["x", "=1"], ["y", "-z"], *[["q"]] * 7]
    export_table(tmp_path / "t.csv", pl.DataFrame({"id": range(9), "text": texts, "list": lists}), {})
    written = (tmp_path / "t.csv").read_text()
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        for row in csv.reader(written.splitlines(keepends=True), delimiter=delimiter, quoting=quoting):
            assert not [cell for cell in row if cell.strip().strip('"').strip().startswith(("=", "+", "-", "@"))]
    assert "g;h" in written


def test_parquet_and_json_hold_the_texts_as_they_are(tmp_path):
    export_table(tmp_path / "t.parquet", TABLE, {})
    assert pl.read_parquet(tmp_path / "t.parquet").equals(TABLE)
    export_table(tmp_path / "t.json", TABLE, {"rows": TABLE.to_dicts(), "p": float("nan")})
    assert json.loads((tmp_path / "t.json").read_text()) == {"rows": TABLE.to_dicts(), "p": None}


@pytest.mark.parametrize(
    ("name", "says"), [("x.xlsx", "ends in .csv"), ("no/x.csv", "no such folder"), ("d.csv", "a folder")]
)
def test_paths_that_cannot_be_written_are_refused_before_any_work(tmp_path, name, says):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match=says):
        check_export(tmp_path / name)
