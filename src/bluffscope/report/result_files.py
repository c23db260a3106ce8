"""stats.parquet, ladder.parquet, the detectors' tables and stats.json; compare.parquet and compare.json: each whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from bluffscope.compare.runs import RunComparison
from bluffscope.detectors.evaluate import Detection
from bluffscope.report.headlines import headlines
from bluffscope.stats.analysis import StatsResult
from bluffscope.table.atomic import atomic_write, make_folder, remove, table_errors
from bluffscope.table.folder import plain, write_json
from bluffscope.table.manifest import package_versions

STATS_VERSION = 2
"""Version of the columns and of stats.json."""
COMPARE_VERSION = 1
"""Version of the columns and of compare.json."""
_OPTIONAL = ("detectors.parquet", "detector_gains.parquet", "detector_curves.parquet", "transfer.parquet")
_PACKAGES = ("bluffscope", "numpy", "scipy", "scikit-learn", "polars")


def write_stats(
    result: StatsResult, folder: Path, source: Mapping[str, Any], detection: Detection | None = None
) -> tuple[Path, Path]:
    """Write all files, in place of earlier ones; returns the paths of stats.parquet and stats.json.

    The files of a folder belong together: where no detectors are given, those of an earlier call are removed.

    Args:
        result: what is written.
        folder: created if missing.
        source: what was analysed (table, pairs), for stats.json.
        detection: the detectors, where they were asked for: their four tables.

    Raises:
        RunFolderError: the operating system refused.
    """
    make_folder(folder)
    about = {"stats_version": STATS_VERSION, **source, **result.about}
    tables = {"ladder.parquet": result.ladder}
    if detection is not None:
        frames = (detection.rows, detection.against, detection.curves, detection.transfer)
        tables |= dict(zip(_OPTIONAL, frames, strict=True))
    for name, frame in tables.items():
        told = headlines(frame) if name == "detectors.parquet" else {}
        atomic_write(folder / name, partial(frame.write_parquet, metadata=told))
    remove(folder / name for name in _OPTIONAL if name not in tables)
    content = {
        **about,
        "files": ["stats.parquet", *tables],
        "detectors": None if detection is None else detection.about | {"rows": detection.rows.to_dicts()},
        "cross_tables": result.cross_tables.to_dicts(),
        "control_rows": [] if result.control is None else result.control.to_dicts(),
    }
    # The Parquet file holds the family too, for whoever has that file alone.
    marks = {name: json.dumps(plain(about[name])) for name in ("stats_version", "family", "corrections", "notes")}
    return _write(folder / "stats", result.rows, marks | headlines(result.rows), content)


def current_statistics(folder: Path) -> bool:
    """Whether a run's folder has statistics of this version: earlier ones came to other verdicts."""
    file = folder / "stats.parquet"
    if not file.exists():
        return False
    with table_errors(file):
        return pl.read_parquet_metadata(file).get("stats_version") == str(STATS_VERSION)


def write_comparison(result: RunComparison, folder: Path) -> tuple[Path, Path]:
    """Write both files, in place of earlier ones; returns their paths.

    Args:
        result: what is written.
        folder: created if missing.

    Raises:
        RunFolderError: the operating system refused.
    """
    make_folder(folder)
    others = [
        {field.name: getattr(other, field.name) for field in fields(other)}
        | {"fidelity": None if other.fidelity is None else other.fidelity.to_dicts()}
        for other in result.others
    ]
    content = {"compare_version": COMPARE_VERSION, "first": result.first, "others": others}
    marks = {"compare_version": str(COMPARE_VERSION), "first": result.first}
    return _write(folder / "compare", result.rows, marks, content)


def _write(path: Path, rows: pl.DataFrame, marks: Mapping[str, str], content: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the rows as PATH.parquet, with marks in its metadata, and all as PATH.json."""
    parquet, text = path.with_suffix(".parquet"), path.with_suffix(".json")
    atomic_write(parquet, lambda temporary: rows.write_parquet(temporary, metadata=dict(marks)))
    write_json(text, {**content, "rows": rows.to_dicts(), "packages": package_versions(_PACKAGES)})
    return parquet, text
