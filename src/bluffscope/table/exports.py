"""A table as a file that the user names: Parquet, JSON, or CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from bluffscope.errors import InputError
from bluffscope.table.atomic import atomic_write
from bluffscope.table.folder import write_json

SUFFIXES: Final = (".csv", ".parquet", ".json")
_FORMULA: Final = r"^(\s*[=+\-@]|[\t\r\n])"
"""How a cell begins that a spreadsheet would run as a formula."""
_SPLIT_OFF: Final = r"([;\t\r\n][\s\"]*)([=+\-@])"
"""A formula in the middle of a cell, where a spreadsheet whose separator is not the comma begins the next cell."""


def check_export(path: Path) -> None:
    """Refuse a path that cannot be written, before minutes go into its content.

    Raises:
        InputError: another kind of file, a folder, or a folder that is not there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {path}: give a file that ends in {', '.join(SUFFIXES)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: {'a folder' if path.is_dir() else 'no such folder'}; give a file's path")


def export_table(path: Path, table: pl.DataFrame, document: Mapping[str, Any]) -> None:
    """Write a table whole, in place of an earlier file; of JSON the whole document.

    Args:
        path: as `check_export` allows.
        table: the rows of CSV and Parquet.
        document: what JSON holds.

    Raises:
        RunFolderError: the operating system refused.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        write_json(path, document)
    else:
        atomic_write(path, table.write_parquet if suffix == ".parquet" else safe_for_spreadsheets(table).write_csv)


def safe_for_spreadsheets(table: pl.DataFrame) -> pl.DataFrame:
    """Lists as text, and an apostrophe before whatever a spreadsheet would take for a formula, split as it may."""
    texts = [
        pl.col(name).list.eval(pl.element().cast(pl.String)).list.join("; ").alias(name)
        for name, kind in table.schema.items()
        if isinstance(kind, pl.List)
    ]
    table = table.with_columns(texts)
    cells = {
        name: pl.col(name).str.replace_all(_SPLIT_OFF, "${1}'${2}")
        for name, kind in table.schema.items()
        if kind == pl.String
    }
    return table.with_columns(
        pl.when(cell.str.contains(_FORMULA)).then("'" + cell).otherwise(cell).alias(name)
        for name, cell in cells.items()
    )
