"""Pairs that cannot be read: one clear line with the place, exit code 2, nothing written (more in tests/pairs)."""

from __future__ import annotations

import json

import pytest

import tiny

GOOD = json.dumps(tiny.PAIRS[0])


@pytest.fixture
def given(refused, tiny_model, tiny_saes, tmp_path):
    """Run on a data file of these bytes; it must be refused with these words."""

    def check(content: bytes | str, *says: str, name: str = "pairs.jsonl", flags: tuple[str, ...] = ()) -> None:
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        command = ["analyze", "--model", tiny_model, "--sae", tiny_saes, "--out", tmp_path / "run"]
        refused(*command, "--data", path, *flags, says=(str(path), *says))

    return check


def test_a_missing_file_a_folder_without_files_and_an_unknown_type_are_refused(refused, tiny_flags, tmp_path, given):
    flags = [flag for flag in tiny_flags if flag != tiny_flags[5]]
    (tmp_path / "empty").mkdir()
    for data, says in [
        (tmp_path / "no.jsonl", "no such file or folder; give a .json, .jsonl"),
        (tmp_path / "empty", "no .json, .jsonl"),
        ("", "--data is empty"),
    ]:
        at = flags.index("--data") + 1
        refused("analyze", *flags[:at], data, *flags[at:], says=says)
    given("a", "unknown file type '.txt'", name="pairs.txt")


def test_invalid_json_is_named_with_its_line(given):
    given(GOOD + '\n{"prompt": \n', "line 2", "invalid JSON")
    given("[" + GOOD + ',\n {"prompt" 3}]', "line 2", "invalid JSON", name="pairs.json")


def test_text_that_is_not_utf_8_is_named_with_its_place(given):
    given(GOOD.encode() + b'\n{"prompt": "\xff"}\n', "line 2", "not UTF-8", "save the file as UTF-8")


def test_an_empty_file_is_refused(given):
    given("", "the file is empty")
    given("\n\n", "holds no pairs")
    given("[]", "holds no pairs", name="pairs.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hallucination": None}, "field 'hallucination' is missing"),
        ({"prompt": ""}, "field 'prompt' is empty; give it a text or drop the pair"),
        ({"fact": "  "}, "field 'fact' is empty"),
        ({"prompt": ["x"]}, "field 'prompt' holds a list; expected a text"),
        ({"complexity": 11}, "field 'complexity' is '11'"),
        ({"l0_fact_gini": 3}, "field 'l0_fact_gini' has the name of a column of the results; rename or drop it"),
        ({"fact_tokens": 3}, "field 'fact_tokens' has the name of a column of the results"),
        ({"entropy_fact": 3}, "field 'entropy_fact' has the name of a column of the results"),
        ({"stability_s0.3_diff": 3}, "field 'stability_s0.3_diff' has the name of a column of the results"),
    ],
)
def test_a_bad_field_is_named_with_the_pair_s_index_and_id(given, changes, says):
    second = {key: value for key, value in (tiny.PAIRS[1] | changes).items() if value is not None}
    given(f"{GOOD}\n{json.dumps(second)}\n", "line 2 (pair 1, id 'it')", says)


def test_a_duplicate_id_is_named_with_both_its_places(given):
    given(f"{GOOD}\n{GOOD}\n", "line 2 (pair 1): id 'fr' is taken by", "line 1 (pair 0)")


def test_a_carried_column_that_collides_in_one_format_collides_in_all(given):
    header = "id,prompt,fact,hallucination,l1_hall_l0_norm\n"
    given(header + "a,Ice is,cold,hot,3\n", "'l1_hall_l0_norm' has the name of a column", name="pairs.csv")
