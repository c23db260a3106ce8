"""Whatever is wrong with the data, one clear line says what, where and what to do; no bytes give a traceback."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source, text_files
from bluffscope.table.schema import ANALYSES, LOGPROB, table_columns

GOOD = {"id": "a", "prompt": "The capital of France is", "fact": "Paris", "hallucination": "Rome"}
OTHER = {"id": "b", "prompt": "The capital of Italy is", "fact": "Rome", "hallucination": "Paris"}
HEADER = b"id,prompt,fact,hallucination\n"


def read(path, **options) -> int:
    return open_source(DataOptions(data=str(path), **options)).scan().count


def refused(path, **options) -> str:
    """The one line that the data is refused with; nothing may have been written."""
    folder = Path(path).parent
    before = sorted(folder.iterdir()) if folder.is_dir() else []
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert (sorted(folder.iterdir()) if folder.is_dir() else []) == before
    line = str(caught.value)
    assert line.isprintable(), line
    assert len(line) < 600
    return line


def with_field(**changes) -> bytes:
    return json.dumps([GOOD, OTHER | changes]).encode()


def without(name: str) -> bytes:
    return json.dumps([GOOD, {key: value for key, value in OTHER.items() if key != name}]).encode()


def lines(*items) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


CASES = {
    # Whole files
    "empty JSON": ("d.json", b"", ["d.json", "empty"]),
    "blank JSON": ("d.json", b" \n\n", ["d.json", "empty"]),
    "empty list": ("d.json", b"[]", ["no pairs"]),
    "empty JSONL": ("d.jsonl", b"", ["empty"]),
    "blank JSONL": ("d.jsonl", b"\n \n", ["no pairs"]),
    "empty CSV": ("d.csv", b"", ["empty"]),
    "header only": ("d.csv", HEADER, ["no pairs"]),
    "empty Parquet": ("d.parquet", b"", ["empty"]),
    "unknown type": ("d.txt", b"x", ["unknown file type '.txt'", ".parquet"]),
    "compressed Parquet": ("d.parquet.gz", b"x", ["unknown file type '.gz'"]),
    "no type": ("data", b"x", ["unknown file type ''"]),
    # JSON
    "broken JSON": ("d.json", b'[\n{"id": "a",\n}]', ["line 3, column 1", "invalid JSON"]),
    "object of two lists": ("d.json", json.dumps({"a": [GOOD], "b": [OTHER]}).encode(), ["object", "of 'a', 'b'"]),
    "object of a broken list": ("d.json", b'{"a": [{"prompt": 1},\n]}', ["line 2, column 1", "invalid JSON"]),
    "one object": ("d.json", json.dumps(GOOD).encode(), ["an object", "[ ]"]),
    "a number": ("d.json", b"3", ["expected a list of objects, got 3"]),
    "list of texts": ("d.json", b'["a"]', ["item 0", "a text"]),
    "repeated field": ("d.json", b'[{"prompt": "a", "prompt": "b"}]', ["'prompt' twice"]),
    "deep nesting": ("d.json", b"[" * 200_000, ["nested too deeply"]),
    "deep value": ("d.jsonl", b'{"x": ' + b"[" * 200_000 + b"\n", ["line 1", "nested too deeply"]),
    "endless number": ("d.json", b"[" + b"9" * 5000 + b"]", ["too many digits"]),
    "broken JSONL": ("d.jsonl", lines(GOOD) + b'\n{"id": }\n', ["d.jsonl: line 3, column 8", "invalid JSON"]),
    "JSONL of texts": ("d.jsonl", lines(GOOD, "x"), ["line 2", "a text"]),
    "JSON as JSONL": ("d.jsonl", json.dumps([GOOD]).encode(), ["line 1", "a list", ".json"]),
    "half surrogate": ("d.json", with_field(fact="\ud800x"), ["item 1 (pair 1, id 'b')", "'fact'", "surrogate"]),
    "half surrogate name": ("d.json", with_field(**{"\udc00": 1}), ["item 1", "surrogate"]),
    "half surrogate nested": ("d.json", with_field(more=["\ud800"]), ["'more'", "surrogate"]),
    "NUL escape": ("d.json", with_field(prompt="a\0b"), ["pair 1, id 'b'", "'prompt'", "NUL"]),
    # Fields
    "no prompt": ("d.json", without("prompt"), ["pair 1, id 'b'", "'prompt' is missing", "'fact'", "--columns prompt"]),
    "no completion": ("d.jsonl", lines(GOOD, {"id": "q", "prompt": "p"}), ["line 2 (pair 1, id 'q')", "'fact' is"]),
    "no id, no fact": ("d.jsonl", lines({"prompt": "p"}), ["line 1 (pair 0): field 'fact' is missing"]),
    "empty prompt": ("d.json", with_field(prompt=""), ["pair 1, id 'b'", "'prompt' is empty"]),
    "blank fact": ("d.json", with_field(fact=" \t\n"), ["'fact' is empty"]),
    "null fact": ("d.json", with_field(fact=None), ["'fact' is empty"]),
    "NaN fact": ("d.json", with_field(fact=float("nan")), ["'fact' is empty"]),
    "list in a list": ("d.json", with_field(fact=[["a"]]), ["item 1 (pair 1, id 'b')", "'fact' holds a list"]),
    "object fact": ("d.json", with_field(fact={}), ["'fact' holds an object"]),
    "float id": ("d.json", with_field(id=1.5), ["item 1 (pair 1)", "'id' holds"]),
    "list domain": ("d.json", with_field(domain=["x"]), ["'domain' holds a list"]),
    "complexity 11": ("d.json", with_field(complexity=11), ["'complexity' is '11'", "1 to 10"]),
    "complexity 2.5": ("d.json", with_field(complexity=2.5), ["'complexity' is '2.5'"]),
    "complexity text": ("d.json", with_field(complexity="high"), ["'complexity' is 'high'"]),
    "complexity true": ("d.json", with_field(complexity=True), ["'complexity' is 'True'"]),
    "complexity infinite": ("d.json", with_field(complexity=float("inf")), ["'complexity' is 'inf'"]),
    "complexity list": ("d.json", with_field(complexity=[1]), ["'complexity' is '[1]'"]),
    "repeated id": ("d.jsonl", lines(GOOD, OTHER, GOOD), ["line 3 (pair 2)", "'a'", "line 1 (pair 0)"]),
    "id like a number": ("d.jsonl", lines(GOOD | {"id": 1}, {**OTHER, "id": None}), ["'1' is taken by", "line 1"]),
    "long id": ("d.json", with_field(id="x" * 10_000, fact=""), ["id 'xxx", "..."]),
    "odd id": ("d.json", with_field(id="a\nb\x1b[31m", fact=""), ["id 'a\\nb\\x1b[31m'"]),
    # Text files
    "Latin-1 JSON": ("d.json", b'[{"id":\n"\xe9"}]', ["line 2, byte offset 9", "UTF-8"]),
    "Latin-1 JSONL": ("d.jsonl", lines(GOOD) + b'"\xe9"\n', ["line 2, byte offset", "UTF-8"]),
    "Latin-1 CSV": ("d.csv", HEADER + b"a,p,f,\xe9\n", ["line 2, byte offset 35", "UTF-8"]),
    "UTF-16 CSV": ("d.csv", "id,prompt".encode("utf-16"), ["UTF-"]),
    "NUL in JSON": ("d.json", b"[\n\0]", ["line 2", "NUL"]),
    "NUL in JSONL": ("d.jsonl", b"{}\0\n", ["line 1", "NUL"]),
    "NUL in CSV": ("d.csv", HEADER + b"a,p,f,\0\n", ["line 2", "NUL"]),
    "too many fields": ("d.csv", HEADER + b"a,p,f,h\nb,p,f,h,x\n", ["line 3", "5 fields", "header has 4"]),
    "too few fields": ("d.csv", HEADER + b'a,"p\nq",f,h\nb,p,f\n', ["line 4", "3 fields"]),
    "open quote": ("d.csv", HEADER + b'a,p,"f,h\n' + b"b,p,f,h\n" * 9, ["line 2", "invalid CSV"]),
    "stray quote": ("d.csv", HEADER + b'a,p,"f"x,h\n', ["line 2", "invalid CSV"]),
    "bare CR": ("d.csv", HEADER + b"a,p\rf,h\n", ["line 2", "invalid CSV"]),
    "same header": ("d.csv", b"id,prompt,id\n1,2,3\n", ["line 1", "two columns", "'id'"]),
    "nameless column": ("d.csv", b"prompt,,fact,hallucination\np,0,f,h\n", ["column 2 has no name"]),
    "colons": ("d.csv", b"prompt:fact:hallucination\np:f:h\n", ["missing", "'prompt:fact:hallucination'"]),
    "semicolons": ("d.csv", b"prompt;fact;hallucination\np;f;h;x\n", ["4 fields between semicolons"]),
    "empty CSV cell": ("d.csv", HEADER + b"a,p,,h\n", ["line 2 (pair 0, id 'a')", "'fact' is empty"]),
    # Parquet
    "not Parquet": ("d.parquet", b"PAR1 and then nothing", ["d.parquet", "cannot be read as Parquet"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_data_is_refused_in_one_line_that_names_the_place(tmp_path, case):
    name, content, parts = CASES[case]
    (tmp_path / name).write_bytes(content)
    line = refused(tmp_path / name)
    assert str(tmp_path / name) in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    "name",
    ["group", "pair_id", "index", "prompt_tokens", "hall_read_token", "view", "activation", "l5_fact_gini",
     "l12_prompt_x", "stability_fact", "stability_0.3_hall", "entropy_diff", "cross_layer_alignment_hall", "_hidden"],
)  # fmt: skip
def test_a_carried_column_may_not_have_the_name_of_a_result(tmp_path, name):
    (tmp_path / "d.json").write_bytes(with_field(**{name: 1}))
    line = refused(tmp_path / "d.json")
    assert f"'{name}'" in line
    assert "rename or drop" in line


def test_no_carried_column_can_have_the_name_of_any_column_of_the_results(tmp_path):
    columns = table_columns((0, 12), sweep=(0.3, 1.0), analyses=(*ANALYSES, LOGPROB))
    for column in columns:
        if column.name not in ("domain", "complexity"):
            (tmp_path / "d.json").write_bytes(with_field(**{column.name: 1}))
            assert "rename or drop" in refused(tmp_path / "d.json"), column.name


def test_carried_columns_that_would_pass_for_a_metric_of_the_model_are_refused(tmp_path):
    """Statistics take X_fact and X_hall for a metric, whoever measured it."""
    (tmp_path / "d.json").write_bytes(with_field(judge_fact=1, judge_hall=0))
    assert "fields 'judge_fact' and 'judge_hall' are named as a metric" in refused(tmp_path / "d.json")
    (tmp_path / "d.json").write_text(json.dumps([GOOD | {"judge_hall": 0}, OTHER | {"judge_fact": 1}]))
    assert "fields 'judge_fact' and 'judge_hall' are named as a metric" in refused(tmp_path / "d.json")
    (tmp_path / "d.json").write_bytes(with_field(judge_fact=1, other_hall=0))
    assert read(tmp_path / "d.json") == 2


def test_names_that_only_resemble_a_result_are_carried(tmp_path):
    names = ["Group", "layers", "entropy", "l5_gini", "al5_fact_x", "stability", "known", "source", "axis_twist_x"]
    (tmp_path / "d.json").write_bytes(with_field(**dict.fromkeys(names, 1)))
    assert [c.name for c in open_source(DataOptions(data=str(tmp_path / "d.json"))).scan().carried] == names


def test_a_field_that_is_left_over_when_its_key_is_mapped_is_refused(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps([GOOD | {"question": "q"}]))
    assert "'prompt'" in refused(tmp_path / "d.json", columns=("prompt=question",))


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        (("prompt",), "expected KEY=NAME"),
        (("prompt=",), "expected KEY=NAME"),
        (("question=prompt",), "unknown key 'question'"),
        (("Prompt=q",), "unknown key 'Prompt'"),
        (("fact=a", "fact=b"), "fact is mapped twice"),
        (("fact=answer",), "field 'answer' is missing; the fields here are 'id', 'prompt', 'fact', 'hallucination'"),
        (("domain=topic",), "field 'topic' is missing"),
    ],
)
def test_a_wrong_column_mapping_is_refused(tmp_path, columns, part):
    (tmp_path / "d.json").write_text(json.dumps([GOOD]))
    assert part in refused(tmp_path / "d.json", columns=columns)


def test_a_domain_from_both_field_and_file_is_refused(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps([GOOD]))
    assert "contradict" in refused(tmp_path / "d.json", columns=("domain=id",), domain_from="file")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(tmp_path, limit):
    (tmp_path / "d.json").write_text(json.dumps([GOOD]))
    assert f"--limit {limit}" in refused(tmp_path / "d.json", limit=limit)


@pytest.mark.parametrize(
    ("name", "part"),
    [("missing.json", "no such file"), ("d.json/inner.json", "no such file"), ("x" * 5000 + ".json", "cannot be read"),
     ("a\0b.json", "no such file"), ("a\nb.json", "no such file")],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_refused_when_opened(tmp_path, name, part):
    (tmp_path / "d.json").write_text(json.dumps([GOOD]))
    with pytest.raises(InputError, match=part) as caught:
        open_source(DataOptions(data=f"{tmp_path}/{name}"))
    assert str(caught.value).isprintable()


def test_an_empty_path_is_refused():
    assert "--data is empty" in refused("")


def test_folders_without_usable_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub.json").mkdir()
    assert "no .json, .jsonl, .ndjson, .csv, .tsv or .parquet file in this folder" in refused(tmp_path)


def test_an_empty_file_in_a_folder_is_named(tmp_path):
    (tmp_path / "1.json").write_text(json.dumps([GOOD]))
    (tmp_path / "2.csv").write_text("")
    assert "2.csv: the file is empty" in refused(tmp_path)


def test_ids_repeated_across_files_name_both_places(tmp_path):
    (tmp_path / "1.json").write_text(json.dumps([OTHER, GOOD]))
    (tmp_path / "2.csv").write_bytes(HEADER + b"a,p,f,h\n")
    line = refused(tmp_path)
    assert "2.csv: line 2 (pair 2)" in line
    assert "1.json: item 1 (pair 1)" in line


def test_ids_whose_hashes_agree_by_chance_are_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr("bluffscope.pairs.groups.hash64", lambda text: 7)
    monkeypatch.setattr("bluffscope.pairs.source.hash64", lambda text: 7)
    (tmp_path / "d.json").write_text(json.dumps([GOOD, OTHER]))
    assert read(tmp_path / "d.json") == 2


def test_a_file_without_permission_is_refused_when_opened(tmp_path, monkeypatch):
    (tmp_path / "d.json").write_text(json.dumps([GOOD]))

    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(InputError, match=r"d\.json: cannot be read \(Permission denied\)"):
        open_source(DataOptions(data=str(tmp_path / "d.json")))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "d.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.open("wb").close(), daemon=True)  # who opens it all the same gets on
    writer.start()
    try:
        assert "not a regular file" in refused(pipe)
    finally:
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        writer.join(10)
        os.close(reading)


def test_a_json_list_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_WHOLE_BYTES", 20)
    (tmp_path / "d.json").write_text(json.dumps([GOOD]))
    assert "give it as JSONL" in refused(tmp_path / "d.json")


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
def test_a_line_too_long_to_hold_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 64)
    (tmp_path / name).write_bytes(HEADER + b"x" * 65)
    line = refused(tmp_path / name)
    assert "line 2: longer than" in line or "line 1, column 1: invalid JSON" in line


def test_a_parquet_column_of_bytes_is_refused(tmp_path):
    pl.DataFrame([GOOD | {"image": b"\1"}]).write_parquet(tmp_path / "d.parquet")
    line = refused(tmp_path / "d.parquet")
    assert "row 0 (pair 0, id 'a')" in line
    assert "a value of type bytes" in line


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path):
    pl.DataFrame([GOOD | {"fact": "zzzzzzzz"}]).write_parquet(
        tmp_path / "d.parquet", compression="uncompressed", statistics=False
    )
    broken = (tmp_path / "d.parquet").read_bytes().replace(b"zzzzzzzz", b"zzzz\xe9zzz")
    (tmp_path / "d.parquet").write_bytes(broken)
    assert "not UTF-8" in refused(tmp_path / "d.parquet")


def valid_files() -> dict[str, list[bytes]]:
    rows = [GOOD | {"id": f"é{i}", "known": i % 2 == 0, "score": i / 3, "prompt": f"Prompt {i} is"} for i in range(12)]
    frame = pl.DataFrame(rows)
    parquets = []
    for compression in ("uncompressed", "snappy", "zstd"):
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression=compression, row_group_size=5)
        parquets.append(buffer.getvalue())
    return {
        ".json": [json.dumps(rows, indent=1).encode()],
        ".jsonl": [lines(*rows)],
        ".csv": [frame.write_csv().encode(), frame.write_csv(quote_style="always").encode()],
        ".parquet": parquets,
    }


VALID = valid_files()


@st.composite
def mutated(draw, suffix: str) -> bytes:
    """A valid file with a few bytes changed, cut out or put in."""
    content = bytearray(draw(st.sampled_from(VALID[suffix])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        # The end of a Parquet file is what everything else is found by.
        at = max(0, len(content) - at // 8) if draw(st.booleans()) else at
        content[at : at + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
    return bytes(content)


@pytest.mark.parametrize("suffix", list(VALID))
def test_no_bytes_whatever_give_anything_but_pairs_or_one_line(tmp_path_factory, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"d{suffix}"

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60) | mutated(suffix))
    def check(content):
        path.write_bytes(content)
        opened = open_source(DataOptions(data=str(path)))
        try:
            scan = opened.scan()
        except InputError as error:
            assert str(error).isprintable(), str(error)
            return
        assert sum(1 for _ in opened.pairs()) == scan.count

    check()
