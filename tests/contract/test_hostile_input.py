"""Whatever a file holds, it is read or refused with one line: never a traceback, a hang, or more than 2 GB."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluffscope.config import RunConfig
from bluffscope.table.folder import plain
from hostile import Opener
from made_runs import make_run

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
"""`make soak`: new and more examples at every run."""
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does"),
    *([pytest.mark.soak] if LONG else []),
]
EXAMPLES = 1500 if LONG else 60
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

PAIRS = [
    {"id": f"p{i}", "domain": "geo", "complexity": i % 10 + 1, "prompt": f"The capital {i} is", "fact": "Paris"}
    | {"hallucination": "Rome", "source": "a book", "year": 1900 + i, "known": i % 2 == 0, "share": i / 7}
    for i in range(12)
]


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    found = Opener()
    yield found
    found.close()


@pytest.fixture
def fresh(opener) -> Opener:
    """The process started anew: what thousands of files before left of its memory would be another refusal."""
    opener.close()
    return opener


def parquet(compression: str = "snappy") -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(PAIRS), held, compression=compression)
    return held.getvalue()


def csv_text() -> bytes:
    return pl.DataFrame(PAIRS).write_csv().encode()


def metrics_table(rows: int = 20) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    names = ("entropy_fact", "entropy_hall", "l2_fact_gini", "l2_hall_gini")
    lengths = {name: rng.integers(1, 5, rows) for name in ("fact_tokens", "hall_tokens")}
    return pl.DataFrame(
        {"pair_id": [f"p{i}" for i in range(rows)], **lengths, **{n: rng.normal(size=rows) for n in names}}
    )


VALID = {
    ".json": json.dumps(PAIRS).encode(),
    ".jsonl": "\n".join(map(json.dumps, PAIRS)).encode(),
    ".csv": csv_text(),
    ".parquet": parquet(),
}

NUMBERS = st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1])
PIECES = st.one_of(
    st.binary(min_size=1, max_size=12),
    NUMBERS.map(lambda number: number.to_bytes(8, "little")),
    st.sampled_from(
        [b"[" * 5000, b"{" * 5000, b'{"a":' * 3000, b'"', b"\0", b"\xff\xfe", b"\n", b",", b"1" * 6000, b"1e999"]
    ),
    st.sampled_from(
        [b"=cmd()", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"NaN", b"-Infinity", b"&a [*a]", b"!!python/object:os.system"]
    ),
)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["over", "in", "cut", "end", "again"]), PIECES), min_size=1, max_size=6
)


def changed(content: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    """The content after some accidents."""
    for where, how, piece in changes:
        place = int(where * len(content))
        if how == "over":
            content = content[:place] + piece + content[place + len(piece) :]
        elif how == "in":
            content = content[:place] + piece + content[place:]
        elif how == "cut":
            content = content[:place] + content[place + len(piece) :]
        elif how == "end":
            content = content[:place]
        else:
            content = content + content[place : place + 2000]
    return content


def opened(opener: Opener, kind: str, path: Path, content: bytes) -> str:
    path.write_bytes(content)
    said = opener.open(kind, path)
    assert "\n" not in said or kind != "pairs", said
    assert len(said) < 2000, said
    return said


@pytest.mark.parametrize("suffix", list(VALID))
@FUZZ
@given(changes=CHANGES)
def test_damaged_pairs_are_read_or_refused(opener, tmp_path, suffix, changes):
    opened(opener, "pairs", tmp_path / f"pairs{suffix}", changed(VALID[suffix], changes))


@pytest.mark.parametrize("suffix", list(VALID))
@FUZZ
@given(content=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(opener, tmp_path, suffix, content):
    opened(opener, "pairs", tmp_path / f"pairs{suffix}", content)


@FUZZ
@given(changes=CHANGES)
def test_a_damaged_config_is_read_or_refused(opener, tmp_path, changes):
    opened(opener, "config", tmp_path / "config.yaml", changed(yaml.safe_dump(plain(RunConfig())).encode(), changes))


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["data", "model", "measure", "engine", "output", "layers", "limit", "dtype", "noise_sweep", "out", "x"]
)


@FUZZ
@given(content=st.dictionaries(NAMES, st.one_of(ANYTHING, st.dictionaries(NAMES, ANYTHING, max_size=3)), max_size=4))
def test_a_config_of_any_values_is_read_or_refused(opener, tmp_path, content):
    opened(opener, "config", tmp_path / "config.yaml", yaml.safe_dump(content).encode())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@FUZZ
@given(changes=CHANGES)
def test_a_damaged_table_is_read_or_refused(opener, tmp_path, suffix, changes):
    held = io.BytesIO()
    metrics_table().write_csv(held) if suffix == ".csv" else metrics_table().write_parquet(held)
    opened(opener, "table", tmp_path / f"table{suffix}", changed(held.getvalue(), changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", 12, features=6)


@pytest.mark.parametrize(
    "name", ["manifest.json", "config.yaml", "metrics.parquet", "pairs.parquet", "features.parquet"]
)
@settings(FUZZ, max_examples=EXAMPLES // 3)
@given(changes=CHANGES)
def test_a_run_with_a_damaged_file_is_read_or_refused(opener, made, tmp_path, name, changes):
    folder = tmp_path / "run"
    shutil.copytree(made, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(changed((made / name).read_bytes(), changes))
    opener.open("run", folder)


@settings(FUZZ, max_examples=EXAMPLES // 2)
@given(
    name=st.sampled_from(["manifest.json", "config.yaml"]),
    depth=st.integers(0, 2),
    pick=st.integers(0, 50),
    value=ANYTHING,
)
def test_a_run_whose_papers_say_anything_is_read_or_refused(opener, made, tmp_path, name, depth, pick, value):
    folder = tmp_path / "run"
    shutil.copytree(made, folder, dirs_exist_ok=True)
    content = (
        json.loads((made / name).read_text()) if name == "manifest.json" else yaml.safe_load((made / name).read_text())
    )
    place = content
    for _ in range(depth):
        inner = [item for item in place.values() if isinstance(item, dict) and item]
        place = inner[pick % len(inner)] if inner else place
    place[list(place)[pick % len(place)]] = value
    (folder / name).write_text(json.dumps(content) if name == "manifest.json" else yaml.safe_dump(content))
    opener.open("run", folder)


BOMBS = {
    "deep.json": b"[" * 1_000_000,
    "deep.jsonl": b'{"a":' * 500_000 + b"1",
    "wide.jsonl": json.dumps(PAIRS[0] | {f"k{i}": i for i in range(50_000)}).encode(),
    "hollow.json": b"[" + b"{}," * 30_000_000 + b"{}]",
    "long.jsonl": b'{"prompt": "' + b"x" * (20 << 20) + b'"}',
    "quote.csv": b'prompt,fact,hallucination\n"' + b"x\n" * (20 << 20),
    "columns.csv": b",".join(b"c%d" % i for i in range(200_000)) + b"\n",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_files_made_to_fill_the_memory_are_refused(opener, tmp_path, name):
    assert opened(opener, "pairs", tmp_path / name, BOMBS[name]) != "read"


def test_a_small_parquet_file_of_endless_texts_is_refused(fresh, tmp_path):
    text = "x" * (40 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(400, np.int32)), pa.array([text]))
    rows = pa.table({"prompt": column, "fact": column, "hallucination": column})
    pq.write_table(rows, tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
    assert "characters; a text may have" in fresh.open("pairs", tmp_path / "bomb.parquet")


def listed(flat: pa.Array) -> dict[str, pa.Array]:
    """A pair with a further column: one list of these values."""
    pair = {name: pa.array([PAIRS[0][name]]) for name in ("prompt", "fact", "hallucination")}
    return pair | {"extra": pa.ListArray.from_arrays(pa.array([0, len(flat)]), flat)}


def large_pages() -> dict[str, pa.Array]:
    return {f"c{i}": pa.array(["x" * (14 << 20)] * 12) for i in range(3)}


TABLES = {
    "a list of 50 million numbers": lambda: listed(pa.array(np.zeros(50_000_000, np.int32))),
    "a list of millions of texts": lambda: listed(
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(5_000_000, np.int32)), pa.array(["x" * 1000]))
    ),
    "large pages": large_pages,
    "20 million rows": lambda: dict.fromkeys(
        ("pair_id", "entropy_fact", "entropy_hall"), pa.array(np.zeros(20_000_000))
    ),
}


OPENED = [*(("pairs", name) for name in TABLES), ("table", "20 million rows"), ("run", "a list of 50 million numbers")]


@pytest.mark.parametrize(("kind", "name"), OPENED)
def test_small_parquet_files_of_endless_values_are_refused_in_500_megabytes(fresh, made, tmp_path, kind, name):
    path = tmp_path / "bomb.parquet"
    options = {"compression": "zstd", "store_schema": False, "data_page_size": 1 << 30}
    pq.write_table(pa.table(TABLES[name]()), path, use_dictionary="pages" not in name, **options)
    assert path.stat().st_size < 400_000
    if kind == "run":
        path = shutil.copytree(made, tmp_path / "run")
        shutil.copy(tmp_path / "bomb.parquet", path / "pairs.parquet")
    said = fresh.open(kind, path)
    assert "unpack" in said or "rows" in said
    assert "\n" not in said
    assert fresh.peak() < 500_000_000


def test_parquet_rows_that_share_long_texts_are_read_a_few_at_a_time(opener, tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), pa.array(["x" * (2 << 20)]))
    ids = pa.array([f"p{i}" for i in range(300)])
    rows = pa.table({"id": ids, "prompt": column, "fact": ids, "hallucination": pa.array(["no"] * 300)})
    pq.write_table(rows, tmp_path / "long.parquet", compression="zstd", store_schema=False)
    assert opener.open("pairs", tmp_path / "long.parquet") == "read"


def test_aliases_that_stand_for_a_billion_values_are_refused(opener, tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{one}: &{one} [{', '.join([f'*{before}'] * 10)}]" for before, one in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert "not valid YAML" in opened(opener, "config", tmp_path / "config.yaml", "\n".join(lines).encode())


def test_an_object_of_python_in_a_config_is_refused(opener, tmp_path):
    content = b"data: !!python/object/apply:os.system ['true']"
    assert "not valid YAML" in opened(opener, "config", tmp_path / "config.yaml", content)


def test_the_opener_sees_tracebacks_deaths_and_too_much_memory(tmp_path):
    opener = Opener()
    try:
        with pytest.raises(AssertionError, match="KeyError"):
            opener.open("no such kind", tmp_path)
        with pytest.raises(AssertionError, match="died"):
            opener._process.kill()
            opener.open("pairs", tmp_path)
    finally:
        opener.close()
