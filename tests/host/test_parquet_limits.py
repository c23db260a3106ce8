"""No Parquet file takes more memory than its size gives reason for, whatever its few bytes stand for."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.errors import InputError
from bluffscope.host.parquet_limits import (
    MOST_BYTES,
    MOST_HELD,
    MOST_WHOLE,
    LargeParquetError,
    check_whole,
    rows_at_once,
)
from bluffscope.table.reader import read_run, read_table
from bluffscope.table.shards import DamagedShardError, ShardFile
from made_runs import make_run


def saved(path: Path, columns: dict, **options) -> Path:
    pq.write_table(pa.table(columns), path, **{"compression": "zstd", **options})
    return path


def at_once(path: Path) -> int:
    return rows_at_once(path, pq.read_metadata(path), 512)


def repeated(length: int, rows: int = 600) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * length]))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_a_long_text_that_repeats_is_unpacked_a_few_times_at_once(tmp_path, compression):
    length = 8 << 20
    path = saved(tmp_path / "x.parquet", {"prompt": repeated(length), "n": np.arange(600)}, compression=compression)
    assert at_once(path) == (MOST_BYTES - 1) // length


def test_all_columns_share_what_is_unpacked_at_once(tmp_path):
    columns = {f"c{i}": repeated(1 << 20) for i in range(8)}
    assert at_once(saved(tmp_path / "x.parquet", columns)) == (MOST_BYTES - 1) // (8 << 20)


def test_short_texts_are_read_as_many_at_once_as_ever_and_so_is_a_long_dictionary_of_them(tmp_path):
    assert at_once(saved(tmp_path / "short.parquet", {"prompt": repeated(2000)})) == 512
    many = pa.array([f"text number {i} of a long dictionary" for i in range(30_000)])
    assert at_once(saved(tmp_path / "many.parquet", {"prompt": many})) == 512


def texts_of(lists: int, of: int) -> list[list[str]]:
    return [[f"answer {i} {j}" for j in range(of)] for i in range(lists)]


def test_honest_lists_and_embeddings_are_read(tmp_path):
    rng = np.random.default_rng(0)
    vectors = list(rng.normal(size=(500, 384)).astype(np.float32))
    path = saved(tmp_path / "x.parquet", {"answers": texts_of(500, 20), "vector": vectors})
    assert at_once(path) > 30
    check_whole(path, pq.read_metadata(path))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("kind", ["numbers", "texts", "structs"])
def test_a_list_of_millions_in_one_row_is_refused(tmp_path, version, kind):
    count = 8_000_000
    values = {"numbers": pa.array(np.zeros(count, np.int32)), "texts": repeated(3, count)}
    flat = values.get(kind, pa.StructArray.from_arrays([values["numbers"], values["numbers"]], ["a", "b"]))
    lists = pa.ListArray.from_arrays(pa.array([0, count]), flat)
    path = saved(tmp_path / "x.parquet", {"extra": lists}, data_page_version=version, store_schema=False)
    assert path.stat().st_size < 20_000
    with pytest.raises(LargeParquetError, match=r"bytes can unpack to \d\.\d GB"):
        at_once(path)


def test_many_lists_in_pages_that_are_small_are_refused_all_the_same(tmp_path):
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 4_000_001, 1000)), pa.array(np.zeros(4_000_000, np.int64)))
    path = saved(tmp_path / "x.parquet", {"extra": lists}, data_page_size=1000)
    with pytest.raises(LargeParquetError):
        at_once(path)


@pytest.mark.parametrize("dictionary", [True, False])
def test_large_pages_are_refused_before_one_is_unpacked(tmp_path, dictionary):
    columns = {f"c{i}": ["x" * (9 << 20) + str(j) for j in range(2)] for i in range(8)}
    path = saved(tmp_path / "x.parquet", columns, use_dictionary=dictionary, data_page_size=1 << 30)
    assert path.stat().st_size < 200_000
    with pytest.raises(LargeParquetError):
        at_once(path)


@pytest.mark.thorough
def test_texts_that_share_beginnings_are_as_long_as_their_page(tmp_path):
    texts = ["x" * 500_000 + str(i) for i in range(600)]
    path = saved(tmp_path / "x.parquet", {"c": texts}, use_dictionary=False, column_encoding={"c": "DELTA_BYTE_ARRAY"})
    assert at_once(path) * 500_000 <= MOST_BYTES
    with pytest.raises(LargeParquetError):
        check_whole(path, pq.read_metadata(path))


@pytest.mark.thorough
def test_fixed_widths_count_where_nothing_is_stored(tmp_path):
    nothing = pa.nulls(600, pa.binary(1 << 20))
    assert at_once(saved(tmp_path / "x.parquet", {"c": nothing})) <= MOST_BYTES >> 20
    with pytest.raises(LargeParquetError):
        check_whole(tmp_path / "x.parquet", pq.read_metadata(tmp_path / "x.parquet"))


def test_more_rows_than_a_file_of_its_size_can_have_are_refused(tmp_path):
    path = saved(tmp_path / "x.parquet", {"prompt": repeated(10, 2_000_000)})
    with pytest.raises(LargeParquetError, match="2,000,000 rows in .* bytes are too many; give the pairs as JSONL"):
        at_once(path)


@pytest.mark.thorough
def test_a_footer_that_lies_about_sizes_helps_nothing(tmp_path):
    """The sizes that the footer states are halved to nothing; the pages stay what they are."""
    path = saved(tmp_path / "x.parquet", {"c": ["x" * (70 << 20), "x" * (70 << 20)]}, use_dictionary=False)
    stated = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    content = path.read_bytes()
    assert content.count(varint(stated)) == 2  # of the column and of the row group
    path.write_bytes(content.replace(varint(stated), varint(stated & 0x7F | 1 << 28)))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size != stated
    with pytest.raises(LargeParquetError):
        at_once(path)


def varint(value: int) -> bytes:
    """As Thrift writes a number that is not negative."""
    value, found = value << 1, bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_what_is_no_page_header_is_refused(tmp_path):
    path = saved(tmp_path / "x.parquet", {"prompt": repeated(8 << 20)})
    content = bytearray(path.read_bytes())
    content[4:12] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match="header of a page is damaged"):
        at_once(path)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 400), piece=st.binary(min_size=1, max_size=6))
@pytest.mark.thorough
def test_damage_anywhere_is_an_error_that_readers_expect_or_none(place, piece):
    held = io.BytesIO()
    pl.DataFrame({"a": ["one", "two"] * 20, "b": [[1, 2]] * 40}).write_parquet(held)
    content = bytearray(held.getvalue())
    place %= len(content)
    content[place : place + len(piece)] = piece
    path = Path(STORE) / "damaged.parquet"
    path.write_bytes(content)
    try:
        metadata = pq.read_metadata(path)
        rows_at_once(path, metadata, 512)
        check_whole(path, metadata)
    except (ValueError, OverflowError, OSError, pa.ArrowException):
        pass


STORE: str


@pytest.fixture(autouse=True, scope="module")
def store(tmp_path_factory) -> None:
    global STORE  # hypothesis wants no fixture of a function
    STORE = str(tmp_path_factory.mktemp("damaged"))


def test_tables_are_checked_before_they_are_read(tmp_path):
    rows = 4_000_000
    bomb = {f"c{i}": pa.array(np.zeros(rows)) for i in range(10)}
    path = saved(tmp_path / "table.parquet", bomb)
    with pytest.raises(InputError, match=r"table\.parquet: its .* bytes can unpack to"):
        read_table(path)


def test_a_runs_tables_are_checked_before_they_are_read(tmp_path):
    run = read_run(make_run(tmp_path / "run", 6))
    bomb = {"pair_id": repeated(20, 40_000_000)}
    for name in ("pairs.parquet", "features.parquet"):
        saved(run.path / name, bomb)
    with pytest.raises(
        InputError, match=r"pairs\.parquet is damaged \(its .* bytes can unpack to .*\): run the analysis"
    ):
        _ = run.pairs
    with pytest.raises(InputError, match=r"features\.parquet is damaged"):
        _ = run.features


def test_a_shard_from_somebody_else_is_checked_before_it_is_read(tmp_path):
    path = saved(tmp_path / "x.parquet", {"_index": pa.array(np.zeros(40_000_000, np.int64))})
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    file = ShardFile.of(path.rename(tmp_path / f"000000.{'0' * 16}.{checksum}.parquet"))
    assert file is not None
    with pytest.raises(DamagedShardError, match="can unpack to"):
        file.content()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory")
def test_polars_keeps_a_text_that_repeats_once(tmp_path):
    """A fact that the check of runs' tables rests on."""
    path = saved(tmp_path / "x.parquet", {"c": repeated(1 << 20, 4000)}, store_schema=False)
    check_whole(path, pq.read_metadata(path), repeated=False)
    with pytest.raises(LargeParquetError):
        check_whole(path, pq.read_metadata(path))
    before = resident()
    found = pl.read_parquet(path)
    assert resident() - before < 100 << 20
    assert found["c"].str.len_bytes().sum() == 4000 << 20


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_bounds_fit_together():
    assert MOST_BYTES < MOST_HELD < MOST_WHOLE < 500_000_000
