"""The same pairs are the same pairs in every format, and no format but a JSON list is held whole."""

from __future__ import annotations

import csv
import json
import tempfile
import tracemalloc
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import CarriedColumn, open_source

PAIRS = [
    {
        "id": "a",
        "domain": "x",
        "complexity": 3,
        "prompt": "The capital of France is",
        "fact": "Paris",
        "hallucination": "Rome",
    },
    {
        "id": "b",
        "domain": "y",
        "complexity": None,
        "prompt": 'Schön, "ja",\nnein',
        "fact": "日本",
        "hallucination": " Ω",
    },
    {"id": "c", "domain": "x", "complexity": 10, "prompt": "2 + 2 =", "fact": "4", "hallucination": "5"},
]


def write(path: Path, rows: list[dict]) -> Path:
    """The rows in the format of the suffix, as an ordinary program would write them."""
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path, row_group_size=7)
    return path


def source(path, **options):
    return open_source(DataOptions(data=str(path), **options))


def pairs(path, **options):
    return list(source(path, **options).pairs())


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
SOLID = TEXT.filter(lambda text: bool(text.strip()))
NOTHING = st.none()
ROW = st.fixed_dictionaries(
    {
        "domain": NOTHING | SOLID,
        "complexity": NOTHING | st.integers(1, 10),
        "prompt": SOLID,
        "fact": SOLID,
        "hallucination": SOLID,
        "note": NOTHING | st.just("") | TEXT.map(lambda text: "n " + text),
        "count": NOTHING | st.integers(-(2**63), 2**63 - 1),
        "score": NOTHING | st.floats(allow_nan=False),
        "known": NOTHING | st.booleans(),
        "empty": NOTHING,
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20), st.booleans())
def test_every_format_gives_the_same_pairs_and_digest(rows, numbered):
    if numbered:
        rows = [{"id": f"id {i}", **row} for i, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parts").mkdir()
        half = len(rows) // 2
        paths = [write(folder / f"all{suffix}", rows) for suffix in (".json", ".jsonl", ".csv", ".parquet")]
        if half:
            write(folder / "parts/1.csv", rows[:half])
            write(folder / "parts/2.json", rows[half:])
            paths.append(folder / "parts")
        expected, scan = pairs(paths[0]), source(paths[0]).scan()
        assert [pair.prompt for pair in expected] == [row["prompt"] for row in rows]
        assert [pair.extra["note"] for pair in expected] == [row["note"] or None for row in rows]
        assert [pair.extra["score"] for pair in expected] == [row["score"] for row in rows]
        for path in paths[1:]:
            other = source(path).scan()
            assert other.digest == scan.digest
            assert other.carried == scan.carried
            assert other.domains == scan.domains
            assert other.groups.tolist() == scan.groups.tolist()
            assert pairs(path) == expected


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".JSON", ".Csv"])
def test_each_suffix_is_read_whatever_its_case(tmp_path, suffix):
    plain = write(tmp_path / f"plain{suffix.lower()}", PAIRS)
    found = pairs(plain.rename(tmp_path / f"data{suffix}"))
    assert [(p.id, p.domain, p.complexity, p.prompt, p.fact, p.hallucination) for p in found] == [
        tuple(row[key] for key in ("id", "domain", "complexity", "prompt", "fact", "hallucination")) for row in PAIRS
    ]
    assert [pair.index for pair in found] == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_a_byte_order_mark_is_not_part_of_the_first_field(tmp_path, suffix):
    path = write(tmp_path / f"data{suffix}", PAIRS)
    before = pairs(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert pairs(path) == before


def test_what_a_source_does_not_say_has_its_default(tmp_path):
    rows = [{"prompt": "p", "fact": 1969, "hallucination": "h"}, {"prompt": "q", "fact": "f", "hallucination": "h2"}]
    found = pairs(write(tmp_path / "d.json", rows))
    assert [(p.id, p.domain, p.complexity, p.fact, p.extra) for p in found] == [
        ("0", "all", None, "1969", {}),
        ("1", "all", None, "f", {}),
    ]


def test_row_numbers_as_ids_run_on_across_the_files_of_a_folder(tmp_path):
    for name in ("b.jsonl", "a.csv"):
        write(tmp_path / name, [{"prompt": f"{name} {i}", "fact": "f", "hallucination": "h"} for i in range(2)])
    (tmp_path / "README.md").write_text("ignored")
    (tmp_path / "._a.csv").write_bytes(b"\0\1\2")
    found = pairs(tmp_path)
    assert [(p.id, p.prompt) for p in found] == [
        ("0", "a.csv 0"), ("1", "a.csv 1"), ("2", "b.jsonl 0"), ("3", "b.jsonl 1"),
    ]  # fmt: skip


@pytest.mark.parametrize("given", [3, 3.0, "3", "3.0", " 3 "])
def test_complexity_is_a_whole_number_however_it_is_written(tmp_path, given):
    found = pairs(write(tmp_path / "d.json", [PAIRS[0] | {"complexity": given}]))
    assert found[0].complexity == 3
    assert type(found[0].complexity) is int


def test_the_domain_is_the_files_name_where_asked(tmp_path):
    write(tmp_path / "entity.csv", PAIRS[:1])
    write(tmp_path / "logic.json", PAIRS[1:])
    assert source(tmp_path, domain_from="file").scan().domains == {"entity": 1, "logic": 2}
    assert source(tmp_path).scan().domains == {"x": 2, "y": 1}
    single = pairs(tmp_path / "logic.json", domain_from="file")
    assert [(p.domain, dict(p.extra)) for p in single] == [("logic", {})] * 2


def test_mapped_fields_are_consumed_and_the_others_carried(tmp_path):
    row = {"question": "q", "best=answer": "b", "wrong": "w", "year": 1999, "tags": ["a", {"b": 1}]}
    columns = ("prompt=question", "fact=best=answer", "hallucination=wrong")
    found = pairs(write(tmp_path / "d.json", [row]), columns=columns)[0]
    assert (found.prompt, found.fact, found.hallucination) == ("q", "b", "w")
    assert found.extra == {"year": 1999, "tags": '["a", {"b": 1}]'}


def test_two_keys_may_swap_their_fields(tmp_path):
    found = pairs(write(tmp_path / "d.csv", PAIRS), columns=("fact=hallucination", "hallucination=fact"))
    assert [(p.fact, p.hallucination) for p in found] == [(row["hallucination"], row["fact"]) for row in PAIRS]


KINDS = [
    (["1", "-20", ""], "int", [1, -20, None]),
    (["1", "2.5", "1e3"], "float", [1.0, 2.5, 1000.0]),
    (["NaN", "2.5", "-inf"], "float", [None, 2.5, float("-inf")]),
    (["true", "False", "TRUE"], "bool", [True, False, True]),
    (["007", "8", "9"], "str", ["007", "8", "9"]),
    (["1", "true", "2"], "str", ["1", "true", "2"]),
    (["1", "two", "3"], "str", ["1", "two", "3"]),
    (["9223372036854775807", "9223372036854775808", "1"], "str", ["9223372036854775807", "9223372036854775808", "1"]),
    (["9" * 5000, "1", "1"], "str", ["9" * 5000, "1", "1"]),
    (["", "", ""], "str", [None, None, None]),
    (["١", "٢", "٣"], "str", ["١", "٢", "٣"]),
]


@pytest.mark.parametrize(("cells", "kind", "values"), KINDS)
def test_a_csv_column_has_the_narrowest_type_that_fits_all_its_cells(tmp_path, cells, kind, values):
    rows = [row | {"more": cell} for row, cell in zip(PAIRS, cells, strict=True)]
    path = write(tmp_path / "d.csv", rows)
    assert source(path).scan().carried == (CarriedColumn("more", kind),)
    found = [pair.extra["more"] for pair in pairs(path)]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


TYPED = [
    ([1, 2.5, None], "float", [1.0, 2.5, None]),
    ([1, "2", True], "str", ["1", "2", "true"]),
    ([True, None, False], "bool", [True, None, False]),
    (["1", "2", "3"], "str", ["1", "2", "3"]),
    ([2**63, 1, 2], "str", [str(2**63), "1", "2"]),
    ([{"b": [1, None], "a": "é"}, [], None], "str", ['{"b": [1, null], "a": "é"}', "[]", None]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), TYPED)
def test_typed_values_keep_their_type_and_widen_where_they_mix(tmp_path, values, kind, expected):
    path = write(tmp_path / "d.jsonl", [row | {"more": value} for row, value in zip(PAIRS, values, strict=True)])
    assert source(path).scan().carried == (CarriedColumn("more", kind),)
    assert [pair.extra["more"] for pair in pairs(path)] == expected


def test_columns_of_different_files_are_joined_in_first_seen_order(tmp_path):
    write(tmp_path / "1.json", [PAIRS[0] | {"late": 1}, PAIRS[1] | {"early": "x"}])
    write(tmp_path / "2.csv", [PAIRS[2] | {"early": 5}])
    assert [c.name for c in source(tmp_path).scan().carried] == ["late", "early"]
    assert [dict(p.extra) for p in pairs(tmp_path)] == [
        {"late": 1, "early": None}, {"late": None, "early": "x"}, {"late": None, "early": "5"},
    ]  # fmt: skip


def test_parquet_dates_categories_and_nested_values_are_carried_as_text(tmp_path):
    frame = pl.DataFrame(PAIRS).with_columns(
        day=pl.date(2024, 2, 29),
        kind=pl.lit("k").cast(pl.Categorical),
        nested=pl.struct(pl.lit(1).alias("a"), pl.lit("é").alias("b")),
        small=pl.lit(3, dtype=pl.UInt8),
        money=pl.lit("1.50").cast(pl.Decimal(10, 2)),
    )
    frame.write_parquet(tmp_path / "d.parquet")
    extra = pairs(tmp_path / "d.parquet")[0].extra
    assert extra == {"day": "2024-02-29", "kind": "k", "nested": '{"a": 1, "b": "é"}', "small": 3, "money": "1.50"}


def test_the_digest_tells_other_pairs_and_another_order(tmp_path):
    base = [row | {"more": 1} for row in PAIRS]
    changed = [
        list(reversed(base)),
        base[:2],
        [*base[:2], base[2] | {"fact": "4 "}],
        [*base[:2], base[2] | {"more": 2}],
        [*base[:2], base[2] | {"complexity": 9}],
    ]
    digests = {source(write(tmp_path / "d.json", rows)).scan().digest for rows in [base, *changed]}
    assert len(digests) == 1 + len(changed)
    moved = [{"prompt": "ab", "fact": "c", "hallucination": "d"}, {"prompt": "a", "fact": "bc", "hallucination": "d"}]
    assert len({source(write(tmp_path / "d.json", [row])).scan().digest for row in moved}) == 2


def test_the_limit_stops_reading(tmp_path):
    path = write(tmp_path / "d.jsonl", PAIRS)
    path.write_text(path.read_text() + "not json\n")
    assert source(path, limit=2).scan().count == 2
    assert len(pairs(path, limit=3)) == 3
    with pytest.raises(InputError, match="line 4"):
        source(path).scan()


def test_bluff200_is_the_bundled_benchmark_and_no_local_file_shadows_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bluff200").mkdir()
    write(Path("bluff200/own.json"), PAIRS)
    bundled = open_source(DataOptions())
    assert bundled.name == "bluff200"
    assert bundled.scan().count == 200
    own = open_source(DataOptions(data="./bluff200"))
    assert own.scan().count == 3
    assert own.name == "bluff200"


@pytest.mark.parametrize(
    ("file", "name"),
    [("my data (v2).json", "my-data-v2"), ("a.b.json", "a.b"), ("日本.json", "pairs"), ("..json", "pairs")],
)
def test_the_name_of_a_source_is_safe_in_a_path(tmp_path, file, name):
    assert source(write(tmp_path / "x.json", PAIRS).rename(tmp_path / file)).name == name


def test_a_folder_lends_its_own_name_even_as_a_dot(tmp_path, monkeypatch):
    folder = tmp_path / "facts.v1"
    folder.mkdir()
    write(folder / "d.json", PAIRS)
    monkeypatch.chdir(folder)
    assert source(".").name == source(folder).name == "facts.v1"


def test_csv_fields_may_hold_line_breaks_quotes_and_long_texts(tmp_path):
    limit = csv.field_size_limit()
    prompt = 'a "quoted"\r\nlong, text ' * 20_000
    path = write(tmp_path / "d.csv", [PAIRS[0] | {"prompt": prompt}, PAIRS[1]])
    assert pairs(path)[0].prompt == prompt
    assert csv.field_size_limit() == limit


def big_rows(count: int):
    return (
        {"id": f"p{i}", "prompt": f"{i} " + "x" * 4000, "fact": f"f{i}", "hallucination": f"h{i}"} for i in range(count)
    )


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_text_files_stream_through_little_memory(tmp_path, suffix):
    path = tmp_path / f"d{suffix}"
    with path.open("w", newline="") as file:
        if suffix == ".csv":
            writer = csv.DictWriter(file, ["id", "prompt", "fact", "hallucination"])
            writer.writeheader()
            writer.writerows(big_rows(8000))
        else:
            file.writelines(json.dumps(row) + "\n" for row in big_rows(8000))
    assert path.stat().st_size > 32_000_000
    opened = source(path)
    tracemalloc.start()
    try:
        assert opened.scan().count == sum(1 for _ in opened.pairs()) == 8000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # of which the labels and hashes of 8000 pairs are about 1.5 MB


def test_parquet_streams_within_a_row_group(tmp_path):
    table = pa.Table.from_pylist(list(big_rows(8000)))
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=8000, compression="none", use_dictionary=False)
    del table
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in source(tmp_path / "d.parquet").pairs()]
    assert len(held) == 8000
    assert max(held) < 12_000_000


def test_pairs_can_be_streamed_again_and_checks_first(tmp_path):
    opened = source(write(tmp_path / "d.json", PAIRS))
    assert list(opened.pairs()) == list(opened.pairs())
    assert opened.scan() is opened.scan()


def test_data_that_changes_after_the_scan_is_refused(tmp_path):
    opened = source(write(tmp_path / "d.csv", PAIRS))
    opened.scan()
    write(tmp_path / "d.csv", PAIRS[:2])
    with pytest.raises(InputError, match="changed while it was in use"):
        list(opened.pairs())
