"""Compressed files, tables with other delimiters, JSON in other shapes: the same pairs, within the same limits."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source, text_files

ROWS = [
    {"id": "a", "domain": "x", "prompt": "Lake Ulmo; is, said", "fact": "deep", "hallucination": "dry", "year": 3},
    {"id": "b", "domain": "y", "prompt": "Zwölf\tsind", "fact": "12", "hallucination": '"13"', "year": 4},
]


def lines(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(delimiter=",", rows=ROWS):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def zst(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {".gz": gzip.compress, ".zst": zst}
PLAIN = {
    "d.jsonl": lines(),
    "d.ndjson": lines(),
    "d.json": json.dumps(ROWS).encode(),
    "d.csv": table(),
    "d.tsv": table("\t"),
}


def opened(path, content, **options):
    path.write_bytes(content)
    return open_source(DataOptions(data=str(path), **options))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    source = opened(tmp_path_factory.mktemp("plain") / "d.jsonl", lines())
    return list(source.pairs()), source.scan().digest


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("name", PLAIN)
def test_each_text_format_is_read_compressed(tmp_path, expected, name, pack):
    for path in (tmp_path / (name + pack), tmp_path / (name + pack).upper()):
        source = opened(path, PACKERS[pack](PLAIN[name]))
        assert (list(source.pairs()), source.scan().digest) == expected
        assert source.name.lower() == "d"
    by_file = opened(tmp_path / (name + pack), PACKERS[pack](PLAIN[name]), domain_from="file")
    assert by_file.scan().domains == {"d": 2}


def test_a_folder_takes_compressed_files_and_gzip_members_in_a_row(tmp_path, expected):
    (tmp_path / "1.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[:1])) + gzip.compress(b"\n"))
    (tmp_path / "2.csv.zst").write_bytes(zst(table(rows=ROWS[1:])))
    (tmp_path / "notes.gz").write_bytes(b"ignored")
    source = open_source(DataOptions(data=str(tmp_path)))
    assert (list(source.pairs()), source.scan().digest) == expected


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("byte", [b"\0", b"\n", b" "])
@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.csv", "d.tsv"])
def test_few_bytes_that_unpack_to_many_are_refused_in_little_memory(tmp_path, monkeypatch, name, byte, pack):
    monkeypatch.setattr(text_files, "MOST_UNPACKED", 100_000)
    monkeypatch.setattr(text_files, "TIMES", 1)
    source = opened(tmp_path / (name + pack), PACKERS[pack](byte * 20 * 1024**2))
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            source.scan()
        assert tracemalloc.get_traced_memory()[1] < 10 * 1024**2
    finally:
        tracemalloc.stop()
    assert "unpacks to more than 100,000 bytes; unpack the file first" in str(caught.value)


def test_lines_of_a_compressed_file_have_the_limit_of_all_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 64)
    with pytest.raises(InputError, match="line 1: longer than"):
        opened(tmp_path / "d.csv.gz", gzip.compress(b"x" * 65)).scan()


@pytest.mark.parametrize("pack", PACKERS)
def test_damaged_compressed_files_are_refused_in_one_line(tmp_path, pack):
    whole = PACKERS[pack](lines() * 500)
    for content in (lines(), b"\x1f\x8b\x08\0", whole[:-20], whole[:50], whole[:30] + b"\xff" * 9 + whole[39:]):
        with pytest.raises(InputError) as caught:
            opened(tmp_path / f"d.jsonl{pack}", content).scan()
        assert f"d.jsonl{pack}: " in str(caught.value)
        assert str(caught.value).isprintable()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PACKERS)), st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_no_bytes_of_a_compressed_file_give_anything_but_pairs_or_one_line(tmp_path_factory, pack, at, put):
    content = bytearray(PACKERS[pack](lines()))
    content[at : at + len(put)] = put
    source = opened(tmp_path_factory.getbasetemp() / f"d.jsonl{pack}", bytes(content))
    try:
        scan = source.scan()
    except InputError as error:
        assert str(error).isprintable()
        return
    assert sum(1 for _ in source.pairs()) == scan.count


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("said", [b"", b"sep=%s\r\n", b"SEP=%s\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_delimiter_of_a_csv_is_found_or_read_from_its_first_line(tmp_path, expected, delimiter, said, mark):
    first = said % delimiter.encode() if said else said
    source = opened(tmp_path / "d.csv", mark + first + table(delimiter))
    assert (list(source.pairs()), source.scan().digest) == expected


def test_a_header_with_commas_is_one_with_commas_whatever_its_names_hold(tmp_path):
    content = b'id;x,"a;b",prompt,fact,hallucination\n1,2,p,f,h\n'
    (pair,) = opened(tmp_path / "d.csv", content).pairs()
    assert dict(pair.extra) == {"id;x": 1, "a;b": 2}
    (pair,) = opened(tmp_path / "d.csv", b'"a,b";prompt;fact;hallucination\n1;p;f;h\n').pairs()
    assert dict(pair.extra) == {"a,b": 1}


def test_lines_that_end_in_a_carriage_return_alone_are_lines(tmp_path, expected):
    source = opened(tmp_path / "d.csv", table().replace(b"\r\n", b"\r"))
    assert (list(source.pairs()), source.scan().digest) == expected
    with pytest.raises(InputError, match=r"d.csv: line 3 \(pair 1\): field 'fact' is empty"):
        opened(tmp_path / "d.csv", b"prompt,fact,hallucination\rp,f,h\rp,,h\r").scan()


def test_lines_are_counted_from_the_first_of_the_file(tmp_path):
    for start in (b"", b"sep=;\n", b"\n", b"\n\nsep=;\n\n"):
        content = start + b"prompt;fact;hallucination\np;f;h\np;;h\n"
        with pytest.raises(InputError, match=rf"line {start.count(10) + 3} \(pair 1\)"):
            opened(tmp_path / "d.csv", content).scan()


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.csv.gz"])
def test_an_index_without_a_name_is_left_out_of_a_table_and_that_is_said_once(tmp_path, expected, caplog, name):
    content = table("\t" if "tsv" in name else ",", [{"": 7 + n, **row} for n, row in enumerate(ROWS)])
    source = opened(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    assert (list(source.pairs()), source.scan().digest) == expected
    assert caplog.messages == [f"{tmp_path / name}: a column without a name is left out: the index of a table"]


def test_an_index_without_a_name_is_left_out_of_parquet(tmp_path, expected, caplog):
    pq.write_table(pl.DataFrame(ROWS).with_row_index("__index_level_0__").to_arrow(), tmp_path / "d.parquet")
    source = open_source(DataOptions(data=str(tmp_path / "d.parquet")))
    assert (list(source.pairs()), source.scan().digest) == expected
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "content",
    [
        lines(),
        b"\xef\xbb\xbf" + lines(),
        b"\n \n" + lines().replace(b"\n", b"\r\n\r\n"),
        json.dumps({"version": "2.0", "data": ROWS, "notes": [], "tags": ["x"]}).encode(),
        json.dumps({"meta": {"data": [{}]}, "rows": ROWS}, indent=1).encode(),
    ],
)
def test_lines_and_an_object_of_one_list_are_read_under_json(tmp_path, expected, content):
    source = opened(tmp_path / "d.json", content)
    assert (list(source.pairs()), source.scan().digest) == expected


def test_which_list_of_an_object_was_read_is_said_and_lines_keep_their_numbers(tmp_path, caplog):
    opened(tmp_path / "d.json", json.dumps({"data": ROWS}).encode()).scan()
    assert caplog.messages == [f"{tmp_path / 'd.json'}: read the objects under 'data'"]
    with pytest.raises(InputError, match=r"d.json: line 3 \(pair 2"):
        opened(tmp_path / "d.json", lines() + b'{"prompt": "p"}\n').scan()
    with pytest.raises(InputError, match="d.json: line 2, column 1: invalid JSON"):
        opened(tmp_path / "d.json", lines(ROWS[:1]) + b"nothing\n").scan()


def test_lines_under_json_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_WHOLE_BYTES", 100)
    assert opened(tmp_path / "d.json", lines()).scan().count == 2


@pytest.mark.parametrize(
    ("fact", "hallucination", "said"),
    [(True, False, ("true", "false")), (4.5, 5.5, ("4.5", "5.5")), (1e300, 3.0, ("1e+300", "3.0")), (7, 8, ("7", "8"))],
)
@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_numbers_and_truth_values_as_completions_are_text(tmp_path, suffix, fact, hallucination, said):
    row = {"prompt": "p", "fact": fact, "hallucination": hallucination}
    path = tmp_path / f"d.{suffix}"
    pl.DataFrame([row]).write_parquet(path) if suffix == "parquet" else path.write_text(json.dumps([row]))
    (pair,) = open_source(DataOptions(data=str(path))).pairs()
    assert (pair.fact, pair.hallucination) == said
    assert bluffscope.lint(path).rows == 1
