"""As many rows at a time as stay within bounds, whatever a file's few bytes stand for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluffscope.pairs.parquet_limits import MOST_BYTES, rows_at_once


def repeated(path, length: int, compression: str = "zstd"):
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(600, np.int32)), pa.array(["x" * length]))
    pq.write_table(pa.table({"prompt": column, "n": np.arange(600)}), path, compression=compression)
    return path, pq.read_metadata(path)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_long_text_that_repeats_is_unpacked_a_few_times_at_once(tmp_path, compression):
    length = 8 << 20
    rows = rows_at_once(*repeated(tmp_path / "long.parquet", length, compression), 512)
    assert rows == MOST_BYTES // (length + 4)


def test_short_texts_are_read_as_many_at_once_as_ever(tmp_path):
    assert rows_at_once(*repeated(tmp_path / "short.parquet", 2000), 512) == 512


def test_texts_without_a_dictionary_are_bounded_by_what_they_unpack_to(tmp_path, monkeypatch):
    monkeypatch.setattr("bluffscope.pairs.parquet_limits.LARGE_COLUMN", 100_000)
    table = pa.table({"prompt": ["x" * 1000 + str(i) for i in range(600)]})
    pq.write_table(table, tmp_path / "plain.parquet", use_dictionary=False)
    assert rows_at_once(tmp_path / "plain.parquet", pq.read_metadata(tmp_path / "plain.parquet"), 512) == 16


def test_what_is_no_page_header_limits_nothing(tmp_path):
    path, metadata = repeated(tmp_path / "damaged.parquet", 8 << 20)
    content = bytearray(path.read_bytes())
    content[4:12] = b"\xff" * 8
    path.write_bytes(content)
    assert rows_at_once(path, metadata, 512) == 512
