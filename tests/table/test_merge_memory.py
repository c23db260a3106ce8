"""The merge of a run far larger than memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import soak_table

ROWS = 5_000_000
SHARD_ROWS = 1024
MOST_BYTES = 1.5e9

_PROGRAM = r"""
import json, re, sys, time
from pathlib import Path
import numpy as np
import polars as pl
from bluffscope.table.folder import RunFolder
from bluffscope.table.merge import merge
from bluffscope.table.schema import table_columns
from bluffscope.table.shards import shard_schema, write_shard

job, path, rows, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
columns = table_columns([5, 12, 20])
count = -(-rows // size)
if job == "write":
    rng = np.random.default_rng(0)
    folder = RunFolder.create(path)
    floats = {c.name: rng.integers(0, 256, size) / 256 for c in columns if c.kind == "float"}
    base = pl.DataFrame(floats).select(
        pl.lit("a prompt").alias(c.name) if c.kind in ("str", "category") else pl.col(c.name) if c.kind == "float" else
        pl.lit(3, dtype=pl.Int64).alias(c.name) for c in columns
    )
    schema = shard_schema(columns)
    for number in range(count):
        index = np.arange(number * size, min(rows, (number + 1) * size))
        frame = base.head(len(index)).with_columns(
            pl.Series("_index", index), pl.Series("pair_id", index).cast(pl.String).alias("pair_id"),
            *(pl.lit("text").alias(name) for name in ("prompt", "fact", "hallucination")),
            _features=pl.lit([], dtype=schema["_features"]), _reason=pl.lit(None, dtype=pl.String),
        )
        write_shard(folder.shards, number, frame.select(list(schema)), session={"started": "now"})
    print(json.dumps({}))
else:
    started = time.perf_counter()
    result = merge(RunFolder(path), count, columns, {})
    found = pl.scan_parquet(path / "metrics.parquet").select("pair_id").collect(engine="streaming")["pair_id"]
    # ru_maxrss would hold what the process that started this one had at its most.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps({"peak": peak, "rows": result.rows, "ids": found.n_unique(), "table": len(found),
                      "ordered": found.cast(pl.Int64).is_sorted(), "seconds": time.perf_counter() - started}))
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_five_million_rows_are_merged_within_a_bound_of_memory(tmp_path):
    if shutil.disk_usage(tmp_path).free < 20e9:
        pytest.skip("needs 20 GB of disk")
    found = {}
    for job in ("write", "merge"):
        command = [sys.executable, "-c", _PROGRAM, job, str(tmp_path / "run"), str(ROWS), str(SHARD_ROWS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    shutil.rmtree(tmp_path / "run")
    assert found["rows"] == found["table"] == found["ids"] == ROWS and found["ordered"]
    name = f"merge of {ROWS:,} rows: peak {found['peak'] / 1e9:.2f} GB"
    soak_table.ROWS.append(
        soak_table.Row(name, 0, 1, ROWS - found["table"], found["table"] - found["ids"], found["seconds"])
    )
    assert found["peak"] < MOST_BYTES
